"""Prediction of volumes larger than a patch: overlapping tiles blended by a Gaussian (Isensee 2021, nnU-Net)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import combinations, product
from math import ceil

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from . import monai_conventions
from .errors import CancelledError, InputError
from .geometry import Array
from .monai_conventions import Positions, linear_along
from .monai_recipe import Tiling

OVERLAP = 0.5  # of neighbouring tiles, as in nnU-Net
GAUSSIAN_SIGMA_RATIO = 1 / 8  # of the patch, as in nnU-Net
# float32 blending: a corner weight of 1e-11 would be lost against its neighbours' sum. nnU-Net keeps it.
SMALLEST_WEIGHTS = {"own": 1e-5, "nnunet": 0.0}


def tile_starts(size: int, patch: int, overlap: float) -> list[int]:
    """Return the first voxel of each tile along one axis: evenly spread, covering all, overlapping at least so much.

    Args:
        size: Voxels along the axis, at least `patch`.
        patch: Voxels of a tile.
        overlap: Share of a tile that neighbours have in common, 0 to below 1.

    Raises:
        InputError: The overlap is out of range or the patch larger than the axis.
    """
    if not 0 <= overlap < 1:
        raise InputError(f"overlap is {overlap}: give 0 to below 1")
    if patch > size:
        raise InputError(f"a patch of {patch} does not fit into {size} voxels: pad the image first")
    if size == patch:
        return [0]
    tiles = ceil((size - patch) / max(1.0, patch * (1 - overlap))) + 1
    return [round(index * (size - patch) / (tiles - 1)) for index in range(tiles)]


def gaussian_weights(patch_size: tuple[int, int, int], *, conventions: str = "own") -> Tensor:
    """Return the blending weights (D, H, W) of a tile: 1 at the centre, positive everywhere.

    Args:
        patch_size: Sizes (D, H, W).
        conventions: One of planning.CONVENTIONS; "nnunet" centres even sizes on the voxel after the middle.
    """
    axes = []
    for size in patch_size:
        centre = (size - 1) / 2 if conventions == "own" else size // 2
        offsets = torch.arange(size, dtype=torch.float64) - centre
        axes.append(torch.exp(-0.5 * (offsets / (size * GAUSSIAN_SIGMA_RATIO)) ** 2))
    weights = torch.einsum("d,h,w->dhw", *axes)
    weights /= weights.max()
    return weights.clamp(min=SMALLEST_WEIGHTS[conventions]).float()


def predict_logits(  # noqa: PLR0913
    network: nn.Module,
    image: Tensor,
    *,
    patch_size: tuple[int, int, int],
    dimensions: int,
    padding: Tensor | None = None,
    overlap: float = OVERLAP,
    mirror_axes: tuple[int, ...] = (),
    conventions: str = "own",
    tiling: Tiling | None = None,
    on_progress: Callable[[float], None] | None = None,
    is_cancelled: Callable[[], bool] | None = None,
) -> Tensor:
    """Map a prepared image (C, D, H, W) to logits (K, D, H, W) on its grid, on the device of `image`.

    Args:
        network: In evaluation mode; takes (B, C, D, H, W), or (B, C, H, W) where dimensions is 2.
        image: Any size; smaller than the patch is padded evenly on both sides.
        patch_size: Tile (D, H, W).
        dimensions: 2 or 3.
        padding: Values (C,) to pad with; zeros by default.
        overlap: Share of a tile that neighbours have in common.
        mirror_axes: Average over mirrored copies along all combinations of these axes of (D, H, W).
        conventions: How tiles are weighted, one of planning.CONVENTIONS.
        tiling: How the image is divided by MONAI's conventions.
        on_progress: Called with the finished share, 0 to 1, after each tile.
        is_cancelled: Asked before each tile and each layer.

    Raises:
        CancelledError: `is_cancelled` said so.
    """
    patch_size = patch_size if tiling is None else tiling.patch_for(_sizes(image), patch_size)
    padded, inner = _pad_to(image, patch_size, padding, mode="constant" if tiling is None else tiling.padding)
    tiles, weights = _tiles(_sizes(padded), patch_size, overlap, conventions=conventions, tiling=tiling)
    weights = weights.to(image.device)
    total: Tensor | None = None
    weight_sum = torch.zeros(padded.shape[1:], device=image.device)
    with torch.inference_mode(), _cancellable(network, is_cancelled):
        for done, start in enumerate(tiles):
            window = tuple(slice(first, first + size) for first, size in zip(start, patch_size, strict=True))
            logits = _tile_logits(network, padded[(slice(None), *window)], dimensions, mirror_axes)
            if total is None:
                total = torch.zeros((len(logits), *padded.shape[1:]), device=image.device)
            total[(slice(None), *window)].addcmul_(logits.float(), weights)
            weight_sum[window] += weights
            if on_progress:
                on_progress((done + 1) / len(tiles))
        if total is None:
            raise InputError("the image holds no voxels: give another")
        return total.div_(weight_sum)[(slice(None), *inner)]


def _tiles(
    size: tuple[int, int, int],
    patch_size: tuple[int, int, int],
    overlap: float,
    *,
    conventions: str,
    tiling: Tiling | None,
) -> tuple[list[tuple[int, ...]], Tensor]:
    """Return the first voxel (D, H, W) of each tile, and the blending weights of all."""
    starts_of = tile_starts if tiling is None else monai_conventions.tile_starts
    starts = [starts_of(extent, patch, overlap) for extent, patch in zip(size, patch_size, strict=True)]
    if tiling is None:
        return list(product(*starts)), gaussian_weights(patch_size, conventions=conventions)
    return list(product(*starts)), monai_conventions.tile_weights(
        patch_size, kind=tiling.weights, sigma_ratio=tiling.sigma_ratio
    )


def labelmap_on_grid(
    logits: Tensor,
    shape: tuple[int, int, int],
    *,
    output: str = "labels",
    positions: Positions | None = None,
    slices_at_once: int = 16,
    is_cancelled: Callable[[], bool] | None = None,
) -> Array:
    """Return the class of every voxel, from logits (K, d, h, w), on a grid of sizes `shape` over the same extent.

    Logits are interpolated linearly, a few slices and one class at a time, so that the full-resolution logits of all
    classes never exist together.

    Args:
        logits: Of the network.
        shape: Sizes (D, H, W).
        output: One of model_folder.OUTPUTS. "labels": the class of the highest logit; "regions": logit n > 0 makes a
            voxel class n + 1, the later over the earlier, and 0 where none is.
        positions: Where the grid's voxels lie along each axis, in voxels of the logits; None: over the same extent.
        slices_at_once: How many slices are interpolated together.
        is_cancelled: Asked before each class.

    Raises:
        CancelledError: `is_cancelled` said so.
    """
    choose = _last_positive if output == "regions" else _highest
    labelmap = np.empty(shape, dtype=np.uint8 if len(logits) + (output == "regions") <= 256 else np.uint16)
    for first in range(0, shape[0], slices_at_once):
        rows = range(first, min(first + slices_at_once, shape[0]))
        channels = (_interpolated_slices(channel, shape, rows, positions) for channel in logits)
        labelmap[rows.start : rows.stop] = choose(_watched(channels, is_cancelled)).cpu().numpy()
    return labelmap


def _watched(channels: Iterator[Tensor], is_cancelled: Callable[[], bool] | None) -> Iterator[Tensor]:
    for channel in channels:
        if is_cancelled and is_cancelled():
            raise CancelledError("cancelled")
        yield channel


def _highest(channels: Iterator[Tensor]) -> Tensor:
    best = next(channels)
    label = torch.zeros_like(best, dtype=torch.int16)
    for index, candidate in enumerate(channels, start=1):
        label[candidate > best] = index
        best = torch.maximum(best, candidate)
    return label


def _last_positive(channels: Iterator[Tensor]) -> Tensor:
    label: Tensor | None = None
    for index, candidate in enumerate(channels, start=1):
        label = torch.zeros_like(candidate, dtype=torch.int16) if label is None else label
        label[candidate > 0] = index
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
        output: One of model_folder.OUTPUTS; regions have independent probabilities, and the background what the most
            probable of them leaves.
        positions: Where the grid's voxels lie along each axis, in voxels of the logits; None: over the same extent.
        is_activated: The logits are probabilities already, 0 where there is nothing but background.
    """
    probabilities = np.empty((len(logits) + (output == "regions"), *shape), dtype=np.float16)
    for row in range(shape[0]):
        slices = torch.stack(
            [_interpolated_slices(channel, shape, range(row, row + 1), positions) for channel in logits]
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


def _interpolated_slices(
    channel: Tensor, shape: tuple[int, int, int], rows: range, positions: Positions | None
) -> Tensor:
    """Return slices `rows` of (d, h, w) brought to (D, H, W), linearly, with aligned extents or at positions."""
    if positions is not None:
        slices = linear_along(channel, 0, positions[0][rows.start : rows.stop])
        return linear_along(linear_along(slices, 1, positions[1]), 2, positions[2])
    if tuple(channel.shape) == shape:
        return channel[rows.start : rows.stop]
    depth = channel.shape[0]
    position = (torch.tensor(rows, device=channel.device) + 0.5) * (depth / shape[0]) - 0.5
    position = position.clamp(0, depth - 1)
    lower = position.floor().long()
    upper = (lower + 1).clamp(max=depth - 1)
    slices = torch.lerp(channel[lower], channel[upper], (position - lower)[:, None, None].to(channel.dtype))
    if channel.shape[1:] == shape[1:]:
        return slices
    return F.interpolate(slices[:, None], size=shape[1:], mode="bilinear", align_corners=False)[:, 0]


def _sizes(image: Tensor) -> tuple[int, int, int]:
    depth, height, width = image.shape[1:]
    return depth, height, width


def _pad_to(
    image: Tensor, patch_size: tuple[int, int, int], padding: Tensor | None, *, mode: str = "constant"
) -> tuple[Tensor, tuple[slice, ...]]:
    """Pad (C, D, H, W) to at least the patch; return also where the image lies in the result."""
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


def _tile_logits(network: nn.Module, tile: Tensor, dimensions: int, mirror_axes: tuple[int, ...]) -> Tensor:
    """Return the logits (K, d, h, w) of one tile (C, d, h, w), averaged over its mirrored copies."""
    total: Tensor | None = None
    copies = list(_mirrorings(mirror_axes))
    for axes in copies:
        flips = [1 + axis for axis in axes]
        batch = tile.flip(flips) if flips else tile
        logits = _forward(network, batch, dimensions)
        logits = logits.flip(flips) if flips else logits
        total = logits if total is None else total + logits
    assert total is not None
    return total / len(copies)


def _mirrorings(axes: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    for count in range(len(axes) + 1):
        yield from combinations(axes, count)


def _forward(network: nn.Module, tile: Tensor, dimensions: int) -> Tensor:
    """Run the network on (C, d, h, w); a 2D network takes the slices as its batch."""
    logits: Tensor
    if dimensions == 3:
        logits = network(tile[None])[0]
    else:
        logits = network(tile.movedim(1, 0)).movedim(0, 1)
    return logits


class _cancellable:
    """While entered, every layer of the network first asks whether the job was cancelled."""

    def __init__(self, network: nn.Module, is_cancelled: Callable[[], bool] | None) -> None:
        self._network = network
        self._is_cancelled = is_cancelled
        self._handles: list[torch.utils.hooks.RemovableHandle] = []

    def __enter__(self) -> None:
        if self._is_cancelled is None:
            return
        leaves = [module for module in self._network.modules() if not list(module.children())]
        self._handles = [module.register_forward_pre_hook(self._stop_if_cancelled) for module in leaves]

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()

    def _stop_if_cancelled(self, *_: object) -> None:
        if self._is_cancelled is not None and self._is_cancelled():
            raise CancelledError("cancelled")
