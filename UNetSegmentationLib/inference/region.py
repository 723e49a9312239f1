"""Segmentation of part of a volume, such as a region placed by the user."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from ..image.geometry import Array, Volume, clear_outside, crop_to_region
from .predictor import Predictor, Segmentation


def segment_region(
    predictor: Predictor, volume: Volume, region_to_ras: Array | None = None, **options: Any
) -> Segmentation:
    """Segment the part of a volume in a region; the result is on the grid of the whole volume, background outside.

    Args:
        predictor: A model in memory.
        volume: A volume with the model's channels.
        region_to_ras: 4x4 that maps the cube from -1 to 1 onto the region, which may be oblique, or None for all of it.
        options: Options of Predictor.segment.

    Raises:
        InputError: The region is outside the volume, or the volume does not fit the model.
        CancelledError: The task was cancelled.
    """
    if region_to_ras is None:
        return predictor.segment(volume, **options)
    region = np.asarray(region_to_ras, dtype=np.float64)
    part, where = crop_to_region(volume, region)
    found = predictor.segment(part, **options)
    clear_outside(found.labelmap, part.affine_ras, region)
    labelmap = np.zeros(volume.shape, dtype=found.labelmap.dtype)
    labelmap[where] = found.labelmap
    probabilities = None
    if found.probabilities is not None:
        inside = np.ones(part.shape, dtype=np.uint8)
        clear_outside(inside, part.affine_ras, region)
        found.probabilities[:, inside == 0] = 0
        found.probabilities[0, inside == 0] = 1
        probabilities = np.zeros((len(found.probabilities), *volume.shape), dtype=found.probabilities.dtype)
        probabilities[0] = 1
        probabilities[(slice(None), *where)] = found.probabilities
    return replace(found, labelmap=labelmap, probabilities=probabilities)
