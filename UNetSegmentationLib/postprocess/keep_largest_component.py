"""Keep the largest connected component of every label, or of every group of labels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..core.errors import InputError
from .contract import STEPS, Labelmap
from .parts.components import find_boxes, find_components, join_boxes
from .parts.options import Regions


@STEPS.register("keep_largest_component", title="Keep largest component")
def keep_largest_component(
    labelmap: Labelmap,
    spacing_mm: Sequence[float],  # noqa: ARG001
    *,
    regions: Regions = (),
) -> Labelmap:
    """Return the labelmap with all but the largest component of each region set to background.

    Args:
        labelmap: (D, H, W) integers.
        spacing_mm: Voxel size (D, H, W); not used, as all voxels have the same size.
        regions: Groups of labels, each treated as one object (an organ and its tumour: 1+2); other labels are not
            changed. Empty: every label is its own region.

    Raises:
        InputError: A label is in two regions, or is not above 0.
    """
    named = [label for region in regions for label in region]
    if len(set(named)) < len(named) or min(named, default=1) < 1:
        raise InputError(f"regions are {regions}: must be labels above 0, each in one region")
    result = labelmap.copy()
    boxes = dict(find_boxes(labelmap))
    for region in regions or [(label,) for label in boxes]:
        present = [label for label in region if label in boxes]
        if not present:
            continue
        box = join_boxes([boxes[label] for label in present])
        mask = np.isin(labelmap[box], present) if len(present) > 1 else labelmap[box] == present[0]
        components, sizes = find_components(mask)
        if len(sizes) > 2:
            result[box][mask & (components != 1 + int(sizes[1:].argmax()))] = 0
    return result
