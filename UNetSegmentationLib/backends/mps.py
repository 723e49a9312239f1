"""Apple's GPU in float16 mixed precision."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from .contract import BACKENDS, Backend, Computation, Forward, main_output


@BACKENDS.register("mps_float16", title="Apple GPU, float16 mixed precision")
class MpsFloat16(Backend):
    """Convolutions in float16, the rest as autocast decides."""

    precision: ClassVar[str] = "float16"
    weight_copies: ClassVar[int] = 0

    def obstacle(self, device: torch.device) -> str:
        """It needs Apple's GPU."""
        return "" if device.type == "mps" else "runs on Apple GPUs only"

    def build(self, computation: Computation) -> Forward:
        """Return the forward function under autocast."""

        def forward(batch: Tensor) -> Tensor:
            with torch.autocast("mps", dtype=torch.float16):
                return main_output(computation.network(batch))

        return forward
