"""Remove components below a volume."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from ..core.errors import InputError
from .contract import STEPS, Labelmap
from .parts.components import find_boxes, find_components


@STEPS.register("remove_small", title="Remove small components")
def remove_small(labelmap: Labelmap, spacing_mm: Sequence[float], *, min_volume_mm3: float = 10.0) -> Labelmap:
    """Return the labelmap with every component of a label below `min_volume_mm3` set to background.

    Args:
        labelmap: (D, H, W) integers.
        spacing_mm: Voxel size (D, H, W).
        min_volume_mm3: Smallest volume that stays; in a 2D image the area times the slice spacing.

    Raises:
        InputError: The volume is negative or not a number.
    """
    if not min_volume_mm3 >= 0:
        raise InputError(f"min_volume_mm3 is {min_volume_mm3}: must be 0 or more")
    # A relative margin: rounding with 0.1 mm voxels must not remove a component of exactly this volume.
    min_voxels = min_volume_mm3 / prod(spacing_mm) * (1 - 1e-9)
    result = labelmap.copy()
    for label, box in find_boxes(labelmap):
        components, sizes = find_components(labelmap[box] == label)
        is_small = sizes < min_voxels
        is_small[0] = False
        if is_small.any():
            result[box][is_small[components]] = 0
    return result
