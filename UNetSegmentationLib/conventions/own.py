"""From a volume in scanner geometry to the network's input, and the geometry of the way back."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ..core.errors import InputError
from ..core.task import UNWATCHED, Task
from ..image.geometry import Array, AxisOrder, Volume, order_for, reorder, resampled_shape
from ..planning.monai_recipe import MonaiRecipe
from ..planning.plan import Normalization, Plan
from .monai_math import SteppedGrid, follow, grid_for, linear_at, spacing_for
from .nnunet_math import (
    Box,
    content_mask,
    plane_axis,
    resample_spline,
    shape_at,
    spacing_for_rules,
    take_nearest_planes,
)

# A channel of so many voxels takes 32 GB: the spacing in the header is wrong (metres, micrometres), not the machine.
MOST_VOXELS = 2**33
# Below this ratio of sizes an image is blurred before it is sampled more coarsely, so that detail does not alias.
ANTIALIAS_RATIO = 0.75
SMALLEST_DEVIATION = {"own": 1e-6, "nnunet": 1e-8}


@dataclass(frozen=True)
class PreparedVolume:
    """A volume on the network's grid.

    Attributes:
        image: Normalised voxels (C, D, H, W), float32; a missing channel is NaN.
        padding: Value (C,) that stands for what lies outside the image.
        spacing_mm: Spacing (D, H, W) of the network's grid.
        shape: Sizes (D, H, W) after turning the axes and cropping, before resampling.
        order: How the axes were turned.
        box: Where the cropped part lies in the turned volume.
        turned_shape: Sizes (D, H, W) of that volume.
        across: Axis along which logits take the nearest plane on the way back; None: they are interpolated along all.
        content: Voxels (D, H, W) of the cropped part that are not empty; None: all are.
        grid: The network's grid by MONAI's conventions; by the others it covers the same extent as the image.
    """

    image: Tensor
    padding: Tensor
    spacing_mm: tuple[float, float, float]
    shape: tuple[int, int, int]
    order: AxisOrder
    box: Box
    turned_shape: tuple[int, int, int]
    across: int | None = None
    content: Array | None = None
    grid: SteppedGrid | None = None

    @property
    def grid_shape(self) -> tuple[int, int, int]:
        """Sizes (D, H, W) of the network's grid."""
        depth, height, width = self.image.shape[1:]
        return depth, height, width

    def labels_on_grid(self, labels: Tensor) -> Tensor:
        """Return a labelmap (*shape) brought to the network's grid, by the nearest voxel."""
        if self.grid is not None:
            return self.grid.labels(labels)
        depth, height, width = self.image.shape[1:]
        return resample_labels(labels, (depth, height, width))

    def values_on_image(self, values: Tensor) -> Tensor:
        """Return values (C, d, h, w) of the network's grid on (C, *shape), linearly."""
        if self.grid is not None:
            return linear_at(self.grid.whole(values), self.grid.back_positions)
        return F.interpolate(values[None], size=self.shape, mode="trilinear", align_corners=False)[0]

    def on_planes(self, logits: Tensor) -> Tensor:
        """Return logits (K, d, h, w) ready to be interpolated linearly to `shape`."""
        return logits if self.across is None else take_nearest_planes(logits, self.across, self.shape[self.across])

    def restore(self, array: Array, *, outside: Sequence[float] | float = 0) -> Array:
        """Return an array (..., *shape) on the grid of the volume that was prepared.

        Args:
            array: A result.
            outside: Value of the voxels that were cropped away; one for each channel of (C, *shape).
        """
        if self.shape != self.turned_shape:
            whole = np.empty((*array.shape[:-3], *self.turned_shape), dtype=array.dtype)
            whole[...] = np.reshape(np.asarray(outside, dtype=array.dtype), (-1, 1, 1, 1)[-array.ndim :])
            whole[(..., *self.box)] = array
            array = whole
        return np.ascontiguousarray(self.order.undo(array))


def prepare(
    volume: Volume,
    plan: Plan,
    *,
    found_first: Array | None = None,
    task: Task = UNWATCHED,
) -> PreparedVolume:
    """Turn the axes, normalise and resample as the plan says.

    Args:
        volume: One channel for each normalization of the plan.
        plan: How.
        found_first: Labelmap (D, H, W) of the first stage of a cascade: nnU-Net counts what is labelled as content.
        task: Asked often whether to go on.

    Raises:
        InputError: Another number of channels than the plan's, or a spacing that is out of all proportion.
        CancelledError: The task was cancelled.
    """
    if volume.channels != len(plan.normalization):
        raise InputError(
            f"the image has {volume.channels} channel(s), the model needs {len(plan.normalization)}: "
            "give one file a channel, in the model's order"
        )
    turned, order = turn(volume, plan)
    if plan.conventions == "nnunet":
        labelled = None if found_first is None else order.apply(found_first) != 0
        return _prepare_for_nnunet(turned, plan, order, labelled=labelled, task=task)
    if plan.recipe is not None:
        return _prepare_for_monai(turned, plan, plan.recipe, order, task=task)
    shape = network_shape(turned, plan)

    def channels() -> Iterator[Tensor]:
        for channel, scheme in zip(turned.array, plan.normalization, strict=True):
            task.check()
            # Not all at once: blurring takes several times what it blurs.
            yield resample_image(normalize(channel, scheme)[None], shape, task=task)[0]

    depth, height, width = (
        step * before / after for step, before, after in zip(turned.spacing_mm, turned.shape, shape, strict=True)
    )
    return PreparedVolume(
        image=_stack(channels(), turned.channels),
        padding=_padding_of(turned.array, plan),
        spacing_mm=(depth, height, width),
        shape=turned.shape,
        order=order,
        box=(slice(None), slice(None), slice(None)),
        turned_shape=turned.shape,
    )


def _prepare_for_nnunet(
    turned: Volume,
    plan: Plan,
    order: AxisOrder,
    *,
    labelled: Array | None,
    task: Task,
) -> PreparedVolume:
    """Crop, normalise and resample as nnU-Net does, in this order."""
    mask, box = content_mask(turned.array)
    mask = mask if labelled is None else mask | labelled[box]
    spacing_mm = rule_spacing_mm(turned, plan)
    target_mm = _target_mm(spacing_mm, plan)
    shape = shape_at(mask.shape, spacing_mm, target_mm)
    _check_size(shape, turned)
    across = plane_axis(spacing_mm, target_mm)

    def channels() -> Iterator[Tensor]:
        for channel, scheme in zip(turned.array, plan.normalization, strict=True):
            task.check()
            normal = normalize(channel[box], scheme, mask=mask, smallest_deviation=SMALLEST_DEVIATION["nnunet"])
            yield torch.from_numpy(resample_spline(normal.numpy(), shape, across=across))

    return PreparedVolume(
        image=_stack(channels(), turned.channels),
        padding=torch.zeros(turned.channels),
        spacing_mm=target_mm,
        shape=(mask.shape[0], mask.shape[1], mask.shape[2]),
        order=order,
        box=box,
        turned_shape=turned.shape,
        across=plane_axis(target_mm, spacing_mm),
        content=mask,
    )


def rule_spacing_mm(turned: Volume, plan: Plan) -> tuple[float, float, float]:
    """Return the spacing (D, H, W) of a turned volume that nnU-Net's rules go by."""
    return spacing_for_rules(turned.spacing_mm, is_picture=plan.dimensions == 2 and turned.shape[0] == 1)


def _prepare_for_monai(
    turned: Volume, plan: Plan, recipe: MonaiRecipe, order: AxisOrder, *, task: Task
) -> PreparedVolume:
    """Follow the recipe of a plan."""
    spacing_mm = spacing_for(turned.spacing_mm, plan.spacing_mm)
    axes_mm = turned.affine_ras[:3, 2::-1]
    image, grid, box = follow(
        recipe,
        torch.from_numpy(np.array(turned.array, dtype=np.float32, order="C")),
        grid_of=lambda shape: grid_for(shape, axes_mm, spacing_mm),
        check_size=lambda shape: _check_size(shape, turned),
        stop_if_cancelled=task.check,
    )
    return PreparedVolume(
        image=image,
        padding=torch.full((len(image),), recipe.tiling.padding_value),
        spacing_mm=spacing_mm,
        shape=grid.shape,
        order=order,
        box=box,
        turned_shape=turned.shape,
        grid=grid,
    )


def foreseen_shape(volume: Volume, plan: Plan) -> tuple[int, int, int]:
    """Return about which sizes (D, H, W) `prepare` will give a volume, by its geometry alone.

    Cropping to the content, by the conventions that do it, may leave less; MONAI's grid may be one voxel larger.

    Args:
        volume: Of whose voxels nothing but their number is looked at.
        plan: How it will be prepared.

    Raises:
        InputError: A spacing that is out of all proportion.
    """
    turned, _ = turn(volume, plan)
    if plan.conventions == "nnunet":
        spacing_mm = rule_spacing_mm(turned, plan)
        shape = shape_at(turned.shape, spacing_mm, _target_mm(spacing_mm, plan))
        _check_size(shape, turned)
        return shape
    return network_shape(turned, plan)


def turn(volume: Volume, plan: Plan) -> tuple[Volume, AxisOrder]:
    """Return the volume with its axes as the plan wants them, and the order that undoes it."""
    oriented = AxisOrder() if plan.orientation == "stored" else order_for(volume.affine_ras, plan.orientation)
    order = oriented.then(plan.transpose)
    return (volume if order == AxisOrder() else reorder(volume, order)), order


def network_shape(turned: Volume, plan: Plan) -> tuple[int, int, int]:
    """Return the sizes (D, H, W) of a turned volume on the network's grid."""
    depth, height, width = turned.shape
    if plan.longest_side:
        scale = plan.longest_side / max(height, width)
        return depth, max(1, round(height * scale)), max(1, round(width * scale))
    target_mm = _target_mm(turned.spacing_mm, plan)
    depth, height, width = resampled_shape(turned.shape, turned.spacing_mm, target_mm)
    _check_size((depth, height, width), turned)
    return depth, height, width


def _target_mm(spacing_mm: Sequence[float], plan: Plan) -> tuple[float, float, float]:
    """Return the spacing (D, H, W) of the network's grid for an image of another one."""
    depth, height, width = (new or old for new, old in zip(plan.spacing_mm, spacing_mm, strict=True))
    return depth, height, width


def _check_size(shape: Sequence[int], turned: Volume) -> None:
    """Raise InputError where no machine could hold an image of sizes `shape` on the network's grid."""
    if prod(shape) > MOST_VOXELS:
        spacing = " x ".join(f"{step:.3g}" for step in turned.spacing_mm[::-1])
        raise InputError(
            f"an image of {turned.shape} voxels of {spacing} mm would take {' x '.join(map(str, shape))} voxels at the "
            "model's spacing: mend the spacing in its header"
        )


def normalize(
    channel: Array,
    scheme: Normalization,
    *,
    mask: Array | None = None,
    smallest_deviation: float = SMALLEST_DEVIATION["own"],
) -> Tensor:
    """Map stored values to float32 by one of the schemes of planning.Normalization.

    A channel of NaN, one that is missing, stays NaN.

    Args:
        channel: Stored values (D, H, W).
        scheme: How to scale them.
        mask: Voxels (D, H, W) with content, for schemes that use a mask; by default those that are not zero.
        smallest_deviation: "zscore" and "rescale" divide by no less.
    """
    image = torch.from_numpy(np.array(channel, dtype=np.float32, order="C"))
    if scheme.scheme == "ct":
        return image.clamp_(scheme.lower, scheme.upper).sub_(scheme.mean).div_(scheme.std)
    if scheme.scheme == "percentile" and not image.isnan().all():
        lower, upper = (float(value) for value in np.percentile(image.numpy(), (1, 99)))
        return image.sub_(lower).div_(max(upper - lower, 1e-6)).clamp_(0, 1)
    if scheme.scheme == "zscore":
        inside = image
        if scheme.use_mask:
            is_inside = torch.from_numpy(channel != 0 if mask is None else mask)
            inside = image[is_inside]
        deviation, mean = torch.std_mean(inside, correction=0)
        inside.sub_(mean).div_(deviation.clamp(min=smallest_deviation))
        return image.masked_scatter_(is_inside, inside) if scheme.use_mask else image
    if scheme.scheme == "rescale":
        image.sub_(image.min())
        return image.div_(image.max().clamp(min=smallest_deviation))
    return image.div_(255) if scheme.scheme == "rgb" else image


def _padding_of(array: Array, plan: Plan) -> Tensor:
    """Return (C,): 0 where the plan normalises, the smallest value (air) where values stay as they are stored."""
    pairs = zip(array, plan.normalization, strict=True)
    return torch.tensor([float(channel.min()) if scheme.scheme == "none" else 0.0 for channel, scheme in pairs])


def _stack(channels: Iterable[Tensor], count: int) -> Tensor:
    """Return (C, D, H, W) of so many channels (D, H, W) that are made one by one; no more than one exists twice."""
    if count == 1:
        (only,) = channels
        return only[None]
    image: Tensor | None = None
    for index, channel in enumerate(channels):
        image = channel.new_empty((count, *channel.shape)) if image is None else image
        image[index] = channel
        del channel  # before the next is made
    assert image is not None
    return image


def resample_image(image: Tensor, shape: tuple[int, int, int], *, task: Task = UNWATCHED) -> Tensor:
    """Resample (C, D, H, W) to sizes `shape` over the same extent, linearly, blurred first where it gets coarser.

    Raises:
        CancelledError: The task was cancelled.
    """
    if tuple(image.shape[1:]) == shape:
        return image
    for axis, size in enumerate(shape):
        ratio = size / image.shape[1 + axis]
        if ratio < ANTIALIAS_RATIO:
            image = _blur(image, 1 + axis, sigma=(1 / ratio - 1) / 2, task=task)
    task.check()
    return F.interpolate(image[None], size=shape, mode="trilinear", align_corners=False)[0]


def resample_labels(labels: Tensor, shape: tuple[int, int, int]) -> Tensor:
    """Resample a labelmap (D, H, W) to sizes `shape` over the same extent, taking the nearest voxel."""
    if tuple(labels.shape) == shape:
        return labels
    return F.interpolate(labels[None, None].double(), size=shape, mode="nearest-exact")[0, 0].to(labels.dtype)


def _blur(image: Tensor, axis: int, *, sigma: float, task: Task = UNWATCHED) -> Tensor:
    """Convolve one axis of (C, D, H, W) with a Gaussian cut at three sigma; edges are repeated."""
    size = image.shape[axis]
    radius = min(max(1, round(3 * sigma)), size)
    offsets = torch.arange(-radius, radius + 1, dtype=image.dtype)
    kernel = torch.exp(-0.5 * (offsets / sigma) ** 2)
    kernel /= kernel.sum()
    # Shifted sums: several times faster than a convolution of one channel, and a cancel need not wait for its end.
    result = image * kernel[radius]
    first, last = image.narrow(axis, 0, 1), image.narrow(axis, size - 1, 1)
    for offset in range(1, radius + 1):
        task.check()
        weight, inner = float(kernel[radius + offset]), size - offset
        result.narrow(axis, 0, inner).add_(image.narrow(axis, offset, inner), alpha=weight)
        result.narrow(axis, inner, offset).add_(last, alpha=weight)
        result.narrow(axis, offset, inner).add_(image.narrow(axis, 0, inner), alpha=weight)
        result.narrow(axis, 0, offset).add_(first, alpha=weight)
    return result
