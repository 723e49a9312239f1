"""Labels in their boxes, and connected components within them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Box = tuple[slice, ...]
Mask = NDArray[np.bool_]


def find_boxes(labelmap: NDArray[np.integer[Any]]) -> Iterator[tuple[int, Box]]:
    """Yield every positive label present with the smallest box around it, in ascending order of the label."""
    for index, box in enumerate(ndimage.find_objects(labelmap)):
        if box is not None:
            yield index + 1, box


def join_boxes(boxes: list[Box]) -> Box:
    """Return the smallest box around all."""
    return tuple(
        slice(min(box[axis].start for box in boxes), max(box[axis].stop for box in boxes)) for axis in range(3)
    )


def find_components(mask: Mask) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Return components (D, H, W) numbered from 1, touching corners joined, and their voxel counts from number 0 on."""
    components, _ = ndimage.label(mask, structure=np.ones((3, 3, 3), dtype=bool))
    sizes = np.bincount(components.ravel())
    return components, sizes
