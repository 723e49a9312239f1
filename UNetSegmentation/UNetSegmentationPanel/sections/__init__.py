"""The sections of the panel, one file per section."""
