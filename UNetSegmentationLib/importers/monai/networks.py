"""Networks of MONAI bundles by MONAI's names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ...core.errors import InputError
from .attention_unet import read_attention_unet
from .basic_unets import read_basic_unet, read_basic_unet_plus_plus
from .dynunet import read_dynunet
from .network_plan import NetworkPlan
from .options import Options
from .residual_unet import read_residual_unet
from .segresnet import read_segresnet
from .transforms import short_name
from .vnet import read_vnet

READERS: dict[str, Callable[[Options], NetworkPlan]] = {
    "UNet": read_residual_unet,
    "SegResNet": read_segresnet,
    "BasicUNet": read_basic_unet,
    "BasicUNetPlusPlus": read_basic_unet_plus_plus,
    "DynUNet": read_dynunet,
    "AttentionUnet": read_attention_unet,
    "VNet": read_vnet,
}


def network_of(definition: Any) -> NetworkPlan:
    """Return the network equivalent to that of a bundle.

    Args:
        definition: Entry "network_def" of the configuration, with references resolved.

    Raises:
        InputError: It is not supported.
    """
    if not isinstance(definition, Mapping) or "_target_" not in definition:
        raise InputError("the bundle's network_def does not name a network (_target_): copy the whole bundle")
    name = short_name(definition)
    reader = next((entry for key, entry in READERS.items() if key.lower() == name.lower()), None)
    if reader is None:
        raise InputError(
            f"the bundle's network is '{name}', which is not supported: {', '.join(READERS)} can be imported; train "
            "one of these on the same data"
        )
    return reader(Options(name, definition))
