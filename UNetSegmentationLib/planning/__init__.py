"""From a data set's fingerprint to the plan by which its images reach a network."""
