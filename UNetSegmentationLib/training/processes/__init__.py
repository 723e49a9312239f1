"""Training in several processes, one a device."""
