"""Tile positions along an axis, and the blending weights of overlapping tiles (Isensee et al. 2021, nnU-Net)."""

from __future__ import annotations

from math import ceil

import torch
from torch import Tensor

from ...core.errors import InputError

GAUSSIAN_SIGMA_RATIO = 1 / 8  # of the patch, as in nnU-Net
# In float32, a corner weight of 1e-11 would be lost in the sum of its neighbours.
SMALLEST_WEIGHT = 1e-5


def tile_starts(size: int, patch: int, overlap: float) -> list[int]:
    """Return the first voxel of each tile along one axis: evenly spaced, covering the axis, with at least this overlap.

    Args:
        size: Voxels along the axis, at least `patch`.
        patch: Voxels of a tile.
        overlap: Overlap of neighbouring tiles as a fraction, 0 to below 1.

    Raises:
        InputError: The overlap is out of range or the patch is larger than the axis.
    """
    if not 0 <= overlap < 1:
        raise InputError(f"overlap is {overlap}: give a number from 0 to below 1")
    if patch > size:
        raise InputError(f"a patch of {patch} does not fit into {size} voxels: pad the image first")
    if size == patch:
        return [0]
    tiles = ceil((size - patch) / max(1.0, patch * (1 - overlap))) + 1
    return [round(index * (size - patch) / (tiles - 1)) for index in range(tiles)]


def gaussian_weights(
    patch_size: tuple[int, int, int], *, is_centred_on_voxel: bool = False, smallest: float = SMALLEST_WEIGHT
) -> Tensor:
    """Return the blending weights (D, H, W) of a tile: 1 at the centre, positive everywhere.

    Args:
        patch_size: Sizes (D, H, W).
        is_centred_on_voxel: For even sizes, the centre is the voxel after the middle.
        smallest: Lower limit of the weights.
    """
    axes = []
    for size in patch_size:
        centre = size // 2 if is_centred_on_voxel else (size - 1) / 2
        offsets = torch.arange(size, dtype=torch.float64) - centre
        axes.append(torch.exp(-0.5 * (offsets / (size * GAUSSIAN_SIGMA_RATIO)) ** 2))
    weights = torch.einsum("d,h,w->dhw", *axes)
    weights /= weights.max()
    return weights.clamp(min=smallest).float()
