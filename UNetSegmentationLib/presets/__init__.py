"""Modality presets, one file each."""

from .contract import PRESETS, Preset

__all__ = ["PRESETS", "Preset"]
