"""The worker process that computes for the panel: one file per operation."""
