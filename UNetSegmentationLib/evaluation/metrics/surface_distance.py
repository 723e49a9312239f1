"""Distances between the surfaces of two masks, weighted by area (Nikolov et al. 2021, doi:10.2196/26151).

There are two definitions of a surface:

- "elements" (the default): the pieces of a surface half-way between voxels inside and outside, each weighted by
  its area. Distances are between the centres of the cubes that hold the pieces. All figures equal those of DeepMind's
  surface-distance; MONAI's surface Dice with `use_subvoxels=True` is the same.
- "voxels": the voxels of the mask that touch a face of a voxel outside, all of weight 1. Hausdorff and average
  distance equal MONAI's, up to its single precision. MONAI's HD95 differs: it interpolates between the two voxels next
  to the 95th percentile, here it is the smallest distance that covers 95 % of the surface.

Outside the image both masks are background. An image with D = 1 is 2D: its surface is the contour in the slice,
weighted by length, as its flat sides carry no information.

Empty masks: if both are empty, everything is NaN; if one is, distances are infinite and surface Dice is 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, nan

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt
from scipy.spatial import KDTree

from ...core.errors import InputError
from .overlap import Mask, check_masks
from .surface_elements import contour_lengths_mm, surface_areas_mm2

SURFACES = ("elements", "voxels")
_ROUNDING = 1e-9
Numbers = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class SurfaceDistances:
    """Distance of every surface element to the other surface, and its area; both lists sorted by distance.

    Attributes:
        prediction_mm: Distances of the prediction's elements to the reference (N,).
        prediction_areas: Areas in mm² of those elements (2D: lengths in mm).
        reference_mm: Distances of the reference's elements to the prediction (M,).
        reference_areas: Areas of those elements.
    """

    prediction_mm: Numbers
    prediction_areas: Numbers
    reference_mm: Numbers
    reference_areas: Numbers

    def hausdorff_mm(self, percent: float = 100.0) -> float:
        """Return the larger of the two one-way distances that cover `percent` of each surface.

        Raises:
            InputError: `percent` is not above 0 and at most 100.
        """
        if not 0 < percent <= 100:
            raise InputError(f"percent is {percent}: must be above 0 and at most 100")
        undefined = self._undefined_distance()
        if undefined is not None:
            return undefined
        return max(
            _weighted_percentile(self.prediction_mm, self.prediction_areas, percent),
            _weighted_percentile(self.reference_mm, self.reference_areas, percent),
        )

    def average_mm(self) -> float:
        """Return the area-weighted mean distance over both surfaces together (ASSD).

        The mean of the two one-way averages, which others report, differs if the surfaces differ in area.
        """
        undefined = self._undefined_distance()
        if undefined is not None:
            return undefined
        total = self.prediction_mm @ self.prediction_areas + self.reference_mm @ self.reference_areas
        return float(total / (self.prediction_areas.sum() + self.reference_areas.sum()))

    def surface_dice(self, tolerance_mm: float) -> float:
        """Return the share of both surfaces that lies within `tolerance_mm` of the other, 0 to 1.

        Raises:
            InputError: The tolerance is negative.
        """
        if tolerance_mm < 0:
            raise InputError(f"tolerance_mm is {tolerance_mm}: must be 0 or more")
        total = self.prediction_areas.sum() + self.reference_areas.sum()
        if total == 0:
            return nan
        # Three steps of 0.1 mm lie within 0.3 mm, although rounding makes their sum larger.
        limit_mm = tolerance_mm * (1 + _ROUNDING)
        near = self.prediction_areas[self.prediction_mm <= limit_mm].sum()
        near += self.reference_areas[self.reference_mm <= limit_mm].sum()
        return float(near / total)

    def _undefined_distance(self) -> float | None:
        """Return NaN if both surfaces are empty, inf if one is, or None if distances are defined."""
        empty = (not self.prediction_mm.size) + (not self.reference_mm.size)
        return (None, inf, nan)[empty]


def measure_surfaces(
    prediction: Mask, reference: Mask, *, spacing_mm: Sequence[float], surface: str = "elements"
) -> SurfaceDistances:
    """Return the distances between the surfaces of two masks.

    Args:
        prediction: Bool (D, H, W); D = 1 is measured as 2D.
        reference: Bool of the same shape.
        spacing_mm: Size of a voxel along (D, H, W).
        surface: One of SURFACES, see the module.

    Raises:
        InputError: Masks that are not boolean, 3D and of one shape, spacings not above 0, or an unknown surface.
    """
    check_masks(prediction, reference)
    if prediction.ndim != 3 or len(spacing_mm) != 3 or not min(spacing_mm) > 0:
        raise InputError(
            f"masks have {prediction.ndim} axes and spacing_mm is {tuple(spacing_mm)}: need (D, H, W), spacings above 0"
        )
    if surface not in SURFACES:
        raise InputError(f"surface is '{surface}': choose {' or '.join(SURFACES)}")
    box = bounding_box(prediction | reference)
    steps_mm = tuple(float(step) for step in spacing_mm)
    first_axis = 1 if prediction.shape[0] == 1 else 0
    masks = [mask[box].reshape(mask[box].shape[first_axis:]) for mask in (prediction, reference)]
    find = _find_elements if surface == "elements" else _find_voxels
    (one, one_areas), (other, other_areas) = (find(mask, steps_mm[first_axis:]) for mask in masks)
    steps = np.array(steps_mm[first_axis:])
    prediction_mm, prediction_areas = _measure_one_way(one, other, one_areas, steps)
    reference_mm, reference_areas = _measure_one_way(other, one, other_areas, steps)
    return SurfaceDistances(
        prediction_mm=prediction_mm,
        prediction_areas=prediction_areas,
        reference_mm=reference_mm,
        reference_areas=reference_areas,
    )


def bounding_box(mask: Mask) -> tuple[slice, ...]:
    """Return the smallest box around the voxels of `mask`; empty if there are none."""
    slices = []
    for axis in range(mask.ndim):
        filled = np.flatnonzero(mask.any(axis=tuple(a for a in range(mask.ndim) if a != axis)))
        slices.append(slice(int(filled[0]), int(filled[-1]) + 1) if filled.size else slice(0, 0))
    return tuple(slices)


def _find_elements(mask: Mask, spacing_mm: Sequence[float]) -> tuple[Mask, Numbers]:
    """Return which cubes of neighbouring voxel centres hold a piece of surface, and the areas of those pieces (N,).

    There is one cube more than voxels along each axis.
    """
    padded = np.pad(mask, 1).view(np.uint8)
    codes = np.zeros([extent - 1 for extent in padded.shape], np.uint8)
    for bit in range(2**mask.ndim):
        offsets = [bit >> (mask.ndim - 1 - axis) & 1 for axis in range(mask.ndim)]
        part = padded[tuple(slice(o, o + n) for o, n in zip(offsets, codes.shape, strict=True))]
        codes |= part << np.uint8(bit)
    areas = contour_lengths_mm(tuple(spacing_mm)) if mask.ndim == 2 else surface_areas_mm2(tuple(spacing_mm))
    border = (codes > 0) & (codes < len(areas) - 1)
    return border, areas[codes[border]]


def _find_voxels(mask: Mask, _spacing_mm: Sequence[float]) -> tuple[Mask, Numbers]:
    """Return the voxels of the mask that touch a face of a voxel outside, and 1 for each of them (N,)."""
    padded = np.pad(mask, 1)
    inner = mask.copy()
    for axis in range(mask.ndim):
        for side in (0, 2):
            offsets = [side if a == axis else 1 for a in range(mask.ndim)]
            inner &= padded[tuple(slice(o, o + n) for o, n in zip(offsets, mask.shape, strict=True))]
    border = mask & ~inner
    return border, np.ones(np.count_nonzero(border))


def _measure_one_way(own: Mask, other: Mask, weights: Numbers, spacing_mm: Numbers) -> tuple[Numbers, Numbers]:
    """Return the sorted distances of the elements of `own` to those of `other`, and their areas."""
    if not other.any():
        return np.full(weights.size, inf), weights
    distances_mm = np.zeros(weights.size)
    apart = np.argwhere(own & ~other)
    if apart.size:
        distances_mm[~other[own]] = _distances_mm(apart, other, spacing_mm)
    order = np.argsort(distances_mm, kind="stable")
    return distances_mm[order], weights[order]


def _distances_mm(points: NDArray[np.intp], mask: Mask, spacing_mm: Numbers) -> Numbers:
    """Return the distance of each of the points (N, axes) to the nearest voxel of `mask`."""
    # Measured on 256³: a tree query for a near point costs 12 times as much as one voxel of a distance map;
    # for a far point it may have to visit every entry, each at a third of the cost of a voxel of the map.
    if len(points) * 12 > mask.size:
        return _distances_by_map(points, mask, spacing_mm)
    filled = np.argwhere(mask)
    tree = KDTree(filled * spacing_mm, balanced_tree=False, compact_nodes=False)
    reach_mm = 10 * float(spacing_mm.max())
    nearest = tree.query(points * spacing_mm, distance_upper_bound=reach_mm)[1]
    far = np.flatnonzero(nearest == tree.n)
    if far.size * tree.n > 3 * mask.size:
        nearest[far] = 0
        distances_mm = _lengths_mm(filled[nearest] - points, spacing_mm)
        distances_mm[far] = _distances_by_map(points[far], mask, spacing_mm)
        return distances_mm
    if far.size:
        nearest[far] = tree.query(points[far] * spacing_mm)[1]
    return _lengths_mm(filled[nearest] - points, spacing_mm)


def _distances_by_map(points: NDArray[np.intp], mask: Mask, spacing_mm: Numbers) -> Numbers:
    nearest = distance_transform_edt(~mask, sampling=spacing_mm, return_distances=False, return_indices=True)
    return _lengths_mm(nearest[(slice(None), *points.T)].T - points, spacing_mm)


def _lengths_mm(offsets: NDArray[np.intp], spacing_mm: Numbers) -> Numbers:
    # Differences of indices before scaling by the spacing: equal steps get equal lengths everywhere.
    lengths: Numbers = np.sqrt(((offsets * spacing_mm) ** 2).sum(axis=1))
    return lengths


def _weighted_percentile(sorted_values: Numbers, weights: Numbers, percent: float) -> float:
    """Return the smallest value up to which at least `percent` of the weight lies."""
    if percent == 100:  # rounding of the sum must not exclude the last element
        return float(sorted_values[-1])
    shares = np.cumsum(weights) / weights.sum()
    index = int(np.searchsorted(shares, percent / 100))
    return float(sorted_values[min(index, len(sorted_values) - 1)])
