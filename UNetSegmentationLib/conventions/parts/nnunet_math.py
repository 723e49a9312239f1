"""nnU-Net's resampling to the network's grid and back (Isensee et al. 2021, doi:10.1038/s41592-020-01008-z)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from math import isclose

import numpy as np
import torch
from torch import Tensor

from ...core.errors import InputError
from ...image.geometry import Array

ANISOTROPY = 3.0  # slices more than this many times thicker than the pixels are resampled plane by plane
SPLINE_ORDER = 3
# Of samples in a spline, far below float32's precision; denormal numbers are 20 times slower.
_SMALLEST_WEIGHT = 1e-12
# Spacings computed from direction matrices differ in the last digits from those in the file.
_SPACING_DIGITS = 9
# A 2D image has no slice spacing: nnU-Net's reader sets one that is certainly the largest.
_FLAT_SPACING = 999.0

Box = tuple[slice, slice, slice]


def spacing_for_rules(spacing_mm: Sequence[float], *, is_picture: bool = False) -> tuple[float, float, float]:
    """Return the spacing (D, H, W) that the rules below compare, without rounding noise.

    Args:
        spacing_mm: Spacing (D, H, W).
        is_picture: Whether the image is a single 2D image, whose slice spacing is meaningless.
    """
    depth, height, width = (float(f"{step:.{_SPACING_DIGITS}g}") for step in spacing_mm)
    return (max(height, width) * _FLAT_SPACING if is_picture else depth), height, width


def content_mask(array: Array) -> tuple[Array, Box]:
    """Return where any channel of (C, D, H, W) is not zero, holes filled, within its bounding box, and that box.

    Raises:
        InputError: All voxels are zero.
    """
    from scipy import ndimage

    mask = ndimage.binary_fill_holes((array != 0).any(axis=0))
    boxes = ndimage.find_objects(mask.astype(np.uint8))
    if not boxes:
        raise InputError("every voxel of the image is 0: use another image")
    depth, height, width = boxes[0]
    return mask[boxes[0]], (depth, height, width)


def shape_at(
    shape: Sequence[int], spacing_mm: Sequence[float], target_spacing_mm: Sequence[float]
) -> tuple[int, int, int]:
    """Return the sizes (D, H, W) at another spacing."""
    # The order of operations affects the rounding of halves.
    depth, height, width = (
        max(1, round(old / new * size)) for size, old, new in zip(shape, spacing_mm, target_spacing_mm, strict=True)
    )
    return depth, height, width


def plane_axis(spacing_mm: Sequence[float], target_spacing_mm: Sequence[float]) -> int | None:
    """Return the axis along which planes are resampled one by one, or None if all axes are resampled together.

    It is the coarsest axis of the first anisotropic spacing of the two, unless two axes are equally coarse.
    """
    for spacing in (spacing_mm, target_spacing_mm):
        if max(spacing) / min(spacing) > ANISOTROPY:
            thick = [axis for axis in range(3) if isclose(spacing[axis], max(spacing), rel_tol=1e-6)]
            return thick[0] if len(thick) == 1 else None
    return None


def resample_spline(image: Array, shape: tuple[int, int, int], *, across: int | None) -> Array:
    """Resample (D, H, W) to size `shape` over the same extent with cubic splines, clipped to the range of values.

    Args:
        image: Voxels.
        shape: Target size (D, H, W).
        across: Axis of (D, H, W) along which the nearest plane is used, or None.

    Returns:
        (*shape) float32.
    """
    if across is None:
        return np.asarray(_resized(image, shape), dtype=np.float32)
    planes = np.moveaxis(image, across, 0)
    in_plane = tuple(size for axis, size in enumerate(shape) if axis != across)
    resized = np.stack([_resized(plane, in_plane) for plane in planes])
    nearest = resized[nearest_planes(len(planes), shape[across])]
    return np.ascontiguousarray(np.moveaxis(nearest, 0, across), dtype=np.float32)


def resample_labels_by_share(labels: Array, shape: tuple[int, int, int], *, across: int | None) -> Array:
    """Resample a labelmap (D, H, W) to size `shape` over the same extent: the label with the largest share wins.

    Shares are those of linear interpolation. Ties go to the label of the nearest voxel if it is among them, else to the
    lowest value, as in batchgenerators since 0.25.2.

    Args:
        labels: Label values, negative ones included.
        shape: Target size (D, H, W).
        across: Axis of (D, H, W) along which the nearest plane is used, or None.
    """
    if across is None:
        return _resized_labels(labels, shape)
    planes = np.moveaxis(labels, across, 0)
    in_plane = tuple(size for axis, size in enumerate(shape) if axis != across)
    resized = np.stack([_resized_labels(plane, in_plane) for plane in planes])
    nearest = resized[nearest_planes(len(planes), shape[across])]
    return np.ascontiguousarray(np.moveaxis(nearest, 0, across))


def nearest_planes(size: int, target_size: int) -> Array:
    """Return the index of the nearest of `size` planes for each of `target_size` planes over the same extent."""
    centres = size / target_size * (np.arange(target_size) + 0.5) - 0.5
    nearest: Array = np.clip(np.floor(centres + 0.5).astype(np.int64), 0, size - 1)
    return nearest


def take_nearest_planes(logits: Tensor, axis: int, target_size: int) -> Tensor:
    """Return logits (K, D, H, W) with axis `axis` of (D, H, W) resampled to `target_size` nearest planes."""
    indices = torch.from_numpy(nearest_planes(logits.shape[1 + axis], target_size)).to(logits.device)
    return logits.index_select(1 + axis, indices)


def _resized(array: Array, shape: tuple[int, ...]) -> Array:
    """Return an array resized with cubic splines, like scikit-image's `resize` with mode "edge".

    Splines are linear and the axes independent, so each axis is one matrix product. A CT of 244 x 202 x 224 voxels
    took 1.3 s point by point in double precision, and takes 0.03 s once the matrices are cached.
    """
    if array.shape == shape:
        # Splines pass through the samples.
        return array
    result = torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))
    lower, upper = result.aminmax()
    # The axis that shrinks the most comes first.
    for axis in sorted(range(array.ndim), key=lambda axis: shape[axis] / array.shape[axis]):
        if shape[axis] != array.shape[axis]:
            matrix = _spline_matrix(array.shape[axis], shape[axis])
            if axis == array.ndim - 1:
                result = result @ matrix.T
            else:
                behind = result.shape[axis + 1 :]
                result = matrix @ result.flatten(axis + 1)
                result = result.view(*result.shape[:-1], *behind)
    clipped: Array = result.clamp_(lower, upper).numpy()
    return clipped


@lru_cache(maxsize=4)  # a volume needs three; those of large images take 100 MB
def _spline_matrix(size: int, target_size: int) -> Tensor:
    """Return the matrix (target_size, size) that resamples an axis with splines."""
    matrix = torch.empty(size, target_size)
    for sample, row in enumerate(matrix):
        weights = _zoomed(np.eye(1, size, sample)[0], (target_size,), order=SPLINE_ORDER)
        weights[abs(weights) < _SMALLEST_WEIGHT] = 0
        row.copy_(torch.from_numpy(weights))
    return matrix.T.contiguous()


def _resized_labels(labels: Array, shape: tuple[int, ...]) -> Array:
    if labels.shape == shape:
        return labels
    nearest = _zoomed(labels, shape, order=0).astype(labels.dtype)
    winner = np.empty(shape, dtype=labels.dtype)
    # Double precision, since ties matter.
    largest, of_nearest = np.full(shape, -1.0), np.zeros(shape)
    for value in np.unique(labels):
        share = _zoomed(labels == value, shape, order=1)
        winner[share > largest] = value
        np.maximum(largest, share, out=largest)
        np.copyto(of_nearest, share, where=nearest == value)
    return np.where(of_nearest == largest, nearest, winner)


def _zoomed(array: Array, shape: tuple[int, ...], *, order: int) -> Array:
    from scipy import ndimage

    factors = [1 / (old / new) for old, new in zip(array.shape, shape, strict=True)]
    zoomed: Array = ndimage.zoom(array.astype(np.float64), factors, order=order, mode="nearest", grid_mode=True)
    return zoomed
