"""What networks share: blocks, memory formats, weights, cost."""
