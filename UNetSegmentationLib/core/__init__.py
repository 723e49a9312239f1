"""Foundations used by every other folder: errors, files, registries, progress and cancellation, JSON."""
