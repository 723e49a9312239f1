"""What every other folder stands on: errors, files, registries, progress and cancellation, JSON."""
