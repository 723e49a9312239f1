"""Model folders: description and card, installed models, and whether a model fits an image."""
