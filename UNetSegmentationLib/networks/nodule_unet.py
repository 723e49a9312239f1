"""Lung-nodule network: a multi-scale stem, then a U-Net."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from ..core.errors import InputError
from .contract import NETWORKS, SegmentationNetwork
from .parts.blocks import ConvBlock, initialise_weights
from .unet import Decoder, Encoder, UNetConfig


@dataclass(frozen=True, kw_only=True)
class NoduleUNetConfig(UNetConfig):
    """Shape of the lung-nodule network.

    Attributes:
        stem_kernels: Kernel along every axis of each parallel convolution.
        stem_features: Channels of each of them.
    """

    stem_kernels: tuple[int, ...] = (3, 5, 7)
    stem_features: int = 8

    def __post_init__(self) -> None:
        object.__setattr__(self, "stem_kernels", tuple(self.stem_kernels))
        super().__post_init__()

    def _check(self, depth: int, axes: int) -> None:
        super()._check(depth, axes)
        if not self.stem_kernels or any(kernel < 1 or kernel % 2 == 0 for kernel in self.stem_kernels):
            raise InputError(f"NoduleUNetConfig: stem_kernels is {self.stem_kernels}: must be odd numbers")
        if self.stem_features < 1:
            raise InputError(f"NoduleUNetConfig: stem_features is {self.stem_features}: must be at least 1")


class MultiScaleStem(nn.Module):
    """Parallel convolutions with different kernels, merged by a 1x1 convolution.

    Telling nodules of 4 mm and of 20 mm from vessels takes different context.
    """

    def __init__(self, config: NoduleUNetConfig) -> None:
        super().__init__()
        axes = config.dimensions
        self.branches = nn.ModuleList(
            ConvBlock(config.in_channels, config.stem_features, style=config.style, kernel=(kernel,) * axes)
            for kernel in config.stem_kernels
        )
        self.fusion = ConvBlock(
            config.stem_features * len(config.stem_kernels),
            config.features_per_stage[0],
            style=config.style,
            kernel=(1,) * axes,
        )

    def forward(self, image: Tensor) -> Tensor:
        """Map image (B, C, ...) to features (B, C', ...), C' the U-Net's first width."""
        features: Tensor = self.fusion(torch.cat([branch(image) for branch in self.branches], dim=1))
        return features


@NETWORKS.register("nodule_unet", title="Lung-nodule U-Net")
class NoduleUNet(SegmentationNetwork):
    """U-Net after a multi-scale stem."""

    Config = NoduleUNetConfig
    config: NoduleUNetConfig

    def __init__(self, config: NoduleUNetConfig) -> None:
        super().__init__(config)
        self.stem = MultiScaleStem(config)
        self.encoder = Encoder(replace(config, in_channels=config.features_per_stage[0]))
        self.decoder = Decoder(config)
        initialise_weights(self)

    def forward_aligned(self, image: Tensor) -> Tensor | list[Tensor]:
        """Map image (B, C, D, H, W) or (B, C, H, W) to logits (B, K, same size)."""
        logits: Tensor | list[Tensor] = self.decoder(self.encoder(self.stem(image)))
        return logits
