"""How MONAI resamples an image to its network's grid and back (Cardoso et al. 2022, arXiv:2211.02701)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ...core.errors import InputError
from ...core.task import Task
from ...image.geometry import Array
from ...planning.monai_recipe import (
    CropForeground,
    MonaiRecipe,
    Resample,
    ScaleExtremes,
    ScalePercentiles,
    ScaleRange,
    Standardise,
    Step,
)

# Spacings, and ratios of spacings, that differ by less than this count as equal.
TOLERANCE = 1e-3
_CORNER_TOLERANCE = 1e-8  # in voxels, for comparing the corners of volumes
_MOST_VALUES_OF_QUANTILE = 1_000_000
_PLANES = 8  # interpolated at a time
SMALLEST_WEIGHT = 1e-3

Sizes = tuple[int, int, int]
Triple = tuple[float, float, float]
Positions = tuple[Tensor, Tensor, Tensor]
Box = tuple[slice, slice, slice]


@dataclass(frozen=True)
class SteppedGrid:
    """The network's grid, whose voxel n is at `origin` + n times `step`, and the part that is the network's input.

    Attributes:
        shape: Sizes (D, H, W) of the image.
        size: Sizes of the whole grid.
        step: Distance between its voxels, in voxels of the image.
        origin: Position of its voxel 0, in voxels of the image.
        start: First voxel of the network's input; below 0 if zeros were added.
        stop: One past the last voxel; above `size` if zeros were added.
    """

    shape: Sizes
    size: Sizes
    step: Triple
    origin: Triple
    start: Sizes
    stop: Sizes

    @classmethod
    def of(cls, shape: Sizes) -> SteppedGrid:
        """Return the grid of an image that is neither resampled nor cropped."""
        return cls(shape, shape, (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), (0, 0, 0), shape)

    @property
    def positions(self) -> Positions:
        """Positions of the grid's voxels along each axis, in voxels of the image."""
        depth, height, width = (
            torch.arange(size, dtype=torch.float64) * step + origin
            for size, step, origin in zip(self.size, self.step, self.origin, strict=True)
        )
        return depth, height, width

    @property
    def back_positions(self) -> Positions:
        """Positions of the image's voxels along each axis, in voxels of the grid."""
        depth, height, width = (
            (torch.arange(size, dtype=torch.float64) - origin) / step
            for size, step, origin in zip(self.shape, self.step, self.origin, strict=True)
        )
        return depth, height, width

    def seeing(self, start: Sizes, stop: Sizes) -> SteppedGrid:
        """Return the grid with another part as the network's input."""
        return replace(self, start=start, stop=stop)

    def cut(self, values: Tensor) -> Tensor:
        """Crop values (C, *size) to the network's input (C, d, h, w)."""
        return _cut(values, self.start, self.stop)

    def whole(self, values: Tensor) -> Tensor:
        """Return values (C, d, h, w) of the network's input on the whole grid, zeros elsewhere."""
        ends = zip(self.start, self.size, strict=True)
        return _cut(values, [-start for start in self.start], [size - start for start, size in ends])

    def labels(self, labels: Tensor) -> Tensor:
        """Resample a labelmap (D, H, W) from the image's grid to the network's input, by nearest neighbour."""
        return self.cut(nearest_at(labels, self.positions)[None])[0]


def spacing_for(spacing_mm: Sequence[float], target_spacing_mm: Sequence[float]) -> Triple:
    """Return the target spacing (D, H, W) of an image.

    An axis keeps its spacing if the target is 0 or within TOLERANCE of it.
    """
    depth, height, width = (
        new if new and abs(new - old) > TOLERANCE else old
        for old, new in zip(spacing_mm, target_spacing_mm, strict=True)
    )
    return depth, height, width


def grid_for(shape: Sizes, axes_mm: Array, spacing_mm: Triple) -> SteppedGrid:
    """Return the grid of an image at another spacing.

    Its voxel 0 coincides with the image's if the axes are perpendicular to within rounding. If they are not, as in
    most oblique files, whose headers have few digits, the centres of the two grids coincide instead.

    Args:
        shape: Sizes (D, H, W).
        axes_mm: (3, 3), the steps from voxel to voxel along (D, H, W) as columns.
        spacing_mm: Target spacing (D, H, W).
    """
    upper = np.linalg.cholesky(axes_mm.T @ axes_mm).T
    wanted_mm = axes_mm @ np.linalg.inv(upper) @ np.diag(spacing_mm)
    corners = np.array(list(product(*((0.0, extent - 1.0) for extent in shape)))).T
    moved = np.linalg.solve(wanted_mm, axes_mm) @ corners
    depth, height, width = (int(extent) for extent in np.round(np.ptp(moved, axis=1) + 1.0))
    size = (depth, height, width)
    step = np.array(spacing_mm) / np.linalg.norm(axes_mm, axis=0)
    lowest = (moved - moved[:, :1]).min(axis=1)
    is_perpendicular = bool((np.abs(lowest) <= _CORNER_TOLERANCE).all())
    origin = np.zeros(3) if is_perpendicular else (np.array(shape) - step * size) / 2
    if size == shape and max(np.abs(step - 1).max(), np.abs(origin).max()) <= TOLERANCE:
        return SteppedGrid.of(shape)
    return SteppedGrid(shape, size, _triple(step), _triple(origin), (0, 0, 0), size)


def follow(
    recipe: MonaiRecipe,
    image: Tensor,
    *,
    grid_of: Callable[[Sizes], SteppedGrid],
    check_size: Callable[[Sizes], None],
    task: Task,
) -> tuple[Tensor, SteppedGrid, Box]:
    """Apply the steps of a recipe in order.

    Args:
        recipe: The steps.
        image: Stored values (C, D, H, W), float32, reoriented.
        grid_of: Returns the network's grid for an image size.
        check_size: Called with the size of a grid before it is filled.
        task: Polled for cancellation before each step.

    Returns:
        The network's input (C, d, h, w); its grid; and the box of the image that the grid covers, the whole image
        unless it is cropped before resampling.

    Raises:
        InputError: The image has no foreground to crop to.
    """
    grid = SteppedGrid.of(_sizes(image))
    box = (slice(None), slice(None), slice(None))
    for entry in recipe.steps:
        task.check()
        if isinstance(entry, Resample):
            grid = grid_of(_sizes(image))
            check_size(grid.size)
            sample = nearest_at if entry.is_nearest else linear_in_double_precision
            image = sample(image, grid.positions)
        elif isinstance(entry, CropForeground):
            start, stop = foreground_box(image, entry)
            if recipe.crops_last:
                grid = grid.seeing(start, stop)
                image = grid.cut(image)
            else:
                box = (slice(start[0], stop[0]), slice(start[1], stop[1]), slice(start[2], stop[2]))
                image = image[(slice(None), *box)]
        else:
            image = scale(image, entry)
    return image.contiguous(), grid, box


def scale(image: Tensor, step: Step) -> Tensor:
    """Return an image (C, D, H, W) with its intensities scaled by one step of a recipe."""
    return _SCALINGS[type(step)](image, step)


def foreground_box(image: Tensor, step: CropForeground) -> tuple[Sizes, Sizes]:
    """Return the start and stop of the box that a step crops from (C, D, H, W).

    Raises:
        InputError: No voxel is above 0.
    """
    is_inside = (image > 0).any(dim=0)
    if not is_inside.any():
        raise InputError("no voxel of the image is above 0, and the model crops to those that are: use another image")
    starts, stops = [], []
    for axis, (margin, divisor) in enumerate(zip(step.margin, step.divisor, strict=True)):
        others = tuple({0, 1, 2} - {axis})
        found = is_inside.amax(dim=others).nonzero()[:, 0]
        start, stop = int(found[0]) - margin, int(found[-1]) + 1 + margin
        if step.is_within:
            start, stop = max(start, 0), min(stop, is_inside.shape[axis])
        size = -(-(stop - start) // divisor) * divisor
        start -= (size - (stop - start)) // 2
        starts.append(start)
        stops.append(start + size)
    return (starts[0], starts[1], starts[2]), (stops[0], stops[1], stops[2])


def linear_at(values: Tensor, positions: Positions) -> Tensor:
    """Return values (..., D, H, W) interpolated at positions along each axis, in voxels; edges are repeated."""
    for axis in range(3):
        values = linear_along(values, axis - 3, positions[axis])
    return values


def linear_in_double_precision(image: Tensor, positions: Positions) -> Tensor:
    """Apply linear_at to an image (C, D, H, W) in double precision, a few planes at a time; returns float32."""
    along_depth = positions[0].double().clamp(0, image.shape[1] - 1)
    sampled = image.new_empty((len(image), *(len(axis) for axis in positions)), dtype=torch.float32)
    for first in range(0, len(along_depth), _PLANES):
        part = along_depth[first : first + _PLANES]
        lowest, highest = int(part.min().floor()), int(part.max().ceil())
        slab = image[:, lowest : highest + 1].double()
        sampled[:, first : first + _PLANES] = linear_at(slab, (part - lowest, positions[1], positions[2]))
    return sampled


def linear_along(values: Tensor, axis: int, positions: Tensor) -> Tensor:
    """Return values interpolated at positions (n,) along one axis, in voxels; edges are repeated."""
    last = values.shape[axis] - 1
    clamped = positions.to(values.device, torch.float64).clamp(0, last)
    if len(clamped) == last + 1 and torch.equal(clamped, torch.arange(last + 1.0, device=clamped.device).double()):
        return values
    lower = clamped.floor().long()
    upper = (lower + 1).clamp(max=last)
    weight = (clamped - lower).to(values.dtype)
    weight = weight.reshape([-1 if index == axis % values.ndim else 1 for index in range(values.ndim)])
    return torch.lerp(values.index_select(axis, lower), values.index_select(axis, upper), weight)


def nearest_at(values: Tensor, positions: Positions) -> Tensor:
    """Return values (..., D, H, W) at positions along each axis, in voxels, by nearest neighbour."""
    for axis in range(3):
        nearest = positions[axis].round().long().clamp(0, values.shape[axis - 3] - 1)
        values = values.index_select(axis - 3, nearest.to(values.device))
    return values


def tile_starts(size: int, patch: int, overlap: float) -> list[int]:
    """Return the first voxel of each tile along one axis: at regular steps, the last one moved back to fit."""
    interval = max(1, int(patch * (1 - overlap)))
    return [*range(0, size - patch, interval), size - patch]


def tile_weights(patch_size: Sizes, *, kind: str, sigma_ratio: float) -> Tensor:
    """Return the blending weights (D, H, W) of a tile.

    Args:
        patch_size: Sizes (D, H, W).
        kind: One of monai_recipe.TILE_WEIGHTS.
        sigma_ratio: Standard deviation of the Gaussian as a fraction of the patch.
    """
    if kind == "constant":
        return torch.ones(patch_size)
    axes = []
    for size in patch_size:
        offsets = torch.arange(size, dtype=torch.float32) - (size - 1) / 2
        axes.append(torch.exp(offsets**2 / (-2 * (size * sigma_ratio) ** 2)))
    weights = axes[0][:, None, None] * axes[1][None, :, None] * axes[2][None, None, :]
    return weights.clamp(min=max(float(weights.min()), SMALLEST_WEIGHT))


def _scale_range(image: Tensor, step: ScaleRange) -> Tensor:
    lower, upper = step.source
    scaled = (image - lower) / (upper - lower)
    if step.target is None:
        return scaled
    low, high = step.target
    scaled = scaled * (high - low) + low
    return scaled.clamp(low, high) if step.is_clipped else scaled


def _scale_percentiles(image: Tensor, step: ScalePercentiles) -> Tensor:
    def scaled(values: Tensor) -> Tensor:
        lower, upper = (_percentile(values, percentile) for percentile in step.percentiles)
        if lower == upper:
            return values - lower + (step.target[0] if step.target else 0.0)
        return _scale_range(values, ScaleRange(source=(lower, upper), target=step.target, is_clipped=step.is_clipped))

    return torch.stack([scaled(channel) for channel in image]) if step.is_each_channel else scaled(image)


def _percentile(values: Tensor, percentile: float) -> float:
    # torch.quantile accepts at most 16 million values.
    if values.numel() > _MOST_VALUES_OF_QUANTILE:
        return float(np.percentile(values.numpy(), percentile))
    return float(torch.quantile(values, percentile / 100))


def _scale_extremes(image: Tensor, step: ScaleExtremes) -> Tensor:
    low, high = step.target

    def scaled(values: Tensor) -> Tensor:
        smallest, largest = values.min(), values.max()
        if smallest == largest:
            return values * low
        return (values - smallest) / (largest - smallest) * (high - low) + low

    return torch.stack([scaled(channel) for channel in image]) if step.is_each_channel else scaled(image)


def _standardise(image: Tensor, step: Standardise) -> Tensor:
    if not step.is_each_channel:
        return _standardised(image, step, 0)
    return torch.stack([_standardised(channel, step, index) for index, channel in enumerate(image)])


def _standardised(values: Tensor, step: Standardise, index: int) -> Tensor:
    is_inside = values != 0 if step.is_masked else torch.ones_like(values, dtype=torch.bool)
    inside = values[is_inside]
    if not len(inside):
        return values
    mean = _entry(step.means, index, "means") if step.means else float(inside.mean())
    deviation = _entry(step.deviations, index, "deviations") if step.deviations else float(inside.std(correction=0))
    return values.clone().masked_scatter_(is_inside, (inside - mean) / (deviation or 1.0))


def _entry(values: tuple[float, ...], index: int, name: str) -> float:
    if index >= len(values):
        raise InputError(f"the image has more channels than the model has {name}: export the model again")
    return values[index]


_SCALINGS: dict[type[Step], Callable[[Tensor, Any], Tensor]] = {
    ScaleRange: _scale_range,
    ScalePercentiles: _scale_percentiles,
    ScaleExtremes: _scale_extremes,
    Standardise: _standardise,
}


def _cut(values: Tensor, start: Sequence[int], stop: Sequence[int]) -> Tensor:
    """Return voxels `start` to `stop` of (C, D, H, W), padded with zeros outside."""
    sizes = values.shape[1:]
    inside = tuple(slice(max(0, first), min(size, last)) for first, last, size in zip(start, stop, sizes, strict=True))
    ends = [(max(0, -first), max(0, last - size)) for first, last, size in zip(start, stop, sizes, strict=True)]
    cut = values[(slice(None), *inside)]
    return F.pad(cut, [side for pair in reversed(ends) for side in pair]) if any(map(any, ends)) else cut


def _sizes(image: Tensor) -> Sizes:
    depth, height, width = image.shape[1:]
    return depth, height, width


def _triple(values: Array) -> Triple:
    depth, height, width = (float(value) for value in values)
    return depth, height, width
