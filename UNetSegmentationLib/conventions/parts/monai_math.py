"""How MONAI brings an image to its network's grid and back (Cardoso et al. 2022, arXiv:2211.02701)."""

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

# Spacings, and ratios of spacings, that differ by less count as equal.
TOLERANCE = 1e-3
_CORNER_TOLERANCE = 1e-8  # in voxels: above it the corners of a volume count as not its own
_MOST_VALUES_OF_QUANTILE = 1_000_000
_PLANES = 8  # that are interpolated at a time
SMALLEST_WEIGHT = 1e-3

Sizes = tuple[int, int, int]
Triple = tuple[float, float, float]
Positions = tuple[Tensor, Tensor, Tensor]
Box = tuple[slice, slice, slice]


@dataclass(frozen=True)
class SteppedGrid:
    """The network's grid, whose voxel n lies at `origin` + n times `step`, and the part of it that the network sees.

    Attributes:
        shape: Sizes (D, H, W) of the image.
        size: Sizes of the whole grid.
        step: Distance of its voxels in voxels of the image.
        origin: Where its voxel 0 lies in voxels of the image.
        start: First voxel that the network sees; below 0 where zeros were added.
        stop: The one after the last; above `size` where zeros were added.
    """

    shape: Sizes
    size: Sizes
    step: Triple
    origin: Triple
    start: Sizes
    stop: Sizes

    @classmethod
    def of(cls, shape: Sizes) -> SteppedGrid:
        """Return the grid of an image that is not resampled and seen as a whole."""
        return cls(shape, shape, (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), (0, 0, 0), shape)

    @property
    def positions(self) -> Positions:
        """Where the grid's voxels lie along each axis, in voxels of the image."""
        depth, height, width = (
            torch.arange(size, dtype=torch.float64) * step + origin
            for size, step, origin in zip(self.size, self.step, self.origin, strict=True)
        )
        return depth, height, width

    @property
    def back_positions(self) -> Positions:
        """Where the image's voxels lie along each axis, in voxels of the grid."""
        depth, height, width = (
            (torch.arange(size, dtype=torch.float64) - origin) / step
            for size, step, origin in zip(self.shape, self.step, self.origin, strict=True)
        )
        return depth, height, width

    def seeing(self, start: Sizes, stop: Sizes) -> SteppedGrid:
        """Return the grid of which the network sees another part."""
        return replace(self, start=start, stop=stop)

    def cut(self, values: Tensor) -> Tensor:
        """Return the part (C, d, h, w) of values (C, *size) that the network sees."""
        return _cut(values, self.start, self.stop)

    def whole(self, values: Tensor) -> Tensor:
        """Return values (C, d, h, w) of the part that the network sees on the whole grid, zeros elsewhere."""
        ends = zip(self.start, self.size, strict=True)
        return _cut(values, [-start for start in self.start], [size - start for start, size in ends])

    def labels(self, labels: Tensor) -> Tensor:
        """Return a labelmap (D, H, W) on the image's grid brought to what the network sees, by the nearest voxel."""
        return self.cut(nearest_at(labels, self.positions)[None])[0]


def spacing_for(spacing_mm: Sequence[float], target_spacing_mm: Sequence[float]) -> Triple:
    """Return the spacing (D, H, W) that an image is brought to.

    An axis whose target is 0, or whose spacing is within TOLERANCE of it, keeps its own.
    """
    depth, height, width = (
        new if new and abs(new - old) > TOLERANCE else old
        for old, new in zip(spacing_mm, target_spacing_mm, strict=True)
    )
    return depth, height, width


def grid_for(shape: Sizes, axes_mm: Array, spacing_mm: Triple) -> SteppedGrid:
    """Return the grid of an image at another spacing.

    Its voxel 0 lies on that of the image where the axes are perpendicular to the last digits. Where they are not, as in
    most oblique files, whose headers hold few digits, the middles of the two are put together.

    Args:
        shape: Sizes (D, H, W).
        axes_mm: (3, 3), the steps from voxel to voxel along (D, H, W) as columns.
        spacing_mm: Wanted, (D, H, W).
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
    """Apply the steps of a recipe in their order.

    Args:
        recipe: The steps.
        image: Stored values (C, D, H, W), float32, its axes turned.
        grid_of: Returns the network's grid for an image of some sizes.
        check_size: Called with the sizes of a grid before it is filled.
        task: Asked before each step whether to go on.

    Returns:
        What the network sees (C, d, h, w); its grid; and which box of the image that grid covers, all of it unless the
        image is cropped before it is resampled.

    Raises:
        InputError: Nothing is above 0 where the foreground is cut out.
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
    """Return the first voxel of the box that a step cuts out of (C, D, H, W), and the one after its last.

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
    """Return values (..., D, H, W) interpolated at positions along each axis, in voxels; ends are repeated."""
    for axis in range(3):
        values = linear_along(values, axis - 3, positions[axis])
    return values


def linear_in_double_precision(image: Tensor, positions: Positions) -> Tensor:
    """Return what linear_at makes of an image (C, D, H, W) in double precision, but float32, a few planes at a time."""
    along_depth = positions[0].double().clamp(0, image.shape[1] - 1)
    sampled = image.new_empty((len(image), *(len(axis) for axis in positions)), dtype=torch.float32)
    for first in range(0, len(along_depth), _PLANES):
        part = along_depth[first : first + _PLANES]
        lowest, highest = int(part.min().floor()), int(part.max().ceil())
        slab = image[:, lowest : highest + 1].double()
        sampled[:, first : first + _PLANES] = linear_at(slab, (part - lowest, positions[1], positions[2]))
    return sampled


def linear_along(values: Tensor, axis: int, positions: Tensor) -> Tensor:
    """Return values interpolated at positions (n,) along one axis, in voxels; ends are repeated."""
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
    """Return values (..., D, H, W) of the voxel nearest to positions along each axis, in voxels."""
    for axis in range(3):
        nearest = positions[axis].round().long().clamp(0, values.shape[axis - 3] - 1)
        values = values.index_select(axis - 3, nearest.to(values.device))
    return values


def tile_starts(size: int, patch: int, overlap: float) -> list[int]:
    """Return the first voxel of each tile along one axis: at equal steps, the last moved back to end with the axis."""
    interval = max(1, int(patch * (1 - overlap)))
    return [*range(0, size - patch, interval), size - patch]


def tile_weights(patch_size: Sizes, *, kind: str, sigma_ratio: float) -> Tensor:
    """Return the blending weights (D, H, W) of a tile.

    Args:
        patch_size: Sizes (D, H, W).
        kind: One of monai_recipe.TILE_WEIGHTS.
        sigma_ratio: Width of the Gaussian in patches.
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
    # torch's quantile takes no more than 16 million values.
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
        raise InputError(
            f"the model has {len(values)} {name} to standardise by, the image more channels: export it again"
        )
    return values[index]


_SCALINGS: dict[type[Step], Callable[[Tensor, Any], Tensor]] = {
    ScaleRange: _scale_range,
    ScalePercentiles: _scale_percentiles,
    ScaleExtremes: _scale_extremes,
    Standardise: _standardise,
}


def _cut(values: Tensor, start: Sequence[int], stop: Sequence[int]) -> Tensor:
    """Return voxels `start` to `stop` of (C, D, H, W); zeros where these lie outside."""
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
