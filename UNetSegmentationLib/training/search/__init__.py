"""Several trainings of one data set: configurations and folds, and which of them wins."""
