"""Reorienting an image for a plan, and sizes on the network's grid."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import prod

from torch import Tensor

from ...core.errors import InputError
from ...image.geometry import AxisOrder, Volume, order_for, reorder, resampled_shape
from ...planning.plan import Plan

# A channel of this size takes 32 GB, a sign of a wrong spacing in the header (metres, micrometres).
MOST_VOXELS = 2**33


def turn(volume: Volume, plan: Plan) -> tuple[Volume, AxisOrder]:
    """Return the volume reoriented for the plan, and the order that undoes it."""
    oriented = AxisOrder() if plan.orientation == "stored" else order_for(volume.affine_ras, plan.orientation)
    order = oriented.then(plan.transpose)
    return (volume if order == AxisOrder() else reorder(volume, order)), order


def network_shape(turned: Volume, plan: Plan) -> tuple[int, int, int]:
    """Return the sizes (D, H, W) of a reoriented volume on the network's grid."""
    depth, height, width = turned.shape
    if plan.longest_side:
        scale = plan.longest_side / max(height, width)
        return depth, max(1, round(height * scale)), max(1, round(width * scale))
    target_mm = target_mm_of(turned.spacing_mm, plan)
    depth, height, width = resampled_shape(turned.shape, turned.spacing_mm, target_mm)
    check_size((depth, height, width), turned)
    return depth, height, width


def target_mm_of(spacing_mm: Sequence[float], plan: Plan) -> tuple[float, float, float]:
    """Return the spacing (D, H, W) of the network's grid for an image's spacing."""
    depth, height, width = (new or old for new, old in zip(plan.spacing_mm, spacing_mm, strict=True))
    return depth, height, width


def check_size(shape: Sequence[int], turned: Volume) -> None:
    """Raise InputError if an image of size `shape` on the network's grid is too large for any machine."""
    if prod(shape) > MOST_VOXELS:
        spacing = " x ".join(f"{step:.3g}" for step in turned.spacing_mm[::-1])
        raise InputError(
            f"an image of {turned.shape} voxels of {spacing} mm would take {' x '.join(map(str, shape))} voxels at the "
            "model's spacing: fix the spacing in the header"
        )


def stack_channels(channels: Iterable[Tensor], count: int) -> Tensor:
    """Stack `count` channels (D, H, W) from an iterator to (C, D, H, W), with at most one of them in memory twice."""
    if count == 1:
        (only,) = channels
        return only[None]
    image: Tensor | None = None
    for index, channel in enumerate(channels):
        image = channel.new_empty((count, *channel.shape)) if image is None else image
        image[index] = channel
        del channel  # before the next one is created
    assert image is not None
    return image
