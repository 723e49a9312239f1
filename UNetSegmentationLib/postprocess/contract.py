"""The contract of post-processing steps: a labelmap in, a labelmap of the same type out, the input untouched."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..core.errors import InputError
from ..core.registry import Registry
from .parts.options import parse_call

Labelmap = NDArray[np.integer[Any]]


# step(labelmap (D, H, W), spacing_mm (D, H, W), *, options with defaults) -> labelmap of the same type;
# 0 is background, negative labels (ignored voxels) stay as they are.
Step = Callable[..., Labelmap]

STEPS: Registry[Step] = Registry("post-processing step", "UNetSegmentationLib.postprocess")


def parse_step(text: str) -> tuple[Step, dict[str, Any]]:
    """Return the step and options of `name` or `name:option=value,option=value`.

    Raises:
        InputError: Unknown step or option, or a value that cannot be read.
    """
    return parse_call(text, STEPS)


def apply_steps(labelmap: Labelmap, spacing_mm: Sequence[float], names: Iterable[str]) -> Labelmap:
    """Return the labelmap after every step, in the order given.

    Args:
        labelmap: (D, H, W) integers; D = 1 for a 2D image.
        spacing_mm: Voxel size (D, H, W).
        names: `keep_largest_component`, `remove_small:min_volume_mm3=50`, ...

    Raises:
        InputError: A step cannot be read, or labelmap or spacing is invalid.
    """
    steps = [parse_step(name) for name in names]
    if labelmap.ndim != 3 or not np.issubdtype(labelmap.dtype, np.integer):
        raise InputError(f"labelmap {labelmap.shape} of {labelmap.dtype} cannot be used: must be integers (D, H, W)")
    if len(spacing_mm) != 3 or min(spacing_mm) <= 0:
        raise InputError(f"spacing_mm is {tuple(spacing_mm)}: must be three positive numbers (D, H, W)")
    for step, options in steps:
        labelmap = step(labelmap, spacing_mm, **options)
    return labelmap
