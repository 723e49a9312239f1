"""Parts shared by networks: blocks, memory formats, weights, cost."""
