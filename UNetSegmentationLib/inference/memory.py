"""Memory: how much is free, how much a segmentation takes at its peak, and what takes less where that is too much."""

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
# Of what is free, the rest is for what the estimate may miss and for other programs.
_USABLE_SHARE = 0.85
_SMALLEST_TILE = 32
# As many full-resolution feature maps of the first stage as no network here holds at once.
_MAPS_ASSUMED, _WIDTH_ASSUMED = 64, 16


@dataclass(frozen=True, kw_only=True)
class Way:
    """How a network is applied to an image.

    Attributes:
        tile: Sizes (D, H, W).
        is_half: Sums of logits are in half precision.
        is_on_host: They, and the image, lie in the computer's memory, whatever computes the tiles.
        device: What computes the tiles.
        backend: The only one of BACKENDS that may come to work; "" where any may.
    """

    tile: tuple[int, int, int]
    is_half: bool = False
    is_on_host: bool = False
    device: str = "cpu"
    backend: str = ""

    def changes(self, first: Way) -> str:
        """Return in words what is other than in the first way."""
        size = " x ".join(map(str, self.tile[::-1]))
        words = [
            sentence(f"in tiles of {size} voxels") if self.tile != first.tile else "",
            sentence("with sums in half precision") if self.is_half and not first.is_half else "",
            sentence("with sums in the computer's memory") if self.is_on_host and not first.is_on_host else "",
            sentence(f"on the {self.device.upper()}") if self.device != first.device else "",
        ]
        said = ""
        for word in filter(None, words):
            said = sentence(f"{said} and {word}") if said else word
        return said


@dataclass(frozen=True, kw_only=True)
class Need:
    """Peak memory in bytes beyond the model and the volume as it was read.

    Attributes:
        host: In the computer.
        device: On the device that computes the tiles; 0 where that is the computer.
    """

    host: int
    device: int = 0


@dataclass(frozen=True, kw_only=True)
class Workload:
    """What is to be segmented, as far as memory goes.

    Attributes:
        source: Sizes (C, D, H, W) of the volume.
        shape: Sizes (D, H, W) of the network's grid.
        is_whole: All logits are kept, as for probabilities.
        is_mirrored: Tiles are averaged over mirrored copies.
    """

    source: tuple[int, int, int, int]
    shape: tuple[int, int, int]
    is_whole: bool = False
    is_mirrored: bool = False


def surely_fits(description: ModelDescription, workload: Workload, way: Way) -> bool:
    """Tell whether a segmentation fits even if a tile took several times what tiles take.

    Small images are not to wait for the exact estimate, whose first one takes a second and a half.

    Args:
        description: Of the model.
        workload: What is to be segmented.
        way: How.
    """
    widths = description.network_config.get("features_per_stage") or [_WIDTH_ASSUMED]
    features = _MAPS_ASSUMED * max(_WIDTH_ASSUMED, int(widths[0])) * _FLOAT * prod(way.tile)
    return fits(need_of(description, workload, way, features=features), way.device)


def need_of(description: ModelDescription, workload: Workload, way: Way, *, features: int | None = None) -> Need:
    """Return what a segmentation takes at its peak.

    Args:
        description: Of the model.
        workload: What is to be segmented.
        way: How.
        features: Bytes that forwarding a tile takes; by default they are counted, with what backends hold of weights.
    """
    classes = int(description.network_config["num_classes"])
    channels, *shape = workload.source
    padded = [max(size, tile) for size, tile in zip(workload.shape, way.tile, strict=True)]
    image = _FLOAT * channels * prod(padded)
    channel = _FLOAT * prod(shape)
    is_resampled = workload.shape != tuple(shape)
    schemes = description.plan.normalization
    # Channels are made one by one; what is blurred, sorted or masked is there once more.
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
    # The sum over mirrored copies.
    tile += _FLOAT * classes * prod(way.tile) if workload.is_mirrored else 0
    segmenting = image + sums + across + logits + labels
    finishing = 3 * labels + (image + logits + 2 * (classes + 1) * prod(shape) if workload.is_whole else 0)
    if way.device == "cpu":
        return Need(host=max(preparing, segmenting + tile, finishing))
    if way.is_on_host:
        return Need(host=max(preparing, segmenting, finishing), device=tile)
    return Need(host=max(preparing, finishing), device=tile + image + sums + across + logits)


def tile_bytes(network: str, config: str, tile: tuple[int, int, int]) -> int:
    """Return what forwarding one tile takes at its peak, the weights not counted.

    Args:
        network: Registered name.
        config: Its configuration as JSON text.
        tile: Sizes (D, H, W).
    """
    summary = _summary(network, config, tile)
    # A 2D network takes the slices of a tile as its batch.
    batch = prod(tile[: 3 - len(summary.size)])
    return (summary.memory_bytes - _FLOAT * summary.weights) * batch


def weight_bytes(network: str, config: str, tile: tuple[int, int, int]) -> int:
    """Return what the weights of a network take.

    Args:
        network: Registered name.
        config: Its configuration as JSON text.
        tile: Sizes (D, H, W) that it accepts.
    """
    return _FLOAT * _summary(network, config, tile).weights


@lru_cache(maxsize=64)
def _summary(network: str, config: str, tile: tuple[int, int, int]) -> NetworkSummary:
    options: dict[str, Any] = json.loads(config)
    return summarise_network(network, options, tile[3 - int(options.get("dimensions", 3)) :])


def _weight_copies(way: Way) -> int:
    """Return how often the backends that may come to work hold the weights beside the network."""
    here = torch.device(way.device)
    if here.type != "cpu":
        # Which ones a GPU can use is told by the GPU alone.
        return Backend.weight_copies
    names = [way.backend] if way.backend else BACKENDS
    usable = (BACKENDS[name] for name in names if not BACKENDS[name]().obstacle(here))
    return max((backend.weight_copies for backend in usable), default=Backend.weight_copies)


def ways(first: Way, *, may_shrink: bool, alignment: Sequence[int]) -> Iterator[Way]:
    """Yield ways that need less and less: smaller tiles, lower precision, host memory, the CPU.

    Args:
        first: The way that is wished for.
        may_shrink: Tiles may be smaller than the model's; imported models keep theirs, and with them their results.
        alignment: Sizes that the network pads to multiples of, along its axes.
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
    """Return the tile with its longest axis halved; the same where that is as small as tiles get."""
    steps = (*(1,) * (3 - len(alignment)), *alignment)
    longest = max(range(3), key=lambda axis: tile[axis])
    smaller = -(-tile[longest] // 2 // steps[longest]) * steps[longest]
    if smaller < max(_SMALLEST_TILE, 2 * steps[longest]) or smaller >= tile[longest]:
        return tile
    depth, height, width = (smaller if axis == longest else size for axis, size in enumerate(tile))
    return depth, height, width


def fits(need: Need, device: str) -> bool:
    """Tell whether a need fits what is free now; where that is unknown, it does."""
    pairs = ((need.host, free_bytes("cpu")), (need.device, free_bytes(device) if need.device else None))
    return all(free is None or needed <= _USABLE_SHARE * free for needed, free in pairs)


def check_fits(need: Need, way: Way) -> None:
    """Raise InputError where a need is beyond what is free, so that no system has to end the process."""
    for needed, device in ((need.host, "cpu"), (need.device, way.device)):
        free = free_bytes(device) if needed else None
        if free is not None and needed > free:
            raise InputError(
                f"the image needs about {_in_words(needed)} of memory, {_in_words(free)} are free: "
                "take a region of it, or close other programs"
            )


def _in_words(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"


def free_bytes(device: str) -> int | None:
    """Return the memory in bytes that a device has to give; None where it does not tell.

    Args:
        device: "cpu", "cuda", "cuda:1" or "mps".
    """
    if device.startswith("cuda"):
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + kept
    # On Apple's processors the GPU has no memory of its own.
    return host_memory().available
