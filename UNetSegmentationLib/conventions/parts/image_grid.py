"""Logits of the network's grid on the image's: labels and probabilities, a few slices and one class at a time."""

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
    """Return the class of every voxel on a grid of sizes `shape`, from logits that come slab by slab.

    Logits are interpolated linearly, a few slices and one class at a time, as soon as the slabs allow it, so that
    neither all logits nor those of the full resolution ever exist together.

    Args:
        slabs: Logits (K, rows, h, w), which together are all `depth` slices in their order.
        depth: Slices of the network's grid.
        shape: Sizes (D, H, W).
        output: One of models.description.OUTPUTS. "labels": the class of the highest logit; "regions": logit n > 0
            makes a voxel class n + 1, later ones over earlier ones, and 0 if there is none.
        positions: Where the grid's voxels lie along each axis, in voxels of the logits; None: over the same extent.
        across: Axis of (D, H, W) along which the nearest plane is taken instead; None: none.
        slices_at_once: How many slices are interpolated together.
        task: Asked before each class whether to go on.

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
    """The slices of logits that are known and still needed: few of earlier slabs, and those of the last one."""

    def __init__(self) -> None:
        self._parts: list[tuple[int, Tensor]] = []  # each with its first slice
        self.end = 0

    @property
    def classes(self) -> int:
        """How many classes have logits."""
        return len(self._parts[-1][1])

    def add(self, slab: Tensor) -> None:
        """Take the next slices (K, rows, h, w)."""
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
        """Let go of the slices before `row`, and of the slab itself, which may be written over."""
        kept = [
            (max(first, row), slab[:, max(row - first, 0) :].clone())
            for first, slab in self._parts
            if first + slab.shape[1] > row
        ]
        self._parts = kept or [(self.end, self._parts[-1][1][:, :0])]


def labelmap_on_grid(logits: Tensor, shape: tuple[int, int, int], **options: Any) -> Array:
    """Return the class of every voxel on a grid of sizes `shape`, from all logits (K, d, h, w).

    Args:
        logits: Of the network.
        shape: Sizes (D, H, W).
        options: See labelmap_of_slabs.
    """
    return labelmap_of_slabs([logits], logits.shape[1], shape, **options)


@dataclass(frozen=True)
class _Rows:
    """Between which slices of the network's grid each slice of the image lies.

    Attributes:
        lower: The slice before, for each.
        upper: The slice after.
        weight: Of the slice after.
    """

    lower: Tensor
    upper: Tensor
    weight: Tensor

    @classmethod
    def over(cls, depth: int, target: int, *, positions: Positions | None, is_nearest: bool) -> Self:
        """Return the rows of a grid of `target` slices over the extent of `depth`, or at positions."""
        if positions is not None:
            at = positions[0].double().clamp(0, depth - 1)
        elif is_nearest:
            at = torch.from_numpy(nearest_planes(depth, target)).double()
        else:
            at = ((torch.arange(target) + 0.5) * (depth / target) - 0.5).clamp(0, depth - 1)
        lower = at.floor().long()
        # Not every device knows float64.
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
        """Return how many slices of the image the first `known` slices give."""
        # Of a slice that lies on another one exactly, the one after is not needed.
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
    """Return probabilities, float16, background first, on a grid of sizes `shape` over the same extent.

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
            # Towards what the network did not see all classes fade alike, and the labelmap goes by their ratio.
            slices[0] += slices.sum(dim=0) == 0
            slices /= slices.sum(dim=0)
        else:
            slices = slices.softmax(dim=0)
        probabilities[:, row : row + 1] = slices.cpu().numpy()
    return probabilities


def _interpolated(
    channel: Tensor, shape: tuple[int, int, int], part: range, rows: _Rows, positions: Positions | None
) -> Tensor:
    """Return slices `part` on (D, H, W) from the slices of logits (rows, h, w) that they need.

    Along H and W they are interpolated linearly, with aligned extents or at positions.
    """
    slices = rows.between(channel, part)
    if positions is not None:
        return linear_along(linear_along(slices, 1, positions[1]), 2, positions[2])
    if channel.shape[1:] == shape[1:]:
        return slices
    return F.interpolate(slices[:, None], size=shape[1:], mode="bilinear", align_corners=False)[:, 0]
