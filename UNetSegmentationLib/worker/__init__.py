"""The warm child process that computes for the panel: one file an operation."""
