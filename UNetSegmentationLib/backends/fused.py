"""torch in float32 on the CPU with fused norm and activation and oneDNN convolutions (see fused_layers)."""

from __future__ import annotations

import torch

from .contract import BACKENDS, Backend, Computation, Forward, main_output
from .parts.fused_layers import fused_copy
from .parts.network_copy import ask_at_every_layer


@BACKENDS.register("fused", title="torch, float32, fused layers")
class Fused(Backend):
    """Only rearranges the weights, so it is ready at once."""

    def obstacle(self, device: torch.device) -> str:
        """It needs a CPU and a torch with oneDNN."""
        if device.type != "cpu":
            return "runs on CPUs only"
        has_onednn = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        return "" if has_onednn and hasattr(torch, "mkldnn_convolution") else "this build of torch lacks oneDNN"

    def build(self, computation: Computation) -> Forward:
        """Return the forward function of a copy."""
        copy = ask_at_every_layer(fused_copy(computation.network), computation.pulse)
        return lambda batch: main_output(copy(batch))
