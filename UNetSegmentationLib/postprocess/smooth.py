"""Smooth the surfaces of all labels at once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from ..core.errors import InputError
from .contract import STEPS, Labelmap
from .parts.components import find_boxes

REACH = 3.0


@STEPS.register("smooth", title="Smooth surfaces")
def smooth(labelmap: Labelmap, spacing_mm: Sequence[float], *, sigma_mm: float = 1.0) -> Labelmap:
    """Return the labelmap in which every voxel has the dominant label of its Gaussian neighbourhood.

    Labels stay next to each other without gaps; parts thinner than about `sigma_mm` vanish.

    Args:
        labelmap: (D, H, W) integers.
        spacing_mm: Voxel size (D, H, W).
        sigma_mm: Standard deviation of the Gaussian.

    Raises:
        InputError: `sigma_mm` is not above 0.
    """
    if not sigma_mm > 0:
        raise InputError(f"sigma_mm is {sigma_mm}: must be above 0")
    sigmas = [sigma_mm / step for step in spacing_mm]
    margins = [int(REACH * sigma + 0.5) for sigma in sigmas]
    result = np.zeros_like(labelmap)
    best = np.zeros(labelmap.shape, dtype=np.float32)
    total = np.zeros(labelmap.shape, dtype=np.float32)
    for label, tight in find_boxes(labelmap):
        # Beyond the margin the share is zero: the box gives the same result as the whole volume.
        box = tuple(
            slice(max(0, part.start - margin), part.stop + margin) for part, margin in zip(tight, margins, strict=True)
        )
        mask = (labelmap[box] == label).astype(np.float32)
        share = ndimage.gaussian_filter(mask, sigmas, mode="nearest", truncate=REACH)
        is_better = share > best[box]
        best[box][is_better] = share[is_better]
        result[box][is_better] = label
        total[box] += share
    # Background and ignored voxels have the remaining share.
    result[best < 1 - total] = 0
    return np.where(labelmap < 0, labelmap, result)
