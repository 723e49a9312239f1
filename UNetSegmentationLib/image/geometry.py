"""Image geometry: the only module of the library that relates array axes to patient axes."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..core.errors import InputError

Array = NDArray[Any]


@dataclass(frozen=True)
class Volume:
    """An image in patient space.

    Attributes:
        array: Voxels (C, D, H, W); a 2D image has D = 1.
        affine_ras: 4x4 from voxel index (x, y, z) = (W, H, D) to right-anterior-superior millimetres.
    """

    array: Array
    affine_ras: Array

    def __post_init__(self) -> None:
        affine = np.array(self.affine_ras, dtype=np.float64)
        if self.array.ndim != 4 or min(self.array.shape) < 1:
            raise InputError(
                f"volume has shape {self.array.shape}: give 4 sizes of at least 1 (channels, depth, height, width)"
            )
        if affine.shape != (4, 4) or not np.isfinite(affine).all() or not np.allclose(affine[3], (0, 0, 0, 1)):
            raise InputError("the volume's geometry is not a finite 4x4 affine matrix: set its spacing and directions")
        scale = np.linalg.norm(affine[:3, :3], axis=0)
        if scale.min() <= 0 or abs(np.linalg.det(affine[:3, :3])) < 1e-6 * scale.prod():
            raise InputError("the volume's axes are degenerate (zero spacing or parallel directions): fix the header")
        object.__setattr__(self, "affine_ras", affine)

    @property
    def channels(self) -> int:
        """Number of channels C."""
        return int(self.array.shape[0])

    @property
    def shape(self) -> tuple[int, int, int]:
        """Sizes (D, H, W)."""
        depth, height, width = self.array.shape[1:]
        return int(depth), int(height), int(width)

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Distance between voxel centres along (D, H, W) in millimetres."""
        return spacing_of(self.affine_ras)


@dataclass(frozen=True)
class AxisOrder:
    """How the axes of a stored array map to the canonical order, whose index axes point to R, A and S.

    Attributes:
        axes: For canonical (D, H, W), the stored axis that it is taken from.
        flips: For canonical (D, H, W), whether that axis is reversed.
    """

    axes: tuple[int, int, int] = (0, 1, 2)
    flips: tuple[bool, bool, bool] = (False, False, False)

    def apply(self, array: Array) -> Array:
        """Return a view of (..., D, H, W) in canonical order."""
        lead = array.ndim - 3
        array = array.transpose(*range(lead), *(lead + axis for axis in self.axes))
        return _flip(array, self.flips)

    def then(self, transpose: tuple[int, int, int]) -> AxisOrder:
        """Return the order that applies this one and takes axis `transpose[n]` of its result for axis n."""
        first, second, third = transpose
        return AxisOrder(
            (self.axes[first], self.axes[second], self.axes[third]),
            (self.flips[first], self.flips[second], self.flips[third]),
        )

    def undo(self, array: Array) -> Array:
        """Return a view of canonical (..., D, H, W) in stored order."""
        lead = array.ndim - 3
        array = _flip(array, self.flips)
        return array.transpose(*range(lead), *(lead + self.axes.index(axis) for axis in range(3)))


def _flip(array: Array, flips: tuple[bool, bool, bool]) -> Array:
    return array[(..., *(slice(None, None, -1 if is_flipped else None) for is_flipped in flips))]


def spacing_of(affine_ras: Array) -> tuple[float, float, float]:
    """Return the spacing (D, H, W) in millimetres of an affine whose columns are (x, y, z)."""
    x, y, z = np.linalg.norm(np.asarray(affine_ras, dtype=np.float64)[:3, :3], axis=0)
    return float(z), float(y), float(x)


def canonical_order(affine_ras: Array) -> AxisOrder:
    """Return the permutation and flips that bring the stored axes closest to R, A, S.

    Each stored axis is assigned to the patient axis that it is most parallel to; for oblique volumes, the assignment
    with the best total agreement is used, so that no two axes share a direction.
    """
    directions = affine_ras[:3, :3] / np.linalg.norm(affine_ras[:3, :3], axis=0)
    # Column of each patient axis, tried in all six orders; scipy's assignment would take half a second to import.
    index_of = max(permutations(range(3)), key=lambda columns: float(np.abs(directions[range(3), columns]).sum()))
    # Canonical array axes (D, H, W) are patient axes (S, A, R) = rows 2, 1, 0; stored column j is array axis 2 - j.
    columns = [index_of[row] for row in (2, 1, 0)]
    flips = [bool(directions[row, column] < 0) for row, column in zip((2, 1, 0), columns, strict=True)]
    first, second, third = (2 - column for column in columns)
    return AxisOrder((first, second, third), (flips[0], flips[1], flips[2]))


def order_for(affine_ras: Array, orientation: str) -> AxisOrder:
    """Return the permutation and flips that make the index axes (x, y, z) point in three directions, such as "LPS".

    Raises:
        InputError: The letters do not include each of left/right, posterior/anterior and inferior/superior once.
    """
    if not is_orientation(orientation):
        raise InputError(f"orientation is '{orientation}': give three letters such as RAS or LPS")
    canonical = canonical_order(affine_ras)
    # The array's axes (D, H, W) are (z, y, x); canonical ones point to (S, A, R).
    positions = [next(n for n, letters in enumerate(("SI", "AP", "RL")) if c in letters) for c in orientation[::-1]]
    flips = [
        canonical.flips[position] != (letter in "IPL")
        for position, letter in zip(positions, orientation[::-1], strict=True)
    ]
    axes = [canonical.axes[position] for position in positions]
    return AxisOrder((axes[0], axes[1], axes[2]), (flips[0], flips[1], flips[2]))


def is_orientation(letters: str) -> bool:
    """Return whether three letters name a direction along each patient axis, such as RAS or LPS."""
    return len(letters) == 3 and all(
        sum(letter in directions for letter in letters) == 1 for directions in ("RL", "AP", "SI")
    )


def to_canonical(volume: Volume) -> tuple[Volume, AxisOrder]:
    """Return the volume with its axes closest to (S, A, R) and the order that undoes it; voxels are not resampled."""
    order = canonical_order(volume.affine_ras)
    return reorder(volume, order), order


def reorder(volume: Volume, order: AxisOrder) -> Volume:
    """Return the volume with its axes in another order; every voxel keeps its position in the patient."""
    affine = volume.affine_ras.copy()
    for axis in range(3):
        source = order.axes[axis]
        step = volume.affine_ras[:3, 2 - source]
        affine[:3, 2 - axis] = -step if order.flips[axis] else step
        if order.flips[axis]:
            affine[:3, 3] += step * (volume.shape[source] - 1)
    return Volume(order.apply(volume.array), affine)


def resampled_shape(
    shape: tuple[int, ...], spacing_mm: tuple[float, ...], target_spacing_mm: tuple[float, ...]
) -> tuple[int, ...]:
    """Return the sizes for the same extent at another spacing, at least 1 along every axis."""
    sizes = zip(shape, spacing_mm, target_spacing_mm, strict=True)
    return tuple(max(1, round(size * old / new)) for size, old, new in sizes)


def region_of_box(centre_ras_mm: tuple[float, float, float], radii_mm: tuple[float, float, float]) -> Array:
    """Return the 4x4 matrix that maps the cube from -1 to 1 onto a box aligned with R, A and S.

    Args:
        centre_ras_mm: Centre of the box.
        radii_mm: Half-lengths along R, A and S.

    Raises:
        InputError: A radius is not positive.
    """
    if min(radii_mm) <= 0:
        raise InputError(f"the region has radii {radii_mm} mm: give three lengths above 0")
    region = np.diag([*radii_mm, 1.0])
    region[:3, 3] = centre_ras_mm
    return region


def crop_to_region(volume: Volume, region_to_ras: Array) -> tuple[Volume, tuple[slice, slice, slice]]:
    """Return the part of a volume that encloses a region, and its location.

    Args:
        volume: Volume (C, D, H, W) to crop; the result is a view of it.
        region_to_ras: 4x4 that maps the cube from -1 to 1 onto the region, which may be oblique.

    Returns:
        The cropped volume with its own affine, and the slices of (D, H, W) that it covers.

    Raises:
        InputError: The region is empty, or outside the volume.
    """
    region = np.array(region_to_ras, dtype=np.float64)
    if region.shape != (4, 4) or not np.isfinite(region).all() or abs(np.linalg.det(region[:3, :3])) < 1e-9:
        raise InputError("the region is empty: give a box with three lengths above 0")
    cube = np.array(np.meshgrid((-1, 1), (-1, 1), (-1, 1))).reshape(3, -1)
    corners = region @ np.vstack([cube, np.ones(8)])
    index_kji = np.linalg.solve(volume.affine_ras, corners)[2::-1]
    # Voxel i extends from i - 0.5 to i + 0.5.
    first = np.maximum(np.floor(index_kji.min(axis=1) + 0.5), 0).astype(int)
    last = np.minimum(np.ceil(index_kji.max(axis=1) - 0.5), np.array(volume.shape) - 1).astype(int)
    if (first > last).any():
        low, high = _extent_ras_mm(volume)
        centre = ", ".join(f"{value:g}" for value in region[:3, 3])
        raise InputError(
            f"the region around ({centre}) is outside the image, which extends from "
            f"R {low[0]:.0f}, A {low[1]:.0f}, S {low[2]:.0f} to R {high[0]:.0f}, A {high[1]:.0f}, S {high[2]:.0f} mm: "
            "choose a centre inside the image"
        )
    depth, height, width = (slice(int(low), int(high) + 1) for low, high in zip(first, last, strict=True))
    affine = volume.affine_ras.copy()
    affine[:3, 3] += volume.affine_ras[:3, :3] @ first[::-1]
    return Volume(volume.array[:, depth, height, width], affine), (depth, height, width)


def clear_outside(labelmap: Array, affine_ras: Array, region_to_ras: Array) -> None:
    """Set voxels (D, H, W) whose centres are outside a region to 0, in place.

    Args:
        labelmap: Labelmap to change.
        affine_ras: 4x4 from voxel index (x, y, z) to RAS millimetres.
        region_to_ras: 4x4 that maps the cube from -1 to 1 onto the region.
    """
    to_cube = np.linalg.solve(np.asarray(region_to_ras, dtype=np.float64), np.asarray(affine_ras, dtype=np.float64))
    depth, height, width = labelmap.shape
    in_plane = [row[0] * np.arange(width) + row[1] * np.arange(height)[:, None] + row[3] for row in to_cube[:3]]
    for index in range(depth):
        is_outside = np.zeros((height, width), dtype=bool)
        for row, start in zip(to_cube[:3], in_plane, strict=True):
            is_outside |= np.abs(start + row[2] * index) > 1 + 1e-9
        labelmap[index][is_outside] = 0


def _extent_ras_mm(volume: Volume) -> tuple[Array, Array]:
    """Return the smallest and largest R, A, S of the corners of a volume."""
    ends = [(-0.5, extent - 0.5) for extent in volume.shape[::-1]]
    corners = np.array(np.meshgrid(*ends)).reshape(3, -1)
    points = volume.affine_ras[:3, :3] @ corners + volume.affine_ras[:3, 3:]
    return points.min(axis=1), points.max(axis=1)


def same_grid(first: Volume, second: Volume, *, tolerance_mm: float = 1e-3) -> bool:
    """Return whether two volumes have the same sizes and every voxel at the same position."""
    if first.shape != second.shape:
        return False
    corners = np.array([[x, y, z, 1] for x in (0, 1) for y in (0, 1) for z in (0, 1)], dtype=np.float64)
    corners[:, :3] *= np.array(first.shape[::-1]) - 1
    difference = (first.affine_ras - second.affine_ras) @ corners.T
    return bool(np.abs(difference).max() <= tolerance_mm)
