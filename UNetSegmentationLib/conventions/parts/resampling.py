"""Resampling of images and labelmaps to other sizes over the same extent."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from ...core.task import UNWATCHED, Task

# Below this ratio of sizes an image is blurred before downsampling, to avoid aliasing.
ANTIALIAS_RATIO = 0.75


def resample_image(image: Tensor, shape: tuple[int, int, int], *, task: Task = UNWATCHED) -> Tensor:
    """Resample (C, D, H, W) linearly to size `shape` over the same extent, blurring first along axes that get coarser.

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
    """Resample a labelmap (D, H, W) to size `shape` over the same extent by nearest neighbour."""
    if tuple(labels.shape) == shape:
        return labels
    return F.interpolate(labels[None, None].double(), size=shape, mode="nearest-exact")[0, 0].to(labels.dtype)


def _blur(image: Tensor, axis: int, *, sigma: float, task: Task = UNWATCHED) -> Tensor:
    """Convolve one axis of (C, D, H, W) with a Gaussian truncated at three sigma; edges are repeated."""
    size = image.shape[axis]
    radius = min(max(1, round(3 * sigma)), size)
    offsets = torch.arange(-radius, radius + 1, dtype=image.dtype)
    kernel = torch.exp(-0.5 * (offsets / sigma) ** 2)
    kernel /= kernel.sum()
    # Shifted sums: several times faster than a convolution of one channel, and cancellation is possible in between.
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
