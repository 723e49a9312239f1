"""Cost of networks: weights, floating-point operations and memory, counted without computing anything."""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from ...core.errors import InputError
from ..contract import NETWORKS, build_network


@dataclass(frozen=True, kw_only=True)
class NetworkSummary:
    """Cost of a network for one image.

    Attributes:
        name: Registered name.
        title: Display name.
        size: Input (D, H, W) or (H, W), one image.
        weights: Number of trainable parameters.
        flops: Floating-point operations of the forward pass, a multiply-add counting two;
            convolutions, matrix products and attention only.
        memory_bytes: Peak memory of the forward pass in float32: weights, input and the live tensors at the peak,
            without the scratch space of the convolutions.
    """

    name: str
    title: str
    size: tuple[int, ...]
    weights: int
    flops: int
    memory_bytes: int


def summarise_network(name: str, config: Mapping[str, Any], size: Sequence[int]) -> NetworkSummary:
    """Return the cost of the network `name` for one image of `size`.

    Args:
        name: Registered name.
        config: Its configuration, as JSON.
        size: (D, H, W) for 3D, (H, W) for 2D.

    Raises:
        InputError: Unknown name or option, or a size that does not fit the configuration's dimensions.
    """
    with torch.device("meta"):
        network = build_network(name, dict(config)).eval()
    if len(size) != network.config.dimensions or min(size) < 1:
        raise InputError(f"size {tuple(size)} does not fit: must be {network.config.dimensions} sizes of at least 1")
    counter, memory = FlopCounterMode(display=False), _PeakMemory()
    with torch.no_grad(), counter, memory:
        network(torch.empty((1, network.config.in_channels, *size), device="meta"))
    held = sum(entry.numel() * entry.element_size() for entry in (*network.parameters(), *network.buffers()))
    return NetworkSummary(
        name=name,
        title=NETWORKS.title(name),
        size=tuple(size),
        weights=sum(parameter.numel() for parameter in network.parameters()),
        flops=counter.get_total_flops(),
        memory_bytes=held + memory.peak_bytes,
    )


@dataclass(frozen=True, kw_only=True)
class TrainingCost:
    """Cost of a training step for one patch.

    Attributes:
        weights: Number of trainable parameters.
        activation_bytes: Memory that the forward pass keeps for the backward pass, in float32.
        flops: Floating-point operations of the forward and the backward pass, counted as two forward passes.
    """

    weights: int
    activation_bytes: int
    flops: int

    def memory_bytes(self, batch_size: int) -> int:
        """Return the estimated peak memory of a step in float32: weights, gradients, Adam's two moments, the moving
        average, activations, and half as much again of these for gradients and scratch space.
        """  # noqa: D205
        return 5 * 4 * self.weights + round(1.5 * batch_size * self.activation_bytes)


def training_cost(name: str, config: Mapping[str, Any], size: Sequence[int]) -> TrainingCost:
    """Return the training cost of the network `name` for one patch of `size`; nothing is computed.

    Args:
        name: Registered name.
        config: Its configuration, as JSON.
        size: (D, H, W) for 3D, (H, W) for 2D.

    Raises:
        InputError: Unknown name or option.
    """
    # Evaluation mode: dropout needs random numbers, which meta tensors cannot draw.
    with torch.device("meta"):
        network = build_network(name, dict(config)).eval()
    seen = {entry.untyped_storage()._cdata for entry in (*network.parameters(), *network.buffers())}
    kept: list[torch.UntypedStorage] = []

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in seen:
            seen.add(storage._cdata)
            kept.append(storage)  # a freed storage could pass its id to the next one
        return tensor

    counter = FlopCounterMode(display=False)
    with counter, torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        network(torch.empty((1, network.config.in_channels, *size), device="meta"))
    return TrainingCost(
        weights=sum(parameter.numel() for parameter in network.parameters()),
        activation_bytes=sum(storage.nbytes() for storage in kept),
        flops=3 * counter.get_total_flops(),
    )


def format_summaries(summaries: Sequence[NetworkSummary]) -> str:
    """Return a Markdown table with a row for every summary."""
    rows = ["| network | name | input | weights (M) | GFLOP | memory (MB) |", "|---|---|---|---:|---:|---:|"]
    for entry in summaries:
        size = " x ".join(str(extent) for extent in entry.size)
        rows.append(
            f"| {entry.title} | `{entry.name}` | {size} | {entry.weights / 1e6:.2f} | {entry.flops / 1e9:.1f} "
            f"| {entry.memory_bytes / 1e6:.0f} |"
        )
    return "\n".join(rows)


class _PeakMemory(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Sums the storages that operations allocate while they are referenced."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.live_bytes = self.peak_bytes = 0
        self._seen: weakref.WeakSet[torch.UntypedStorage] = weakref.WeakSet()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self._count(leaf.untyped_storage())
        return result

    def _count(self, storage: torch.UntypedStorage) -> None:
        if storage in self._seen:
            return
        self._seen.add(storage)
        size = storage.nbytes()
        self.live_bytes += size
        self.peak_bytes = max(self.peak_bytes, self.live_bytes)
        weakref.finalize(storage, self._release, size)

    def _release(self, size: int) -> None:
        self.live_bytes -= size
