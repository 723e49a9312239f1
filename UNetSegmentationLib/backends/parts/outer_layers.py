"""The first and last layers of a network, which lose the most accuracy in half precision.

Keeping them in float32 costs a plain U-Net (16 to 256 features) a quarter more time in torch, and avoids half of the
label changes of bfloat16, or more.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ...networks.contract import SegmentationNetwork
from .network_copy import copy_network

_WEIGHTED = (nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.ConvTranspose3d, nn.Linear)
_FEWEST_WEIGHTED = 3  # with fewer, nothing would be left for half precision


def outer_layers(network: nn.Module, shape: tuple[int, ...]) -> set[nn.Module]:
    """Return the layers before the second convolution in execution order, and those after the last but one.

    Each inner network, such as a member of an ensemble, has its own outer layers. Of several parallel branches at the
    start, only the first counts. They are found without computing; the result is empty if the control flow of a
    network depends on values.

    Args:
        network: In evaluation mode; not changed.
        shape: Shape of a batch of tiles.
    """
    order = _call_order(network, shape)
    ends: set[nn.Module] = set()
    for part in network.modules():
        if isinstance(part, SegmentationNetwork) and not _has_networks_inside(part):
            layers = set(part.modules())
            ends |= _outer_layers_of([layer for layer in order if layer in layers])
    return ends


def _call_order(network: nn.Module, shape: tuple[int, ...]) -> list[nn.Module]:
    """Return the layers with weights, once per call and in call order; empty if it cannot be determined."""
    meta_copy = copy_network(network, lay_out=lambda tensor: tensor.to("meta"))
    originals = dict(zip(meta_copy.modules(), network.modules(), strict=True))
    order: list[nn.Module] = []
    hooks = [
        module.register_forward_pre_hook(lambda module, _: order.append(originals[module]))
        for module in meta_copy.modules()
        if list(module.parameters()) and not list(module.children())
    ]
    try:
        with torch.inference_mode():
            meta_copy(torch.zeros(shape, device="meta"))
    except Exception:  # noqa: BLE001  # whatever a network asks of values that are not there
        return []
    finally:
        for hook in hooks:  # hooks would keep the copy alive
            hook.remove()
    return order


def _has_networks_inside(network: nn.Module) -> bool:
    return any(isinstance(module, SegmentationNetwork) for module in network.modules() if module is not network)


def _outer_layers_of(order: list[nn.Module]) -> set[nn.Module]:
    weighted = [place for place, layer in enumerate(order) if isinstance(layer, _WEIGHTED)]
    if len(weighted) < _FEWEST_WEIGHTED:
        return set()
    ends = [*order[: weighted[1]], *order[weighted[-2] + 1 :]]
    # A layer that is called again elsewhere does not qualify.
    return {layer for layer in ends if order.count(layer) == 1}


class InFloat32(nn.Module):
    """A layer that computes in float32 among layers of lower precision."""

    def __init__(self, layer: nn.Module, device_type: str) -> None:
        super().__init__()
        self.layer = layer
        self._device_type = device_type

    def forward(self, features: Tensor) -> Any:
        """Map features of any precision to float32."""
        with torch.autocast(self._device_type, enabled=False):
            return self.layer(features.float())
