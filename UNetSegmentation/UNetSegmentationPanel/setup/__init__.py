"""Python packages that the panel needs, and their installation."""
