"""torch in bfloat16, channels-last, on CPUs with bfloat16 instructions."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import nn

from .contract import BACKENDS, Backend, Computation, Forward, autocast_forward
from .parts.devices import computes_in_bfloat16
from .parts.kernel_rounding import with_rounded_kernel
from .parts.network_copy import ask_at_every_layer, channels_last_copy
from .parts.outer_layers import InFloat32, outer_layers


@BACKENDS.register("bfloat16", title="torch, bfloat16, channels last")
class BFloat16(Backend):
    """Convolutions in bfloat16 except the first and last ones, norm statistics in float32."""

    precision: ClassVar[str] = "bfloat16"

    def obstacle(self, device: torch.device) -> str:
        """A CPU without these instructions would emulate them, an order of magnitude slower than float32."""
        if device.type != "cpu":
            return "runs on CPUs only"
        return "" if computes_in_bfloat16(device) else "this CPU has no bfloat16 instructions"

    def build(self, computation: Computation) -> Forward:
        """Return the forward function of a copy."""
        ends = outer_layers(computation.network, computation.shape)

        def replace(layer: nn.Module) -> nn.Module | None:
            if layer in ends:
                return InFloat32(channels_last_copy(layer), computation.device.type)
            rounded = with_rounded_kernel(layer)
            return None if rounded is None else channels_last_copy(rounded)

        copy = channels_last_copy(computation.network, replace=replace)
        return autocast_forward(ask_at_every_layer(copy, computation.pulse), computation.device, torch.bfloat16)
