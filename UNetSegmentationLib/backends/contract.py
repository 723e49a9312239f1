"""What a backend is: a way to compute the logits of a network, on some devices, for tiles of one shape."""

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
    """What a backend is built for.

    Attributes:
        network: In evaluation mode, float32, on `device`; a backend leaves it as it is.
        shape: Of a batch of tiles, (B, C, D, H, W) or (B, C, H, W).
        device: Where batches come from and logits go to.
        pulse: Called now and then while a computation lasts that no hook on a layer can end; it may raise.
        store: Where what is costly to make is kept between processes; None: nowhere.
        identity: Names network and weights in the store; empty where nothing is kept.
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
        precision: Of the arithmetic: "float32", "bfloat16" or "float16".
        is_recorded: What it does is recorded once for all tiles, so that a network must not decide by a tile's values.
        is_slow_to_build: Building takes so long (a minute) that only a deliberate benchmark may try it.
        weight_copies: How often the weights are in memory beside the network's own.
    """

    precision: ClassVar[str] = "float32"
    is_recorded: ClassVar[bool] = False
    is_slow_to_build: ClassVar[bool] = False
    weight_copies: ClassVar[int] = 1

    @abstractmethod
    def obstacle(self, device: torch.device) -> str:
        """Return why this machine cannot use the backend on a device; empty where it can."""

    @abstractmethod
    def build(self, computation: Computation) -> Forward:
        """Return what maps a batch of tiles to float32 logits of the same batch, (B, K, ...).

        Whatever goes wrong is raised; the caller does without the backend then.
        """


BACKENDS: Registry[type[Backend]] = Registry("backend", "UNetSegmentationLib.backends")


def main_output(outputs: Tensor | list[Tensor]) -> Tensor:
    """Return the finest logits of a network as float32."""
    logits = outputs if isinstance(outputs, Tensor) else outputs[0]
    return logits.float()


def autocast_forward(network: nn.Module, device: torch.device, dtype: torch.dtype) -> Forward:
    """Return the forward of a channels-last network in mixed precision."""

    def forward(batch: Tensor) -> Tensor:
        batch = batch.contiguous(memory_format=FORMATS[batch.ndim])
        with torch.autocast(device.type, dtype=dtype):
            return main_output(network(batch))

    return forward
