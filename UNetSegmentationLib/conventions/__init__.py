"""How an image becomes the network's input, and logits become the image's labels: a file for each tool's way."""

from .contract import CONVENTIONS, OVERLAP, Conventions, PreparedVolume, Tiling, conventions_of, prepare

__all__ = ["CONVENTIONS", "OVERLAP", "Conventions", "PreparedVolume", "Tiling", "conventions_of", "prepare"]
