"""From a data set's fingerprint to the plan for its images and network."""
