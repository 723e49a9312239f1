"""The contract of a backend, which computes the logits of a network on some devices for tiles of one shape."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from ..core.registry import Registry
from ..networks.parts.memory_format import FORMATS
from .parts.store import Store

Forward = Callable[[Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class Computation:
    """The computation that a backend is built for.

    Attributes:
        network: In evaluation mode, float32, on `device`; a backend does not change it.
        shape: Of a batch of tiles, (B, C, D, H, W) or (B, C, H, W).
        device: Device of batches and logits.
        pulse: Called regularly during computations that no layer hook can interrupt; it may raise.
        store: Cache of costly results between processes, or None.
        identity: Identifies network and weights in the store; empty if nothing is cached.
    """

    network: nn.Module
    shape: tuple[int, ...]
    device: torch.device
    pulse: Callable[[], None] = lambda: None
    store: Store | None = None
    identity: str = ""


class Backend(ABC):
    """A way to compute logits.

    Attributes:
        precision: Precision of the arithmetic: "float32", "bfloat16" or "float16".
        is_recorded: Its operations are recorded once, so the network's control flow must not depend on values.
        is_slow_to_build: Building takes so long (a minute) that only an explicit benchmark tries it.
        weight_copies: Copies of the weights in memory besides the network's.
    """

    precision: ClassVar[str] = "float32"
    is_recorded: ClassVar[bool] = False
    is_slow_to_build: ClassVar[bool] = False
    weight_copies: ClassVar[int] = 1

    @abstractmethod
    def obstacle(self, device: torch.device) -> str:
        """Return why this machine cannot use the backend on a device; empty if it can."""

    @abstractmethod
    def build(self, computation: Computation) -> Forward:
        """Return the function that maps a batch of tiles to its float32 logits (B, K, ...).

        Any failure is raised; the caller then skips the backend.
        """


BACKENDS: Registry[type[Backend]] = Registry("backend", "UNetSegmentationLib.backends")


def main_output(outputs: Tensor | list[Tensor]) -> Tensor:
    """Return the finest logits of a network as float32."""
    logits = outputs if isinstance(outputs, Tensor) else outputs[0]
    return logits.float()


def autocast_forward(network: nn.Module, device: torch.device, dtype: torch.dtype) -> Forward:
    """Return the forward function of a channels-last network in mixed precision."""

    def forward(batch: Tensor) -> Tensor:
        batch = batch.contiguous(memory_format=FORMATS[batch.ndim])
        with torch.autocast(device.type, dtype=dtype):
            return main_output(network(batch))

    return forward
