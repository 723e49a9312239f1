"""Training of a model from a data set."""
