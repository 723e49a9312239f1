"""Jobs: one file each."""
