"""Training in several processes, one per device."""
