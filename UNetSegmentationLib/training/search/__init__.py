"""Several trainings on one data set: configurations and folds, and the choice among them."""
