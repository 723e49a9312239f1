"""nnU-Net's residual-encoder U-Net (Isensee et al. 2024, arXiv:2404.09556) as configured by its planner."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import Tensor, nn

from ..core.errors import InputError
from .contract import NETWORKS, SegmentationNetwork
from .nnunet_plain import NNUNetConfig
from .parts.blocks import (
    BlockStyle,
    ConvBlock,
    initialise_weights,
    make_activation,
    make_average_pooling,
    make_dropout,
    without_residual,
)
from .unet import Decoder

_PLANNED_BLOCKS = (1, 3, 4, 6, 6, 6, 6, 6, 6)


@dataclass(frozen=True, kw_only=True)
class NNUNetResidualConfig(NNUNetConfig):
    """Shape of the residual-encoder U-Net.

    `encoder_convs` counts residual blocks of two convolutions each; empty: 1, 3, 4, 6, 6, ... as in the planner.
    `decoder_convs` is 1 everywhere by default, and `convs_per_stage` is not used.
    """

    residual: bool = True

    def _default_encoder_convs(self, depth: int) -> tuple[int, ...]:
        return (_PLANNED_BLOCKS + (_PLANNED_BLOCKS[-1],) * depth)[:depth]

    def _default_decoder_convs(self, depth: int) -> tuple[int, ...]:
        return (1,) * (depth - 1)

    def _check(self, depth: int, axes: int) -> None:
        super()._check(depth, axes)
        if not self.residual:
            raise InputError("NNUNetResidualConfig: residual is False: choose the network 'nnunet_plain' for that")


class ResidualBlock(nn.Module):
    """Two convolutions with a shortcut, average-pooled and projected if shapes differ (ResNet-D).

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        style: Style shared by the network's blocks.
        kernel: Odd size along each axis.
        stride: Step of the first convolution along each axis.
    """

    def __init__(
        self, in_channels: int, out_channels: int, *, style: BlockStyle, kernel: Sequence[int], stride: Sequence[int]
    ) -> None:
        super().__init__()
        self.first = ConvBlock(in_channels, out_channels, style=style, kernel=kernel, stride=stride)
        self.second = ConvBlock(out_channels, out_channels, style=style, kernel=kernel, is_activated=False)
        self.pooling = make_average_pooling(stride)
        self.projection: nn.Module = nn.Identity()
        if in_channels != out_channels:
            self.projection = ConvBlock(
                in_channels,
                out_channels,
                style=replace(style, conv_bias=False),
                kernel=(1,) * style.dimensions,
                is_activated=False,
            )
        self.activation = make_activation(style.activation, out_channels)

    def forward(self, features: Tensor) -> Tensor:
        """Map features (B, in_channels, ...) to (B, out_channels, ... / stride)."""
        result: Tensor = self.activation(self.second(self.first(features)) + self.projection(self.pooling(features)))
        return result


class ResidualEncoder(nn.Module):
    """A convolution, then stages of residual blocks."""

    def __init__(self, config: NNUNetResidualConfig) -> None:
        super().__init__()
        widths = config.features_per_stage
        self.stem = ConvBlock(config.in_channels, widths[0], style=config.style, kernel=config.kernel_sizes[0])
        self.stages = nn.ModuleList(
            nn.Sequential(
                *(
                    ResidualBlock(
                        widths[max(level - 1, 0)] if index == 0 else width,
                        width,
                        style=config.style,
                        kernel=config.kernel_sizes[level],
                        stride=config.strides[level] if index == 0 else (1,) * config.dimensions,
                    )
                    for index in range(config.encoder_convs[level])
                ),
                make_dropout(config.style),
            )
            for level, width in enumerate(widths)
        )

    def forward(self, image: Tensor) -> list[Tensor]:
        """Map image (B, C, ...) to the features of every stage, finest first."""
        features = [self.stem(image)]
        for stage in self.stages:
            features.append(stage(features[-1]))
        return features[1:]


@NETWORKS.register("nnunet_residual", title="nnU-Net residual encoder")
class NNUNetResidual(SegmentationNetwork):
    """U-Net with a deep residual encoder and a light decoder."""

    Config = NNUNetResidualConfig
    config: NNUNetResidualConfig

    def __init__(self, config: NNUNetResidualConfig) -> None:
        super().__init__(config)
        self.encoder = ResidualEncoder(config)
        self.decoder = Decoder(config, convs=config.decoder_convs, style=without_residual(config.style))
        initialise_weights(self)
        for module in self.modules():
            # Each block starts as the identity of its shortcut, as in nnU-Net.
            if isinstance(module, ResidualBlock):
                for parameter in module.second.norm.parameters():
                    nn.init.zeros_(parameter)

    def forward_aligned(self, image: Tensor) -> Tensor | list[Tensor]:
        """Map image (B, C, D, H, W) or (B, C, H, W) to logits (B, K, same size)."""
        logits: Tensor | list[Tensor] = self.decoder(self.encoder(image))
        return logits
