"""What sub-commands share."""
