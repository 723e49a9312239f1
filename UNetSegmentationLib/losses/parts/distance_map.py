"""Exact Euclidean distance maps in torch, on the device of the labels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

# Far above squared distances in mm, yet small enough for float32 sums.
_FAR_MM2 = 1e18


def squared_distance(mask: Tensor, spacing_mm: Sequence[float]) -> Tensor:
    """Return the squared distance in mm² of every voxel to the nearest voxel of `mask`, float32 of its shape.

    It is 1e18 for an image with an empty mask.

    Args:
        mask: Bool (..., D, H, W) or (..., H, W); leading axes are separate images.
        spacing_mm: One number per spatial axis.

    Source: separable min-plus transform (Felzenszwalb & Huttenlocher 2012, doi:10.4086/toc.2012.v008a019), here with
    the plain minimum along each line: patches are short, and a minimum of whole slices runs well on every device.
    """
    squared = torch.where(mask, 0.0, _FAR_MM2)
    for axis, step in zip(range(-len(spacing_mm), 0), spacing_mm, strict=True):
        positions = torch.arange(mask.shape[axis], device=mask.device, dtype=squared.dtype) * step
        column = (-1, *(1,) * (-1 - axis))
        nearest = torch.full_like(squared, _FAR_MM2)
        for index in range(mask.shape[axis]):
            offsets = (positions - positions[index]).square().view(column)
            torch.minimum(nearest, squared.narrow(axis, index, 1) + offsets, out=nearest)
        squared = nearest
    return squared


def signed_distance(mask: Tensor, spacing_mm: Sequence[float]) -> Tensor:
    """Return the signed distance in mm to the boundary of `mask`: above 0 outside, 0 or below inside.

    As in the boundary loss's paper, the outermost voxels of the mask lie on the boundary: outside it is the distance
    to the nearest voxel of the mask, inside that to the nearest voxel outside, less the smallest spacing. Images
    entirely inside or outside have no boundary and are 0.

    Args:
        mask: Bool (..., D, H, W) or (..., H, W).
        spacing_mm: One number per spatial axis.
    """
    outside = squared_distance(mask, spacing_mm)
    inside = squared_distance(~mask, spacing_mm)
    signed = torch.where(mask, -(inside.sqrt() - min(spacing_mm)).clamp(min=0), outside.sqrt())
    has_boundary = torch.maximum(outside, inside) < _FAR_MM2
    return signed.where(has_boundary, 0.0)
