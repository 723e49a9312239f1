"""Network stages for a patch, by the rules of nnU-Net's planner (doi:10.1038/s41592-020-01008-z)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..core.errors import InputError

_ISOTROPY = 2.0
_MAX_FEATURES = {2: 512, 3: 320}


@dataclass(frozen=True, kw_only=True)
class StagePlan:
    """Shape of an encoder.

    Attributes:
        features_per_stage: Channels of each stage, finest first.
        strides: Step before each stage along each axis; the first is all ones.
        kernel_sizes: Kernel of each stage along each axis.
        patch_size: The patch, enlarged to multiples of the total stride.
    """

    features_per_stage: tuple[int, ...]
    strides: tuple[tuple[int, ...], ...]
    kernel_sizes: tuple[tuple[int, ...], ...]
    patch_size: tuple[int, ...]


def plan_stages(
    patch_size: Sequence[int],
    spacing_mm: Sequence[float],
    *,
    base_features: int = 32,
    max_features: int | None = None,
    smallest_map: int = 4,
) -> StagePlan:
    """Return the stages for a patch: axes are downsampled while they are fine and long enough.

    Axes whose spacing is less than twice the finest are halved together; the kernel size along an axis is 1 until the
    others have become as coarse, and 3 from then on and at the bottom.

    Args:
        patch_size: Voxels along each of 2 or 3 axes.
        spacing_mm: Spacing along the same axes.
        base_features: Channels of the first stage, doubled at each following stage.
        max_features: Maximum number of channels; 320 in 3D and 512 in 2D by default.
        smallest_map: No axis becomes shorter than this.

    Raises:
        InputError: The numbers of axes differ or a value is not positive.
    """
    axes = len(patch_size)
    if axes not in _MAX_FEATURES or len(spacing_mm) != axes or min(patch_size) < 1 or min(spacing_mm) <= 0:
        raise InputError(
            f"patch {tuple(patch_size)} and spacing {tuple(spacing_mm)} mm are not valid: "
            "give 2 or 3 positive numbers for each"
        )
    size, spacing = list(patch_size), list(spacing_mm)
    kernel, strides, kernels = [1] * axes, [(1,) * axes], []
    while halved := _axes_to_halve(size, spacing, smallest_map):
        finest = min(spacing)
        kernel = [3 if width == 3 or spacing[axis] / finest < _ISOTROPY else 1 for axis, width in enumerate(kernel)]
        kernels.append(tuple(kernel))
        strides.append(tuple(2 if axis in halved else 1 for axis in range(axes)))
        for axis in halved:
            spacing[axis] *= 2
            size[axis] = -(-size[axis] // 2)
    kernels.append((3,) * axes)
    limit = max_features or _MAX_FEATURES[axes]
    total = [2 ** sum(stride[axis] == 2 for stride in strides) for axis in range(axes)]
    return StagePlan(
        features_per_stage=tuple(min(base_features * 2**level, limit) for level in range(len(strides))),
        strides=tuple(strides),
        kernel_sizes=tuple(kernels),
        patch_size=tuple(-(-extent // step) * step for extent, step in zip(patch_size, total, strict=True)),
    )


def _axes_to_halve(size: list[int], spacing: list[float], smallest_map: int) -> list[int]:
    long_enough = [axis for axis, extent in enumerate(size) if extent >= 2 * smallest_map]
    if not long_enough:
        return []
    finest = min(spacing[axis] for axis in long_enough)
    axes = [axis for axis in long_enough if spacing[axis] / finest < _ISOTROPY]
    # A single axis is only halved while it stays clearly longer than the limit.
    return [] if len(axes) == 1 and size[axes[0]] < 3 * smallest_map else axes
