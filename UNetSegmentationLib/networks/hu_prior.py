"""CT with Hounsfield priors: soft tissue masks as further channels of any network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..core.errors import InputError
from ..presets import PRESETS
from .contract import NETWORKS
from .parts.wrapper import NamedWrapper, WrapperConfig

TissueRange = tuple[str, float | None, float | None]


@dataclass(frozen=True, kw_only=True)
class HUPriorConfig(WrapperConfig):
    """Shape of the inner network and the tissues to mask.

    Attributes:
        tissue_ranges_hu: One soft mask each, (name, lower, upper) with None for no limit; empty: those of preset "ct".
        softness_hu: Distance from a threshold over which a mask rises from 0.5 to 0.73.
        window_hu: HU values mapped to -1 and 1; values outside are clipped.
        ct_channels: Channels of the image in HU; others are passed on unchanged.
    """

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
            (self.softness_hu > 0, f"softness_hu is {self.softness_hu}: must be above 0"),
            (lower < upper, f"window_hu is {self.window_hu}: put the lower value first"),
            (len(self.ct_channels) >= 1, "ct_channels is empty: name at least one channel"),
            (
                all(0 <= channel < self.in_channels for channel in self.ct_channels),
                f"ct_channels is {self.ct_channels}: must be 0 to {self.in_channels - 1}",
            ),
        )
        for holds, message in requirements:
            if not holds:
                raise InputError(f"HUPriorConfig: {message}")
        for name, low, high in self.tissue_ranges_hu:
            if (low is None and high is None) or (low is not None and high is not None and low >= high):
                raise InputError(f"HUPriorConfig: the range of {name} is {low} to {high}: put the lower value first")

    @property
    def inner_values(self) -> dict[str, Any]:
        """Configuration of the inner network."""
        described = [channel for channel in self.ct_channels for _ in self.tissue_ranges_hu]
        values = {**super().inner_values, "in_channels": self.in_channels + len(described)}
        # A network for several sequences needs to know which sequence each mask describes.
        return {**values, **self.inner_option("described", described)}


@NETWORKS.register("hu_prior", title="CT with HU priors")
class HUPriorNetwork(NamedWrapper):
    """Adds soft masks of tissues to a CT in Hounsfield units, scales the intensity and applies the inner network.

    The masks are only meaningful in HU, so the plan's normalization of the CT channels must be "none": the image
    arrives in stored values, and this network does the scaling that the plan does for others.
    """

    Config = HUPriorConfig
    config: HUPriorConfig

    def __init__(self, config: HUPriorConfig) -> None:
        super().__init__(config)
        scaled = sorted(set(config.ct_channels) & set(super().raw_channels))
        if scaled:
            raise InputError(
                f"HUPriorConfig: the inner network needs channel {', '.join(map(str, scaled))} as it is stored, and "
                "hu_prior scales it: leave it out of ct_channels, or choose another inner network"
            )

    @property
    def raw_channels(self) -> tuple[int, ...]:
        """The CT channels, whose masks require HU, and those that the inner network needs raw."""
        return tuple(sorted({*self.config.ct_channels, *super().raw_channels}))

    def forward(self, image: Tensor) -> Tensor | list[Tensor]:
        """Map image (B, C, ...) in HU, of any size, to logits (B, K, ...)."""
        # The inner network does the padding: zeros added here would be water.
        return super().forward(self.add_priors(image))

    def forward_aligned(self, image: Tensor) -> Tensor | list[Tensor]:
        """Map image (B, C, ...) in HU to logits (B, K, ...)."""
        return super().forward_aligned(self.add_priors(image))

    def add_priors(self, image: Tensor) -> Tensor:
        """Map image (B, C, ...) in HU to the scaled image and the masks of each CT channel, (B, C + masks, ...)."""
        lower, upper = self.config.window_hu
        # Half precision is off by up to 4 HU at 1,500.
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
