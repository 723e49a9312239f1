"""Metrics of a segmentation against its reference."""

from .case import evaluate_case, summarize
from .overlap import dice, iou, relative_volume_difference, volume_difference_mm3
from .surface_distance import SurfaceDistances, measure_surfaces

__all__ = [
    "SurfaceDistances",
    "dice",
    "evaluate_case",
    "iou",
    "measure_surfaces",
    "relative_volume_difference",
    "summarize",
    "volume_difference_mm3",
]
