"""Python packages required by the worker, and their installation."""
