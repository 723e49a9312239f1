"""How an image becomes the network's input, and logits become a labelmap: one file per tool's conventions."""

from .contract import CONVENTIONS, OVERLAP, Conventions, PreparedVolume, Tiling, conventions_of, prepare

__all__ = ["CONVENTIONS", "OVERLAP", "Conventions", "PreparedVolume", "Tiling", "conventions_of", "prepare"]
