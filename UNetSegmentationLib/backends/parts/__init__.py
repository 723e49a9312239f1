"""What backends share, and the engine that chooses among them."""
