"""Parts shared by post-processing steps."""
