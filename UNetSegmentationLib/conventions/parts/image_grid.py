"""From logits on the network's grid to labels and probabilities on the image's, in small parts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ...core.task import UNWATCHED, Task
from ...image.geometry import Array
from .monai_math import Positions, linear_along
from .nnunet_math import nearest_planes, take_nearest_planes

SLICES_AT_ONCE = 16
MOST_CLASSES_OF_A_BYTE = 256


def labelmap_of_slabs(
    slabs: Iterable[Tensor],
    depth: int,
    shape: tuple[int, int, int],
    *,
    output: str = "labels",
    positions: Positions | None = None,
    across: int | None = None,
    slices_at_once: int = SLICES_AT_ONCE,
    task: Task = UNWATCHED,
) -> Array:
    """Return the class of every voxel on a grid of size `shape`, from slabs of logits.

    Logits are interpolated linearly, a few slices and one class at a time, as soon as the slabs allow it, so that
    the full logits are never in memory, neither on the network's grid nor on the image's.

    Args:
        slabs: Logits (K, rows, h, w), which together make up all `depth` slices, in order.
        depth: Slices of the network's grid.
        shape: Sizes (D, H, W).
        output: One of models.description.OUTPUTS. "labels": the class of the highest logit; "regions": logit n > 0
            makes a voxel class n + 1, later ones over earlier ones, and 0 if there is none.
        positions: Where the grid's voxels lie along each axis, in voxels of the logits; None: over the same extent.
        across: Axis of (D, H, W) along which the nearest plane is taken instead; None: none.
        slices_at_once: How many slices are interpolated together.
        task: Polled for cancellation before each class.

    Raises:
        CancelledError: The task was cancelled.
    """
    choose = _last_positive if output == "regions" else _highest
    rows = _Rows.over(depth, shape[0], positions=positions, is_nearest=across == 0)
    labelmap: Array | None = None
    window = _Window()
    done = 0
    for slab in slabs:
        window.add(slab if across in (None, 0) else take_nearest_planes(slab, across, shape[across]))
        if labelmap is None:
            classes = window.classes + (output == "regions")
            labelmap = np.empty(shape, dtype=np.uint8 if classes <= MOST_CLASSES_OF_A_BYTE else np.uint16)
        ready = rows.ready(window.end)
        for begin in range(done, ready, slices_at_once):
            part = range(begin, min(begin + slices_at_once, ready))
            channels = (
                _interpolated(window.channel(number, rows.span(part)), shape, part, rows, positions)
                for number in range(window.classes)
            )
            labelmap[part.start : part.stop] = choose(_watched(channels, task)).cpu().numpy()
        done = ready
        window.keep_from(rows.span(range(done, shape[0])).start)
    assert labelmap is not None
    return labelmap


class _Window:
    """The slices of logits that are available and still needed: a few of earlier slabs, and those of the last one."""

    def __init__(self) -> None:
        self._parts: list[tuple[int, Tensor]] = []  # (first slice, slab)
        self.end = 0

    @property
    def classes(self) -> int:
        """Number of classes."""
        return len(self._parts[-1][1])

    def add(self, slab: Tensor) -> None:
        """Add the next slices (K, rows, h, w)."""
        self._parts.append((self.end, slab))
        self.end += slab.shape[1]

    def channel(self, number: int, span: range) -> Tensor:
        """Return slices `span` of one class (rows, h, w)."""
        pieces = [
            slab[number, max(span.start - first, 0) : span.stop - first]
            for first, slab in self._parts
            if first < span.stop and span.start < first + slab.shape[1]
        ]
        return pieces[0] if len(pieces) == 1 else torch.cat(pieces)

    def keep_from(self, row: int) -> None:
        """Drop the slices before `row`, and copy the rest, since the slab may be overwritten."""
        kept = [
            (max(first, row), slab[:, max(row - first, 0) :].clone())
            for first, slab in self._parts
            if first + slab.shape[1] > row
        ]
        self._parts = kept or [(self.end, self._parts[-1][1][:, :0])]


def labelmap_on_grid(logits: Tensor, shape: tuple[int, int, int], **options: Any) -> Array:
    """Return the class of every voxel on a grid of size `shape`, from all logits (K, d, h, w).

    Args:
        logits: Output of the network.
        shape: Sizes (D, H, W).
        options: See labelmap_of_slabs.
    """
    return labelmap_of_slabs([logits], logits.shape[1], shape, **options)


@dataclass(frozen=True)
class _Rows:
    """The slices of the network's grid between which each slice of the image lies.

    Attributes:
        lower: The slice before each slice of the image.
        upper: The slice after it.
        weight: Weight of the slice after it.
    """

    lower: Tensor
    upper: Tensor
    weight: Tensor

    @classmethod
    def over(cls, depth: int, target: int, *, positions: Positions | None, is_nearest: bool) -> Self:
        """Return the rows for `target` slices with the same extent as `depth` slices, or at positions."""
        if positions is not None:
            at = positions[0].double().clamp(0, depth - 1)
        elif is_nearest:
            at = torch.from_numpy(nearest_planes(depth, target)).double()
        else:
            at = ((torch.arange(target) + 0.5) * (depth / target) - 0.5).clamp(0, depth - 1)
        lower = at.floor().long()
        # Not every device supports float64.
        return cls(lower=lower, upper=(lower + 1).clamp(max=depth - 1), weight=(at - lower).float())

    def span(self, part: range) -> range:
        """Return the slices of the network's grid that the image's slices `part` need."""
        if not part:
            return range(2**62, 2**62)
        lower, upper, weight = self._of(part)
        last = torch.where(weight > 0, upper, lower)
        return range(int(lower.min()), int(last.max()) + 1)

    def between(self, channel: Tensor, part: range) -> Tensor:
        """Return the image's slices `part` from the logits (rows, h, w) of `span(part)`."""
        lower, upper, weight = (entry.to(channel.device) for entry in self._of(part))
        first = lower.min()
        lower, upper = lower - first, (upper - first).clamp(max=len(channel) - 1)
        if not weight.any():
            is_run = len(channel) == len(part) and bool((lower.diff() == 1).all())
            return channel if is_run else channel[lower]
        return torch.lerp(channel[lower], channel[upper], weight[:, None, None].to(channel.dtype))

    def _of(self, part: range) -> tuple[Tensor, Tensor, Tensor]:
        places = slice(part.start, part.stop)
        return self.lower[places], self.upper[places], self.weight[places]

    def ready(self, known: int) -> int:
        """Return how many slices of the image can be computed from the first `known` slices."""
        # A slice that coincides with the lower one does not need the upper one.
        last = torch.where(self.weight > 0, self.upper, self.lower)
        return int((last < known).cumprod(0).sum())


def _watched(channels: Iterator[Tensor], task: Task) -> Iterator[Tensor]:
    for channel in channels:
        task.check()
        yield channel


def _highest(channels: Iterator[Tensor]) -> Tensor:
    best = next(channels).clone()
    label = torch.zeros_like(best, dtype=torch.int16)
    for index, candidate in enumerate(channels, start=1):
        label.masked_fill_(candidate > best, index)
        torch.maximum(best, candidate, out=best)
    return label


def _last_positive(channels: Iterator[Tensor]) -> Tensor:
    label: Tensor | None = None
    for index, candidate in enumerate(channels, start=1):
        label = torch.zeros_like(candidate, dtype=torch.int16) if label is None else label
        label.masked_fill_(candidate > 0, index)
    assert label is not None
    return label


def probabilities_on_grid(
    logits: Tensor,
    shape: tuple[int, int, int],
    *,
    output: str = "labels",
    positions: Positions | None = None,
    is_activated: bool = False,
) -> Array:
    """Return probabilities, float16, background first, on a grid of size `shape` with the same extent.

    Args:
        logits: (K, d, h, w).
        shape: Sizes (D, H, W).
        output: One of models.description.OUTPUTS; regions have independent probabilities, and the background has what
            the most probable of them leaves.
        positions: Where the grid's voxels lie along each axis, in voxels of the logits; None: over the same extent.
        is_activated: The logits are probabilities already, 0 where there is nothing but background.
    """
    probabilities = np.empty((len(logits) + (output == "regions"), *shape), dtype=np.float16)
    rows = _Rows.over(logits.shape[1], shape[0], positions=positions, is_nearest=False)
    for row in range(shape[0]):
        part = range(row, row + 1)
        span = rows.span(part)
        slices = torch.stack(
            [_interpolated(channel[span.start : span.stop], shape, part, rows, positions) for channel in logits]
        )
        if output == "regions":
            slices = slices if is_activated else slices.sigmoid()
            slices = torch.cat([1 - slices.amax(dim=0, keepdim=True), slices])
        elif is_activated:
            # At the border of the network's input all classes fade alike, and the labelmap depends on their ratio.
            slices[0] += slices.sum(dim=0) == 0
            slices /= slices.sum(dim=0)
        else:
            slices = slices.softmax(dim=0)
        probabilities[:, row : row + 1] = slices.cpu().numpy()
    return probabilities


def _interpolated(
    channel: Tensor, shape: tuple[int, int, int], part: range, rows: _Rows, positions: Positions | None
) -> Tensor:
    """Return slices `part` of (D, H, W), interpolated from the logits (rows, h, w) that they need.

    Along H and W they are interpolated linearly, with aligned extents or at positions.
    """
    slices = rows.between(channel, part)
    if positions is not None:
        return linear_along(linear_along(slices, 1, positions[1]), 2, positions[2])
    if channel.shape[1:] == shape[1:]:
        return slices
    return F.interpolate(slices[:, None], size=shape[1:], mode="bilinear", align_corners=False)[:, 0]
