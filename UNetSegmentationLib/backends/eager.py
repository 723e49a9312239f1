"""Plain torch: float32, channels-first; the reference for every other backend."""

from __future__ import annotations

from typing import ClassVar

import torch

from .contract import BACKENDS, Backend, Computation, Forward, main_output


@BACKENDS.register("eager", title="torch, float32")
class Eager(Backend):
    """The network itself."""

    weight_copies: ClassVar[int] = 0

    def obstacle(self, device: torch.device) -> str:  # noqa: ARG002
        """It runs everywhere."""
        return ""

    def build(self, computation: Computation) -> Forward:
        """Return the network's forward."""
        return lambda batch: main_output(computation.network(batch))
