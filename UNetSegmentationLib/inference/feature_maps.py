"""A network's skip connections and attention gates for a volume, as volumes on the same grid."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..core.errors import InputError
from ..core.task import UNWATCHED, Task
from ..image.geometry import Volume
from ..networks import SegmentationNetwork
from ..networks.parts.blocks import LINEAR_MODES, Tap
from .predictor import Predictor
from .sliding_window import predict_logits


@dataclass(frozen=True)
class FeatureMap:
    """A feature map that can be read out.

    Attributes:
        name: Such as "skip 0" or "gate 1"; a second one of the same kind and level is "skip 0 (2)".
        kind: "skip" or "gate".
        level: Encoder stage with the same grid, 0 is the finest.
        stride: Size of its voxels in voxels of the network's input, along each axis.
    """

    name: str
    kind: str
    level: int
    stride: tuple[int, ...]


def list_feature_maps(network: SegmentationNetwork) -> tuple[FeatureMap, ...]:
    """Return the feature maps of a network, finest first."""
    return tuple(entry for entry, _ in _taps(network))


class FeatureReader(nn.Module):
    """Returns feature maps instead of logits, so that sliding-window prediction can be used to read them out.

    Args:
        network: In evaluation mode.
        names: Which maps, by name; empty: all.
        channel: Channel of each map, or None for the root mean square over all channels, which shows the magnitude of a
            skip. A gate has one channel, its weight from 0 to 1.

    Raises:
        InputError: The network has no such map.
    """

    def __init__(self, network: SegmentationNetwork, *, names: Sequence[str] = (), channel: int | None = None) -> None:
        super().__init__()
        self.network = network
        self.channel = channel
        taps = _taps(network)
        unknown = sorted(set(names) - {entry.name for entry, _ in taps})
        if unknown or not taps:
            known = ", ".join(entry.name for entry, _ in taps) or "none"
            raise InputError(f"the network has no feature map {', '.join(unknown) or 'at all'}: it has {known}")
        self.maps = tuple(entry for entry, _ in taps if not names or entry.name in names)
        self._wanted = [tap for entry, tap in taps if entry in self.maps]

    def forward(self, image: Tensor) -> Tensor:
        """Map image (B, C, ...) to the chosen maps (B, M, ...), upsampled linearly to the image's size."""
        seen: dict[int, Tensor] = {}
        with ExitStack() as stack:
            for index, tap in enumerate(self._wanted):
                handle = tap.register_forward_hook(
                    lambda _, __, output, index=index: seen.__setitem__(index, output.detach())
                )
                stack.callback(handle.remove)
            self.network(image)
        return torch.cat(
            [self._on_grid(seen[index], entry, image.shape[2:]) for index, entry in enumerate(self.maps)], dim=1
        )

    def _on_grid(self, features: Tensor, entry: FeatureMap, size: torch.Size) -> Tensor:
        """Return one channel (B, 1, *size) of features (B, C, ...)."""
        features = features.float()
        if entry.kind == "gate":
            shown = features[:, :1]
        elif self.channel is None:
            shown = features.square().mean(dim=1, keepdim=True).sqrt()
        elif 0 <= self.channel < features.shape[1]:
            shown = features[:, self.channel, None]
        else:
            raise InputError(f"{entry.name} has channels 0 to {features.shape[1] - 1}, not {self.channel}")
        # Small images were padded at the end: upsample the whole grid, then crop.
        padded = [extent * step for extent, step in zip(shown.shape[2:], entry.stride, strict=True)]
        if list(shown.shape[2:]) != padded:
            shown = F.interpolate(shown, size=padded, mode=LINEAR_MODES[len(padded)], align_corners=False)
        return shown[(slice(None), slice(None), *(slice(0, extent) for extent in size))]


def view_features(
    predictor: Predictor,
    volume: Volume,
    *,
    names: Sequence[str] = (),
    channel: int | None = None,
    task: Task = UNWATCHED,
) -> dict[str, Volume]:
    """Return feature maps of a model for a volume, each a single-channel volume with the geometry of the input.

    Args:
        predictor: A model in memory.
        volume: A volume with the model's channels.
        names: Names of the maps, as in `list_feature_maps`; empty: all.
        channel: Channel of each skip, or None for the root mean square over all.
        task: Receives progress; polled for cancellation.

    Raises:
        InputError: The volume does not fit the model, or the model has no such map.
        CancelledError: The task was cancelled.
    """
    reader = FeatureReader(predictor.network, names=names, channel=channel)
    clean, _ = predictor.check(volume)
    prepared = predictor.prepare(clean, task=task)
    maps = predict_logits(
        reader,
        prepared.image.to(predictor.device),
        predictor.conventions.tiling(prepared.grid_shape, predictor.network.alignment),
        padding=prepared.padding,
        task=task,
    )
    volumes = {}
    for entry, values in zip(reader.maps, maps, strict=True):
        array = prepared.restore(prepared.values_on_image(values[None])[0].cpu().numpy())
        volumes[entry.name] = Volume(array[None], volume.affine_ras)
    return volumes


def _taps(network: SegmentationNetwork) -> list[tuple[FeatureMap, Tap]]:
    """Return the network's taps with their descriptions, finest first."""
    taps = sorted((module for module in network.modules() if isinstance(module, Tap)), key=lambda tap: tap.level)
    counts: dict[str, int] = {}
    described = []
    for tap in taps:
        name = f"{tap.kind} {tap.level}"
        counts[name] = counts.get(name, 0) + 1
        strides = network.config.strides[: tap.level + 1]
        stride = tuple(int(np.prod([entry[axis] for entry in strides])) for axis in range(network.config.dimensions))
        name = name if counts[name] == 1 else f"{name} ({counts[name]})"
        described.append((FeatureMap(name, tap.kind, tap.level, stride), tap))
    return described
