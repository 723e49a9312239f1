"""Memory: how much is free, how much a segmentation needs at its peak, and alternatives that need less."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from math import prod
from typing import Any

import torch

from ..backends.contract import BACKENDS, Backend
from ..backends.parts.timing import default_backend
from ..conventions.parts.image_grid import MOST_CLASSES_OF_A_BYTE, SLICES_AT_ONCE
from ..core.errors import InputError
from ..core.host_memory import host_memory
from ..core.messages import sentence
from ..models.description import ModelDescription
from ..networks.parts.cost import NetworkSummary, summarise_network

_FLOAT = 4
# Share of free memory to use; the rest is a margin for the estimate and for other programs.
_USABLE_SHARE = 0.85
_SMALLEST_TILE = 32
# More full-resolution feature maps of the first stage than any network here keeps at once.
_MAPS_ASSUMED, _WIDTH_ASSUMED = 64, 16


@dataclass(frozen=True, kw_only=True)
class Way:
    """How a network is applied to an image.

    Attributes:
        tile: Sizes (D, H, W).
        is_half: Sums of logits are in half precision.
        is_on_host: The sums and the image are in host memory, whichever device computes the tiles.
        device: Device that computes the tiles.
        backend: The only one of BACKENDS to use, or "" for any.
    """

    tile: tuple[int, int, int]
    is_half: bool = False
    is_on_host: bool = False
    device: str = "cpu"
    backend: str = ""

    def changes(self, first: Way) -> str:
        """Return the differences from the first way in words."""
        size = " x ".join(map(str, self.tile[::-1]))
        words = [
            sentence(f"in tiles of {size} voxels") if self.tile != first.tile else "",
            sentence("with sums in half precision") if self.is_half and not first.is_half else "",
            sentence("with sums in main memory") if self.is_on_host and not first.is_on_host else "",
            sentence(f"on the {self.device.upper()}") if self.device != first.device else "",
        ]
        said = ""
        for word in filter(None, words):
            said = sentence(f"{said} and {word}") if said else word
        return said


@dataclass(frozen=True, kw_only=True)
class Need:
    """Peak memory in bytes, not counting the model and the volume as read.

    Attributes:
        host: Host memory.
        device: Memory of the device that computes the tiles; 0 for the CPU.
    """

    host: int
    device: int = 0


@dataclass(frozen=True, kw_only=True)
class Workload:
    """The properties of a segmentation that affect memory.

    Attributes:
        source: Sizes (C, D, H, W) of the volume.
        shape: Sizes (D, H, W) of the network's grid.
        is_whole: All logits are kept, as for probability maps.
        is_mirrored: Tiles are averaged over mirrored copies.
    """

    source: tuple[int, int, int, int]
    shape: tuple[int, int, int]
    is_whole: bool = False
    is_mirrored: bool = False


def surely_fits(description: ModelDescription, workload: Workload, way: Way) -> bool:
    """Return whether a segmentation fits even if a tile needed several times the usual memory.

    This spares small images the exact estimate, which takes a second and a half the first time.

    Args:
        description: The model.
        workload: The segmentation.
        way: How the network is applied.
    """
    widths = description.network_config.get("features_per_stage") or [_WIDTH_ASSUMED]
    features = _MAPS_ASSUMED * max(_WIDTH_ASSUMED, int(widths[0])) * _FLOAT * prod(way.tile)
    return fits(need_of(description, workload, way, features=features), way.device)


def need_of(description: ModelDescription, workload: Workload, way: Way, *, features: int | None = None) -> Need:
    """Return the peak memory of a segmentation.

    Args:
        description: The model.
        workload: The segmentation.
        way: How the network is applied.
        features: Bytes for the forward pass of a tile; by default computed, including the backends' copies of weights.
    """
    classes = int(description.network_config["num_classes"])
    channels, *shape = workload.source
    padded = [max(size, tile) for size, tile in zip(workload.shape, way.tile, strict=True)]
    image = _FLOAT * channels * prod(padded)
    channel = _FLOAT * prod(shape)
    is_resampled = workload.shape != tuple(shape)
    schemes = description.plan.normalization
    # Channels are prepared one by one; blurring, sorting and masking need a second copy.
    is_twice = is_resampled or any(entry.scheme == "percentile" or entry.use_mask for entry in schemes)
    network_grid = _FLOAT * channels * prod(workload.shape) if is_resampled or channels > 1 else 0
    preparing = (2 if is_twice else 1) * channel + network_grid
    number = 2 if way.is_half else _FLOAT
    sums = (classes * number + _FLOAT) * way.tile[0] * padded[1] * padded[2]
    # Few slices of two classes are interpolated at a time.
    across = (3 * _FLOAT + 2) * min(SLICES_AT_ONCE, shape[0]) * shape[1] * shape[2]
    logits = _FLOAT * classes * prod(workload.shape) if workload.is_whole else 0
    label = 1 if classes <= MOST_CLASSES_OF_A_BYTE else 2
    labels = label * prod(shape)
    if features is None:
        network = description.network, json.dumps(description.network_config, sort_keys=True), way.tile
        copies = description.members * _weight_copies(way)
        features = tile_bytes(*network) + copies * weight_bytes(*network)
    tile = features
    # Sum over mirrored copies.
    tile += _FLOAT * classes * prod(way.tile) if workload.is_mirrored else 0
    segmenting = image + sums + across + logits + labels
    finishing = 3 * labels + (image + logits + 2 * (classes + 1) * prod(shape) if workload.is_whole else 0)
    if way.device == "cpu":
        return Need(host=max(preparing, segmenting + tile, finishing))
    if way.is_on_host:
        return Need(host=max(preparing, segmenting, finishing), device=tile)
    return Need(host=max(preparing, finishing), device=tile + image + sums + across + logits)


def tile_bytes(network: str, config: str, tile: tuple[int, int, int]) -> int:
    """Return the peak memory of a tile's forward pass, without the weights.

    Args:
        network: Registered name.
        config: Its configuration as JSON text.
        tile: Sizes (D, H, W).
    """
    summary = _summary(network, config, tile)
    # A 2D network processes the slices of a tile as a batch.
    batch = prod(tile[: 3 - len(summary.size)])
    return (summary.memory_bytes - _FLOAT * summary.weights) * batch


def weight_bytes(network: str, config: str, tile: tuple[int, int, int]) -> int:
    """Return the memory of a network's weights.

    Args:
        network: Registered name.
        config: Its configuration as JSON text.
        tile: An accepted tile size (D, H, W).
    """
    return _FLOAT * _summary(network, config, tile).weights


@lru_cache(maxsize=64)
def _summary(network: str, config: str, tile: tuple[int, int, int]) -> NetworkSummary:
    options: dict[str, Any] = json.loads(config)
    return summarise_network(network, options, tile[3 - int(options.get("dimensions", 3)) :])


def _weight_copies(way: Way) -> int:
    """Return how many extra copies of the weights the usable backends keep."""
    here = torch.device(way.device)
    if here.type != "cpu":
        # Only a GPU can tell which backends it supports.
        return Backend.weight_copies
    names = [way.backend] if way.backend else BACKENDS
    usable = (BACKENDS[name] for name in names if not BACKENDS[name]().obstacle(here))
    return max((backend.weight_copies for backend in usable), default=Backend.weight_copies)


def ways(first: Way, *, may_shrink: bool, alignment: Sequence[int]) -> Iterator[Way]:
    """Yield ways with decreasing memory needs: smaller tiles, lower precision, host memory, the CPU.

    Args:
        first: The preferred way.
        may_shrink: Tiles may be smaller than the model's; imported models keep theirs, so that results stay equal.
        alignment: The network pads its input to multiples of these sizes.
    """
    yield first
    way = first
    while may_shrink and (smaller := _halved(way.tile, alignment)) != way.tile:
        way = replace(way, tile=smaller)
        yield way
    way = replace(way, is_half=True)
    yield way
    if first.device != "cpu":
        if not way.is_on_host:
            way = replace(way, is_on_host=True)
            yield way
        way = replace(way, device="cpu", backend=default_backend(torch.device("cpu")))
        yield replace(way, tile=first.tile)
        yield way


def _halved(tile: tuple[int, int, int], alignment: Sequence[int]) -> tuple[int, int, int]:
    """Return the tile with its longest axis halved, or unchanged if it is as small as allowed."""
    steps = (*(1,) * (3 - len(alignment)), *alignment)
    longest = max(range(3), key=lambda axis: tile[axis])
    smaller = -(-tile[longest] // 2 // steps[longest]) * steps[longest]
    if smaller < max(_SMALLEST_TILE, 2 * steps[longest]) or smaller >= tile[longest]:
        return tile
    depth, height, width = (smaller if axis == longest else size for axis, size in enumerate(tile))
    return depth, height, width


def fits(need: Need, device: str) -> bool:
    """Return whether a need fits into the memory that is free now; true if that is unknown."""
    pairs = ((need.host, free_bytes("cpu")), (need.device, free_bytes(device) if need.device else None))
    return all(free is None or needed <= _USABLE_SHARE * free for needed, free in pairs)


def check_fits(need: Need, way: Way) -> None:
    """Raise InputError if a need exceeds the free memory, before the system kills the process."""
    for needed, device in ((need.host, "cpu"), (need.device, way.device)):
        free = free_bytes(device) if needed else None
        if free is not None and needed > free:
            raise InputError(
                f"the image needs about {_in_words(needed)} of memory, but only {_in_words(free)} is free: "
                "segment a region, or close other programs"
            )


def _in_words(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"


def free_bytes(device: str) -> int | None:
    """Return the free memory of a device in bytes, or None if unknown.

    Args:
        device: "cpu", "cuda", "cuda:1" or "mps".
    """
    if device.startswith("cuda"):
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + kept
    # On Apple silicon the GPU shares the host memory.
    return host_memory().available
