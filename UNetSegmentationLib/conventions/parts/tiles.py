"""Where tiles begin along an axis, and how they are weighted where they overlap (Isensee et al. 2021, nnU-Net)."""

from __future__ import annotations

from math import ceil

import torch
from torch import Tensor

from ...core.errors import InputError

GAUSSIAN_SIGMA_RATIO = 1 / 8  # of the patch, as in nnU-Net
# float32 blending: a corner weight of 1e-11 would be lost against its neighbours' sum.
SMALLEST_WEIGHT = 1e-5


def tile_starts(size: int, patch: int, overlap: float) -> list[int]:
    """Return the first voxel of each tile along one axis: evenly spread, covering all, overlapping at least so much.

    Args:
        size: Voxels along the axis, at least `patch`.
        patch: Voxels of a tile.
        overlap: Share of a tile that neighbours have in common, 0 to below 1.

    Raises:
        InputError: The overlap is out of range or the patch larger than the axis.
    """
    if not 0 <= overlap < 1:
        raise InputError(f"overlap is {overlap}: give 0 to below 1")
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
        is_centred_on_voxel: Even sizes have their centre on the voxel after the middle.
        smallest: No weight is lower.
    """
    axes = []
    for size in patch_size:
        centre = size // 2 if is_centred_on_voxel else (size - 1) / 2
        offsets = torch.arange(size, dtype=torch.float64) - centre
        axes.append(torch.exp(-0.5 * (offsets / (size * GAUSSIAN_SIGMA_RATIO)) ** 2))
    weights = torch.einsum("d,h,w->dhw", *axes)
    weights /= weights.max()
    return weights.clamp(min=smallest).float()
