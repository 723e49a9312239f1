"""Jobs, one file per kind."""
