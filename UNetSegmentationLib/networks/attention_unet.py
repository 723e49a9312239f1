"""Attention U-Net (Oktay et al. 2018, arXiv:1804.03999): additive gates weight each skip."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from .contract import NETWORKS, SegmentationNetwork
from .parts.blocks import ConvBlock, Tap, initialise_weights
from .unet import Decoder, Encoder, UNetConfig


class AttentionGate(nn.Module):
    """Weights every position of a skip between 0 and 1 by the coarser signal there.

    Args:
        config: Shape of the network.
        level: Stage whose skip is gated.
        coarser_channels: Channels of the up-sampled coarser signal.
    """

    def __init__(self, config: UNetConfig, *, level: int, coarser_channels: int) -> None:
        super().__init__()
        skip_channels = config.features_per_stage[level]
        inner = max(1, skip_channels // 2)
        style = replace(config.style, activation="relu")
        kernel = (1,) * config.dimensions
        self.from_skip = ConvBlock(skip_channels, inner, style=style, kernel=kernel, is_activated=False)
        self.from_coarser = ConvBlock(coarser_channels, inner, style=style, kernel=kernel, is_activated=False)
        # Per-image norm would force a half-open gate on every image, with or without a lesion.
        if config.norm != "batch":
            style = replace(style, norm="none", conv_bias=True)
        self.to_gate = ConvBlock(inner, 1, style=style, kernel=kernel, is_activated=False)
        self.tap = Tap("gate", level)

    def forward(self, skip: Tensor, coarser: Tensor) -> Tensor:
        """Return the skip (B, C, ...) times its gate map (B, 1, ...)."""
        agreement = torch.relu(self.from_skip(skip) + self.from_coarser(coarser))
        gated: Tensor = skip * self.tap(torch.sigmoid(self.to_gate(agreement)))
        return gated


class AttentionDecoder(Decoder):
    """A decoder whose skips pass through attention gates."""

    def __init__(self, config: UNetConfig) -> None:
        super().__init__(config)
        self.gates = nn.ModuleList(
            AttentionGate(config, level=level, coarser_channels=self.up_channels[level])
            for level in range(len(self.stages))
        )

    def gate(self, level: int, skip: Tensor, coarser: Tensor) -> Tensor:
        """Return the gated skip (B, C, ...)."""
        gated: Tensor = self.gates[level](skip, coarser)
        return gated


@NETWORKS.register("attention_unet", title="Attention U-Net")
class AttentionUNet(SegmentationNetwork):
    """U-Net whose skips are gated by the up-sampled coarser signal.

    The paper computes a gate on the coarser grid and enlarges the map; here, as in common implementations, the
    coarser signal is enlarged first, so that the map is as fine as the skip.
    """

    Config = UNetConfig
    config: UNetConfig

    def __init__(self, config: UNetConfig) -> None:
        super().__init__(config)
        self.encoder = Encoder(config)
        self.decoder = AttentionDecoder(config)
        initialise_weights(self)

    def forward_aligned(self, image: Tensor) -> Tensor | list[Tensor]:
        """Map image (B, C, D, H, W) or (B, C, H, W) to logits (B, K, same size)."""
        logits: Tensor | list[Tensor] = self.decoder(self.encoder(image))
        return logits
