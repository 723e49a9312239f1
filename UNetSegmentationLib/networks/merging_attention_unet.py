"""Attention U-Net (Oktay et al. 2018, arXiv:1804.03999) with strided stages and one merging convolution a level."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from .attention_unet import AttentionGate
from .contract import NETWORKS, SegmentationNetwork
from .parts.blocks import (
    ConvBlock,
    Tap,
    initialise_weights,
    make_activation,
    make_head,
    make_norm,
    transposed_convolution,
)
from .unet import Encoder, UNetConfig


@dataclass(frozen=True, kw_only=True)
class MergingAttentionUNetConfig(UNetConfig):
    """Shape of a merging Attention U-Net.

    Attributes:
        up_kernel: Odd size along every axis of the transposed convolutions.
    """

    norm: str = "batch"
    activation: str = "relu"
    downsampling: str = "strided"
    up_kernel: int = 3

    def _check(self, depth: int, axes: int) -> None:
        super()._check(depth, axes)
        self.require(self.up_kernel % 2 == 1, f"up_kernel is {self.up_kernel}: must be an odd number")


class UpBlock(nn.Module):
    """Transposed convolution, norm and activation.

    Args:
        in_channels: Channels of the coarser features.
        out_channels: Channels of the finer result.
        config: Shape of the network.
        stride: Factor along each axis.
    """

    def __init__(
        self, in_channels: int, out_channels: int, *, config: MergingAttentionUNetConfig, stride: Sequence[int]
    ) -> None:
        super().__init__()
        self.conv = transposed_convolution(config.dimensions)(
            in_channels,
            out_channels,
            config.up_kernel,
            stride=tuple(stride),
            padding=(config.up_kernel - 1) // 2,
            output_padding=tuple(step - 1 for step in stride),
            bias=config.style.conv_bias,
        )
        self.norm = make_norm(config.norm, out_channels)
        self.activation = make_activation(config.activation, out_channels)

    def forward(self, features: Tensor) -> Tensor:
        """Map features (B, in_channels, ...) to (B, out_channels, ... * stride)."""
        result: Tensor = self.activation(self.norm(self.conv(features)))
        return result


@NETWORKS.register("merging_attention_unet", title="Merging Attention U-Net")
class MergingAttentionUNet(SegmentationNetwork):
    """Attention U-Net whose decoder has one convolution per level, with instance norm and PReLU."""

    Config = MergingAttentionUNetConfig
    config: MergingAttentionUNetConfig

    def __init__(self, config: MergingAttentionUNetConfig) -> None:
        super().__init__(config)
        widths = config.features_per_stage
        levels = range(len(widths) - 1)
        merging = replace(config.style, norm="instance", activation="prelu", conv_bias=False)
        self.encoder = Encoder(config)
        self.taps = nn.ModuleList(Tap("skip", level) for level in levels)
        self.ups = nn.ModuleList(
            UpBlock(widths[level + 1], widths[level], config=config, stride=config.strides[level + 1])
            for level in levels
        )
        self.gates = nn.ModuleList(
            AttentionGate(config, level=level, coarser_channels=widths[level]) for level in levels
        )
        self.merges = nn.ModuleList(ConvBlock(2 * widths[level], widths[level], style=merging) for level in levels)
        heads = max(1, len(widths) - 1) if config.deep_supervision else 1
        self.heads = nn.ModuleList(make_head(widths[level], config) for level in range(heads))
        initialise_weights(self)

    def forward_aligned(self, image: Tensor) -> Tensor | list[Tensor]:
        """Map image (B, C, D, H, W) or (B, C, H, W) to logits (B, K, same size), or to a list, finest first."""
        features = self.encoder(image)
        decoded = features.pop()
        decoded_levels = [decoded]
        is_supervised = self.config.deep_supervision and self.training
        for level in reversed(range(len(features))):
            coarser = self.ups[level](decoded)
            gated = self.gates[level](self.taps[level](features.pop()), coarser)
            decoded = self.merges[level](torch.cat([gated, coarser], dim=1))
            decoded_levels = [decoded, *decoded_levels] if is_supervised else [decoded]
        if is_supervised:
            return [head(level) for head, level in zip(self.heads, decoded_levels, strict=False)]
        logits: Tensor = self.heads[0](decoded)
        return logits
