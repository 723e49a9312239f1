"""Parts shared by importers."""
