"""Parts shared by backends, and the engine that chooses among them."""
