"""What post-processing steps share."""
