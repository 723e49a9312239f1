"""Sliding-window prediction: overlapping tiles blended with Gaussian weights (Isensee 2021, nnU-Net)."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations, pairwise, product, repeat
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..conventions import Tiling
from ..core.errors import InputError
from ..core.task import UNWATCHED, Task

_SMALLEST_HALF_WEIGHT = 2**-10
# The float32 numbers in a cache line.
_FEW_CLASSES = 16


def logit_slabs(
    network: nn.Module,
    image: Tensor,
    tiling: Tiling,
    *,
    padding: Tensor | None = None,
    dtype: torch.dtype = torch.float32,
    device: torch.device | None = None,
    task: Task = UNWATCHED,
) -> Iterator[Tensor]:
    """Map a prepared image (C, D, H, W) to slabs of logits (K, rows, H, W) that together cover all D slices, in order.

    Only slices that unfinished tiles still reach are in memory. A slab may be overwritten when the next is requested.

    Args:
        network: In evaluation mode; accepts (B, C, D, H, W), or (B, C, H, W) if the tiling has 2 dimensions.
        image: Any size; if smaller than a tile, it is padded evenly on both sides.
        tiling: Tiling of the image.
        padding: Values (C,) to pad with; zeros by default.
        dtype: Type of the sums of logits; float16 halves their memory and changes logits by up to a thousandth.
        device: Device of the network; by default that of the image.
        task: Receives progress after each tile; polled for cancellation before each tile and each layer.

    Raises:
        CancelledError: The task was cancelled.
        InputError: The image has no voxels.
    """
    patch = tiling.patch_for(_sizes(image))
    padded, inner = _pad_to(image, patch, padding, mode=tiling.padding)
    size = _sizes(padded)
    rows, heights, widths = (tiling.starts(extent, length) for extent, length in zip(size, patch, strict=True))
    columns = list(product(heights, widths))
    if not rows or not columns:
        raise InputError("the image has no voxels: use another image")
    blending = _Blending(tiling.weights(patch).to(image.device), size, dtype)
    with _Tiles(network, tiling, task) as tiles:
        for row, (first, following) in enumerate(pairwise([*rows, size[0]])):
            for column, corner in enumerate(columns):
                place = (slice(corner[0], corner[0] + patch[1]), slice(corner[1], corner[1] + patch[2]))
                tile = padded[:, first : first + patch[0], place[0], place[1]]
                blending.add(tiles.logits(tile.to(device or image.device)).to(image.device), place)
                task.progress((row * len(columns) + column + 1) / (len(rows) * len(columns)))
            shown = slice(max(0, inner[0].start - first), min(following, inner[0].stop) - first)
            if shown.start < shown.stop:
                yield blending.mean(following - first)[(slice(None), shown, *inner[1:])]
            blending.drop(following - first)


def predict_logits(network: nn.Module, image: Tensor, tiling: Tiling, **options: Any) -> Tensor:
    """Map a prepared image (C, D, H, W) to logits (K, D, H, W) on its grid, on the device of `image`.

    Args:
        network: In evaluation mode.
        image: Any size.
        tiling: Tiling of the image.
        options: See logit_slabs, which needs less memory.
    """
    logits: Tensor | None = None
    done = 0
    for slab in logit_slabs(network, image, tiling, **options):
        if logits is None:
            logits = torch.empty((len(slab), *image.shape[1:]), device=image.device)
        logits[:, done : done + slab.shape[1]] = slab
        done += slab.shape[1]
    assert logits is not None
    return logits


class _Blending:
    """Weighted sums of tiles, from the first unfinished slice on.

    Args:
        weights: Blending weights of a tile (D, H, W).
        size: Size of the padded image (D, H, W).
        dtype: Type of the sums.
    """

    def __init__(self, weights: Tensor, size: tuple[int, int, int], dtype: torch.dtype) -> None:
        # Weights too small for float16 would be lost in the sum of weights.
        self._weights = weights if dtype == torch.float32 else weights.clamp(min=_SMALLEST_HALF_WEIGHT).to(dtype)
        self._shape = (len(weights), *size[1:])
        self._dtype = dtype
        self._weight_sum = torch.zeros(self._shape, device=weights.device)
        self._total: Tensor | None = None

    def add(self, logits: Tensor, place: tuple[slice, slice]) -> None:
        """Add a tile (K, d, h, w) at its place (H, W)."""
        if self._total is None:
            self._total = torch.zeros((len(logits), *self._shape), dtype=self._dtype, device=self._weights.device)
        # Part by part: a product of all would need the memory of the tile's logits again. With many classes in
        # channels-last order, the numbers of a class are in separate cache lines: 2.5 times slower than by slices.
        axis = 1 if len(logits) > _FEW_CLASSES else 0
        weights = self._weights.unbind() if axis else repeat(self._weights, len(logits))
        totals = self._total[:, :, place[0], place[1]].unbind(axis)
        for total, part, weight in zip(totals, logits.unbind(axis), weights, strict=True):
            total.addcmul_(part.to(self._dtype).contiguous(), weight)
        self._weight_sum[:, place[0], place[1]] += self._weights

    def mean(self, rows: int) -> Tensor:
        """Return the blended logits (K, rows, H, W) of the first slices; called once per slice."""
        assert self._total is not None
        blended = self._total[:, :rows]
        for channel in blended:
            # Class by class: half precision is divided in float32, which would need twice the memory of all sums.
            channel.div_(self._weight_sum[:rows])
        return blended

    def drop(self, rows: int) -> None:
        """Drop the first slices."""
        assert self._total is not None
        for sums in (self._weight_sum, *self._total):
            kept = len(sums) - rows
            # Slice by slice, since source and target overlap; cheaper than a copy of all.
            for row in range(kept):
                sums[row] = sums[row + rows]
            sums[kept:] = 0


class _Tiles:
    """Runs the network on tiles, and on constant tiles only once.

    Args:
        network: In evaluation mode.
        tiling: Provides the dimensions and mirroring.
        task: Polled before each layer while the context is active.
    """

    def __init__(self, network: nn.Module, tiling: Tiling, task: Task) -> None:
        self._network = network
        self._tiling = tiling
        self._hooks = _cancellable(network, task)
        self._task = task
        self._of_constant: tuple[Tensor, Tensor] | None = None

    def __enter__(self) -> Self:
        self._hooks.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._hooks.__exit__()

    def logits(self, tile: Tensor) -> Tensor:
        """Return the logits (K, d, h, w) of a tile (C, d, h, w).

        Tiles of clipped air or padding are constant and have the same logits, which are cached.
        """
        self._task.check()
        corner = tile[:, :1, :1, :1]
        is_constant = bool(((tile == corner) | (tile.isnan() & corner.isnan())).all())
        if is_constant and self._of_constant is not None:
            value, logits = self._of_constant
            if torch.equal(value.nan_to_num(nan=torch.inf), corner.nan_to_num(nan=torch.inf)):
                return logits
        with torch.inference_mode():
            logits = _tile_logits(self._network, tile, self._tiling)
        if is_constant:
            self._of_constant = corner.clone(), logits
        return logits


def _sizes(image: Tensor) -> tuple[int, int, int]:
    depth, height, width = image.shape[1:]
    return depth, height, width


def _pad_to(
    image: Tensor, patch_size: tuple[int, int, int], padding: Tensor | None, *, mode: str = "constant"
) -> tuple[Tensor, tuple[slice, ...]]:
    """Pad (C, D, H, W) to at least the patch size; also return the position of the image in the result."""
    missing = [max(0, patch - size) for size, patch in zip(image.shape[1:], patch_size, strict=True)]
    before = [amount // 2 for amount in missing]
    inner = tuple(slice(first, first + size) for first, size in zip(before, image.shape[1:], strict=True))
    if not any(missing):
        return image, inner
    if mode == "replicate":
        ends = [(first, extra - first) for first, extra in zip(before, missing, strict=True)]
        return F.pad(image[None], [side for pair in reversed(ends) for side in pair], mode="replicate")[0], inner
    padded = image.new_zeros((len(image), *(s + extra for s, extra in zip(image.shape[1:], missing, strict=True))))
    if padding is not None:
        padded += padding.to(image.device)[:, None, None, None]
    padded[(slice(None), *inner)] = image
    return padded, inner


def _tile_logits(network: nn.Module, tile: Tensor, tiling: Tiling) -> Tensor:
    """Return the logits (K, d, h, w) of one tile (C, d, h, w), averaged over its mirrored copies."""
    total: Tensor | None = None
    copies = list(_mirrorings(tiling.mirror_axes))
    for axes in copies:
        flips = [1 + axis for axis in axes]
        batch = tile.flip(flips) if flips else tile
        logits = _forward(network, batch, tiling.dimensions)
        logits = logits.flip(flips) if flips else logits
        total = logits if total is None else total + logits
    assert total is not None
    return total / len(copies)


def _mirrorings(axes: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    for count in range(len(axes) + 1):
        yield from combinations(axes, count)


def _forward(network: nn.Module, tile: Tensor, dimensions: int) -> Tensor:
    """Run the network on (C, d, h, w); a 2D network processes the slices as a batch."""
    logits: Tensor
    if dimensions == 3:
        logits = network(tile[None])[0]
    else:
        logits = network(tile.movedim(1, 0)).movedim(0, 1)
    return logits


class _cancellable:
    """While the context is active, every layer of the network first checks for cancellation."""

    def __init__(self, network: nn.Module, task: Task) -> None:
        self._network = network
        self._task = task
        self._handles: list[torch.utils.hooks.RemovableHandle] = []

    def __enter__(self) -> None:
        if not self._task.can_be_cancelled:
            return
        leaves = [module for module in self._network.modules() if not list(module.children())]
        self._handles = [module.register_forward_pre_hook(self._check) for module in leaves]

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()

    def _check(self, *_: object) -> None:
        self._task.check()
