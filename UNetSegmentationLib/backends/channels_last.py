"""torch in float32 with channels-last features, whose convolutions are faster on most CPUs and GPUs."""

from __future__ import annotations

import torch
from torch import Tensor

from ..networks.parts.memory_format import FORMATS
from .contract import BACKENDS, Backend, Computation, Forward, main_output
from .parts.network_copy import ask_at_every_layer, channels_last_copy


@BACKENDS.register("channels_last", title="torch, float32, channels last")
class ChannelsLast(Backend):
    """The network with channels-last features; the instance norm preserves the layout."""

    def obstacle(self, device: torch.device) -> str:
        """Apple's GPU has no channels-last 3D convolutions."""
        return "channels-last features are slower on MPS" if device.type == "mps" else ""

    def build(self, computation: Computation) -> Forward:
        """Return the forward function of a copy."""
        copy = ask_at_every_layer(channels_last_copy(computation.network), computation.pulse)

        def forward(batch: Tensor) -> Tensor:
            return main_output(copy(batch.contiguous(memory_format=FORMATS[batch.ndim])))

        return forward
