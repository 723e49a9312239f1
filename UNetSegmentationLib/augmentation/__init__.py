"""Augmentation of training patches on tensors: parameters are drawn, then applied, and can be stored and replayed."""

from .config import AugmentationConfig
from .intensity import IntensityParams, apply_intensity, draw_intensity
from .patch import augment_patch
from .spatial import SpatialParams, apply_spatial, draw_spatial, source_size

__all__ = [
    "AugmentationConfig",
    "IntensityParams",
    "SpatialParams",
    "apply_intensity",
    "apply_spatial",
    "augment_patch",
    "draw_intensity",
    "draw_spatial",
    "source_size",
]
