"""Fill background that a label encloses."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from .contract import STEPS, Labelmap
from .parts.components import Mask, find_boxes


@STEPS.register("fill_holes", title="Fill holes")
def fill_holes(
    labelmap: Labelmap,
    spacing_mm: Sequence[float],  # noqa: ARG001
    *,
    slicewise: bool = False,
) -> Labelmap:
    """Return the labelmap with background enclosed by a label filled with it; other labels inside stay.

    Args:
        labelmap: (D, H, W) integers.
        spacing_mm: Voxel size (D, H, W); not used, as holes depend on neighbours only.
        slicewise: Fill every slice (H, W) separately, which also fills tunnels across slices; 2D images always are.
    """
    result = labelmap.copy()
    # Innermost first: a hole within nested labels belongs to the inner one.
    boxes = sorted(find_boxes(labelmap), key=lambda entry: labelmap[entry[1]].size)
    for label, box in boxes:
        inside = _enclosed(labelmap[box] == label, slicewise or labelmap.shape[0] == 1)
        result[box][inside & (result[box] == 0)] = label
    return result


def _enclosed(mask: Mask, is_slicewise: bool) -> Mask:
    """Return the voxels outside the mask that are not face-connected to the border."""
    structure = ndimage.generate_binary_structure(3, 1)
    around = ((1, 1), (1, 1), (1, 1))
    if is_slicewise:
        structure[[0, 2]] = False
        around = ((0, 0), (1, 1), (1, 1))
    # One labelling of the complement instead of repeated dilations, with a rim that joins all border voxels.
    components, count = ndimage.label(~np.pad(mask, around), structure=structure)
    is_enclosed = np.ones(count + 1, dtype=bool)
    is_enclosed[0] = False
    is_enclosed[components[:, 0, 0]] = False
    inner = tuple(slice(before, size - after) for (before, after), size in zip(around, components.shape, strict=True))
    enclosed: Mask = is_enclosed[components[inner]]
    return enclosed
