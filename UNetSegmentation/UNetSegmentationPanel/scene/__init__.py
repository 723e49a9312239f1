"""The scene: nodes to arrays and back."""
