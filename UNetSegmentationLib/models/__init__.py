"""Model folders: their description and card, which are installed, and whether one fits an image."""
