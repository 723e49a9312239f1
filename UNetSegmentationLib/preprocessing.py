"""From a volume in scanner geometry to the network's input, and the geometry of the way back."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from .errors import InputError
from .geometry import Array, AxisOrder, Volume, resampled_shape, to_canonical
from .planning import Normalization, Plan

# Below this ratio of sizes an image is blurred before it is sampled more coarsely, so that detail does not alias.
ANTIALIAS_RATIO = 0.75


@dataclass(frozen=True)
class PreparedVolume:
    """A volume on the network's grid.

    Attributes:
        image: Normalised voxels (C, D, H, W), float32; a missing channel is NaN.
        padding: Value (C,) that stands for what lies outside the image.
        spacing_mm: Spacing (D, H, W) of the network's grid.
        shape: Sizes (D, H, W) after turning the axes, before resampling.
        order: How the axes were turned.
    """

    image: Tensor
    padding: Tensor
    spacing_mm: tuple[float, float, float]
    shape: tuple[int, int, int]
    order: AxisOrder


def prepare(volume: Volume, plan: Plan) -> PreparedVolume:
    """Turn the axes, normalise and resample as the plan says.

    Raises:
        InputError: Another number of channels than the plan's.
    """
    if volume.channels != len(plan.normalization):
        raise InputError(
            f"the image has {volume.channels} channel(s), the model needs {len(plan.normalization)}: "
            "give one file a channel, in the model's order"
        )
    turned, order = turn(volume, plan)
    image = torch.stack(
        [normalize(channel, scheme) for channel, scheme in zip(turned.array, plan.normalization, strict=True)]
    )
    shape = network_shape(turned, plan)
    depth, height, width = (
        step * before / after for step, before, after in zip(turned.spacing_mm, turned.shape, shape, strict=True)
    )
    return PreparedVolume(
        image=resample_image(image, shape),
        padding=_padding_of(image, plan),
        spacing_mm=(depth, height, width),
        shape=turned.shape,
        order=order,
    )


def turn(volume: Volume, plan: Plan) -> tuple[Volume, AxisOrder]:
    """Return the volume with its axes as the plan wants them, and the order that undoes it."""
    return to_canonical(volume) if plan.orientation == "RAS" else (volume, AxisOrder())


def network_shape(turned: Volume, plan: Plan) -> tuple[int, int, int]:
    """Return the sizes (D, H, W) of a turned volume on the network's grid."""
    depth, height, width = turned.shape
    if plan.longest_side:
        scale = plan.longest_side / max(height, width)
        return depth, max(1, round(height * scale)), max(1, round(width * scale))
    target = tuple(new or old for new, old in zip(plan.spacing_mm, turned.spacing_mm, strict=True))
    depth, height, width = resampled_shape(turned.shape, turned.spacing_mm, target)
    return depth, height, width


def normalize(channel: Array, scheme: Normalization) -> Tensor:
    """Map stored values (D, H, W) to float32 by one of the schemes of planning.Normalization.

    A channel of NaN, one that is missing, stays NaN.
    """
    image = torch.from_numpy(np.ascontiguousarray(channel, dtype=np.float32).copy())
    if scheme.scheme == "ct":
        return image.clamp_(scheme.lower, scheme.upper).sub_(scheme.mean).div_(scheme.std)
    if scheme.scheme == "percentile" and not image.isnan().all():
        lower, upper = (float(value) for value in np.percentile(image.numpy(), (1, 99)))
        return image.sub_(lower).div_(max(upper - lower, 1e-6)).clamp_(0, 1)
    if scheme.scheme == "zscore":
        deviation, mean = torch.std_mean(image, correction=0)
        return image.sub_(mean).div_(deviation.clamp(min=1e-6))
    return image


def _padding_of(image: Tensor, plan: Plan) -> Tensor:
    """Return (C,): 0 where the plan normalises, the smallest value (air) where values stay as they are stored."""
    is_raw = torch.tensor([scheme.scheme == "none" for scheme in plan.normalization])
    return torch.where(is_raw, image.flatten(1).amin(dim=1), torch.zeros(len(image)))


def resample_image(image: Tensor, shape: tuple[int, int, int]) -> Tensor:
    """Resample (C, D, H, W) to sizes `shape` over the same extent, linearly, blurred first where it gets coarser."""
    if tuple(image.shape[1:]) == shape:
        return image
    for axis, size in enumerate(shape):
        ratio = size / image.shape[1 + axis]
        if ratio < ANTIALIAS_RATIO:
            image = _blur(image, 1 + axis, sigma=(1 / ratio - 1) / 2)
    return F.interpolate(image[None], size=shape, mode="trilinear", align_corners=False)[0]


def resample_labels(labels: Tensor, shape: tuple[int, int, int]) -> Tensor:
    """Resample a labelmap (D, H, W) to sizes `shape` over the same extent, taking the nearest voxel."""
    if tuple(labels.shape) == shape:
        return labels
    return F.interpolate(labels[None, None].double(), size=shape, mode="nearest-exact")[0, 0].to(labels.dtype)


def _blur(image: Tensor, axis: int, *, sigma: float) -> Tensor:
    """Convolve one axis of (C, D, H, W) with a Gaussian cut at three sigma; edges are repeated."""
    radius = min(max(1, round(3 * sigma)), image.shape[axis])
    offsets = torch.arange(-radius, radius + 1, dtype=image.dtype)
    kernel = torch.exp(-0.5 * (offsets / sigma) ** 2)
    kernel /= kernel.sum()
    lines = image.movedim(axis, -1)
    padded = F.pad(lines.reshape(-1, 1, lines.shape[-1]), (radius, radius), mode="replicate")
    return F.conv1d(padded, kernel[None, None]).reshape(lines.shape).movedim(-1, axis)
