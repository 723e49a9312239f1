"""The first and the last layers of a network, which half precision costs most and float32 costs little."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from .twins import twin_of

_WEIGHTED = (nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.ConvTranspose3d, nn.Linear)


def end_layers(network: nn.Module, shape: tuple[int, ...]) -> set[nn.Module]:
    """Return the layers before the second convolution, in their order at work, and those after the last but one.

    They are found without a computation. Where a network decides by values there is none to decide by: none then.

    Args:
        network: In evaluation mode; left as it is.
        shape: Of a batch of tiles.
    """
    twin = twin_of(network, lay_out=lambda tensor: tensor.to("meta"))
    originals = dict(zip(twin.modules(), network.modules(), strict=True))
    order: list[nn.Module] = []
    hooks = [
        module.register_forward_pre_hook(lambda module, _: order.append(originals[module]))
        for module in twin.modules()
        if list(module.parameters()) and not list(module.children())
    ]
    try:
        with torch.inference_mode():
            twin(torch.zeros(shape, device="meta"))
    except (RuntimeError, NotImplementedError):
        return set()
    finally:
        for hook in hooks:  # they would keep the copy alive
            hook.remove()
    weighted = [place for place, layer in enumerate(order) if isinstance(layer, _WEIGHTED)]
    if len(weighted) < 2:
        return set()
    ends = [*order[: weighted[1]], *order[weighted[-2] + 1 :]]
    return {layer for layer in ends if order.count(layer) == 1}


class InFloat32(nn.Module):
    """A layer that computes in float32 where those round it are cast to less."""

    def __init__(self, layer: nn.Module, device_type: str) -> None:
        super().__init__()
        self.layer = layer
        self._device_type = device_type

    def forward(self, features: Tensor) -> Any:
        """Map features of any precision to float32."""
        with torch.autocast(self._device_type, enabled=False):
            return self.layer(features.float())
