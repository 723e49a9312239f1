"""CT with Hounsfield priors: soft tissue masks as further channels, round any network."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

import torch
from torch import Tensor

from ..core.errors import InputError
from ..presets import PRESETS
from .contract import NETWORKS, NetworkConfig, SegmentationNetwork

TissueRange = tuple[str, float | None, float | None]


@dataclass(frozen=True, kw_only=True)
class HUPriorConfig(NetworkConfig):
    """Shape of the network inside and the tissues that it is told of.

    Attributes:
        network: Registered name of the network inside; it gets the shape that is given here.
        network_options: Its further options.
        tissue_ranges_hu: One soft mask each, (name, lower, upper) with None for no limit; empty: those of preset "ct".
        softness_hu: Distance from a threshold at which a mask has risen from 0.5 to 0.73.
        window_hu: Stored values that become -1 and 1; what lies outside is clipped.
        ct_channels: Channels of the image that hold HU; others pass as they are.
    """

    network: str = "unet"
    network_options: dict[str, Any] = field(default_factory=dict, hash=False)
    tissue_ranges_hu: tuple[TissueRange, ...] = ()
    softness_hu: float = 20.0
    window_hu: tuple[float, float] = (-1000.0, 1000.0)
    ct_channels: tuple[int, ...] = (0,)

    def __post_init__(self) -> None:
        ranges = tuple(self.tissue_ranges_hu) or PRESETS["ct"].tissue_ranges_hu
        object.__setattr__(self, "tissue_ranges_hu", tuple((name, low, high) for name, low, high in ranges))
        object.__setattr__(self, "window_hu", tuple(self.window_hu))
        object.__setattr__(self, "ct_channels", tuple(self.ct_channels))
        super().__post_init__()

    def _check(self, depth: int, axes: int) -> None:
        super()._check(depth, axes)
        lower, upper = self.window_hu
        requirements = (
            (self.network != "hu_prior", "network is 'hu_prior': name the network inside"),
            (self.softness_hu > 0, f"softness_hu is {self.softness_hu}: give a distance above 0"),
            (lower < upper, f"window_hu is {self.window_hu}: give the lower value first"),
            (len(self.ct_channels) >= 1, "ct_channels is empty: name at least one channel"),
            (
                all(0 <= channel < self.in_channels for channel in self.ct_channels),
                f"ct_channels is {self.ct_channels}: give 0 to {self.in_channels - 1}",
            ),
        )
        for holds, message in requirements:
            if not holds:
                raise InputError(f"HUPriorConfig: {message}")
        for name, low, high in self.tissue_ranges_hu:
            if (low is None and high is None) or (low is not None and high is not None and low >= high):
                raise InputError(f"HUPriorConfig: the range of {name} is {low} to {high}: give the lower value first")

    @property
    def inner_values(self) -> dict[str, Any]:
        """Configuration of the network inside."""
        values = {entry.name: getattr(self, entry.name) for entry in fields(NetworkConfig)}
        described = [channel for channel in self.ct_channels for _ in self.tissue_ranges_hu]
        values["in_channels"] = self.in_channels + len(described)
        # A network that knows sequences is told which of them the masks go with.
        if "described" in NETWORKS[self.network].Config.__dataclass_fields__:
            values["described"] = described
        return {**values, **self.network_options}


@NETWORKS.register("hu_prior", title="CT with HU priors")
class HUPriorNetwork(SegmentationNetwork):
    """Adds soft masks of tissues to a CT in Hounsfield units, scales the intensity and lets a network do the rest.

    The masks mean what they say only in HU. So the plan's normalization of the CT channels must be "none": the
    image comes here as it is stored, and this network does the scaling that the plan would do for others.
    """

    Config = HUPriorConfig
    config: HUPriorConfig

    def __init__(self, config: HUPriorConfig) -> None:
        super().__init__(config)
        inner = NETWORKS[config.network]
        self.network = inner(inner.Config.from_dict(config.inner_values))

    @property
    def raw_channels(self) -> tuple[int, ...]:
        """The CT channels: their masks mean what they say only in HU."""
        return self.config.ct_channels

    @property
    def accepts_missing_channels(self) -> bool:
        """What the network inside does; the masks of a missing CT are NaN, as it is."""
        return self.network.accepts_missing_channels

    @property
    def alignment(self) -> tuple[int, ...]:
        """What the network inside needs."""
        return self.network.alignment

    def forward(self, image: Tensor) -> Tensor | list[Tensor]:
        """Map image (B, C, ...) in HU, of any size, to logits (B, K, ...)."""
        # The network inside pads: zeros added here would be water.
        logits: Tensor | list[Tensor] = self.network(self.add_priors(image))
        return logits

    def forward_aligned(self, image: Tensor) -> Tensor | list[Tensor]:
        """Map image (B, C, ...) in HU to logits (B, K, ...)."""
        return self.network.forward_aligned(self.add_priors(image))

    def add_priors(self, image: Tensor) -> Tensor:
        """Map image (B, C, ...) in HU to the scaled image and the masks of each CT channel, (B, C + masks, ...)."""
        lower, upper = self.config.window_hu
        # A half-precision number is off by up to 4 HU at 1,500.
        channels = list((image if image.dtype == torch.float64 else image.float()).unbind(dim=1))
        masks = []
        for index in self.config.ct_channels:
            hounsfield = channels[index]
            masks += [self._soft_mask(hounsfield, low, high) for _, low, high in self.config.tissue_ranges_hu]
            channels[index] = (hounsfield.clamp(lower, upper) - lower) * (2 / (upper - lower)) - 1
        return torch.stack(channels + masks, dim=1).to(image.dtype)

    def _soft_mask(self, hounsfield: Tensor, low: float | None, high: float | None) -> Tensor:
        mask = torch.ones_like(hounsfield)
        if low is not None:
            mask = mask * torch.sigmoid((hounsfield - low) / self.config.softness_hu)
        if high is not None:
            mask = mask * torch.sigmoid((high - hounsfield) / self.config.softness_hu)
        return mask
