"""Residual-unit U-Net (Kerfoot et al. 2019, doi:10.1007/978-3-030-12029-0_40), strided from the first layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor, nn

from .contract import NETWORKS, NetworkConfig, SegmentationNetwork
from .parts.blocks import (
    BlockStyle,
    ConvBlock,
    Tap,
    convolution,
    initialise_weights,
    make_activation,
    make_dropout,
    make_head,
    make_norm,
    transposed_convolution,
)


@dataclass(frozen=True, kw_only=True)
class ResidualUNetConfig(NetworkConfig):
    """Shape of a residual-unit U-Net.

    Attributes:
        residual_units: Convolutions of an encoder unit with a shortcut; 0: single plain convolutions.
        up_kernel: Odd size along every axis of the transposed convolutions.
        conv_bias: Convolutions before a norm have a bias; None: only those without a norm after them.
    """

    features_per_stage: tuple[int, ...] = (16, 32, 64, 128, 256)
    activation: str = "prelu"
    residual_units: int = 2
    up_kernel: int = 3
    conv_bias: bool | None = None

    def _check(self, depth: int, axes: int) -> None:
        super()._check(depth, axes)
        self.require(depth >= 2, "features_per_stage has one entry: needs at least 2")
        self.require(self.residual_units >= 0, f"residual_units is {self.residual_units}: must be 0 or more")
        self.require(self.up_kernel % 2 == 1, f"up_kernel is {self.up_kernel}: must be an odd number")

    @property
    def style(self) -> BlockStyle:
        """Style shared by all blocks of this network."""
        return BlockStyle.of(self, conv_bias=self.conv_bias)


class ResidualUnit(nn.Module):
    """Convolutions whose input is added to their output, by a convolution if shapes differ; nothing follows.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        style: Style shared by the network's blocks.
        convs: Number of blocks.
        kernel: Odd size along each axis.
        stride: Step of the first block along each axis.
        is_last_bare: The last block is a bare convolution.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        style: BlockStyle,
        convs: int,
        kernel: Sequence[int],
        stride: Sequence[int],
        is_last_bare: bool = False,
    ) -> None:
        super().__init__()
        blocks: list[nn.Module] = []
        for index in range(convs):
            inputs = out_channels if index else in_channels
            if is_last_bare and index == convs - 1:
                blocks.append(_bare_convolution(inputs, out_channels, kernel, stride=(1,) * len(kernel)))
                continue
            step = (1,) * len(kernel) if index else stride
            blocks += [
                ConvBlock(inputs, out_channels, style=style, kernel=kernel, stride=step),
                make_dropout(style),
            ]
        self.blocks = nn.Sequential(*blocks)
        self.shortcut: nn.Module = nn.Identity()
        if prod(stride) != 1:
            self.shortcut = _bare_convolution(in_channels, out_channels, kernel, stride=stride)
        elif in_channels != out_channels:
            self.shortcut = _bare_convolution(in_channels, out_channels, (1,) * len(kernel), stride=stride)

    def forward(self, features: Tensor) -> Tensor:
        """Map features (B, in_channels, ...) to (B, out_channels, ... / stride)."""
        result: Tensor = self.blocks(features) + self.shortcut(features)
        return result


class UpUnit(nn.Module):
    """Transposed convolution, norm, activation, and a residual unit of one convolution if the network has them.

    Args:
        in_channels: Channels of the coarser features and the skip together.
        out_channels: Channels of the finer result.
        config: Shape of the network.
        level: Stage of the encoder whose stride it undoes.
    """

    def __init__(self, in_channels: int, out_channels: int, *, config: ResidualUNetConfig, level: int) -> None:
        super().__init__()
        style, stride = config.style, config.strides[level + 1]
        is_top, is_plain = level == 0, config.residual_units == 0
        is_bare = is_top and is_plain
        self.conv = transposed_convolution(config.dimensions)(
            in_channels,
            out_channels,
            config.up_kernel,
            stride=stride,
            padding=(config.up_kernel - 1) // 2,
            output_padding=tuple(step - 1 for step in stride),
            bias=is_bare or style.conv_bias,
        )
        self.norm = nn.Identity() if is_bare else make_norm(style.norm, out_channels)
        self.activation = nn.Identity() if is_bare else make_activation(style.activation, out_channels)
        self.unit: nn.Module = nn.Identity()
        if not is_plain:
            self.unit = ResidualUnit(
                out_channels,
                out_channels,
                style=style,
                convs=1,
                kernel=config.kernel_sizes[level],
                stride=(1,) * config.dimensions,
                is_last_bare=is_top,
            )

    def forward(self, features: Tensor) -> Tensor:
        """Map features (B, in_channels, ...) to (B, out_channels, ... * stride)."""
        result: Tensor = self.unit(self.activation(self.norm(self.conv(features))))
        return result


@NETWORKS.register("residual_unet", title="Residual-unit U-Net")
class ResidualUNet(SegmentationNetwork):
    """U-Net of residual units; the finest features are as coarse as the first stride, and the last layer undoes it.

    `strides[n + 1]` is the stride with which encoder unit n begins; the last unit keeps its grid.
    """

    Config = ResidualUNetConfig
    config: ResidualUNetConfig

    def __init__(self, config: ResidualUNetConfig) -> None:
        super().__init__(config)
        widths = config.features_per_stage
        levels = range(len(widths) - 1)
        strides = (*config.strides[1:], (1,) * config.dimensions)
        inputs = (config.in_channels, *widths)
        self.downs = nn.ModuleList(
            _down(inputs[level], widths[level], config=config, level=level, stride=stride)
            for level, stride in enumerate(strides)
        )
        self.taps = nn.ModuleList(Tap("skip", level + 1) for level in levels)
        self.ups = nn.ModuleList(
            UpUnit(
                widths[level] + (widths[level + 1] if level == levels[-1] else widths[level]),
                widths[level - 1] if level else config.num_classes,
                config=config,
                level=level,
            )
            for level in levels
        )
        supervised = levels[1:] if config.deep_supervision else ()
        self.heads = nn.ModuleList(make_head(widths[level - 1], config) for level in supervised)
        initialise_weights(self)

    def forward_aligned(self, image: Tensor) -> Tensor | list[Tensor]:
        """Map image (B, C, D, H, W) or (B, C, H, W) to logits (B, K, same size), or to a list, finest first."""
        features = [image]
        for down in self.downs:
            features.append(down(features[-1]))
        decoded, *skips = features[:0:-1]
        levels: list[Tensor] = []
        for level, skip in zip(reversed(range(len(self.ups))), skips, strict=True):
            decoded = self.ups[level](torch.cat([self.taps[level](skip), decoded], dim=1))
            levels.insert(0, decoded)
        if self.config.deep_supervision and self.training:
            return [levels[0], *(head(level) for head, level in zip(self.heads, levels[1:], strict=True))]
        return decoded


def _down(
    in_channels: int, out_channels: int, *, config: ResidualUNetConfig, level: int, stride: Sequence[int]
) -> nn.Module:
    kernel = config.kernel_sizes[level]
    if config.residual_units == 0:
        return nn.Sequential(
            ConvBlock(in_channels, out_channels, style=config.style, kernel=kernel, stride=stride),
            make_dropout(config.style),
        )
    return ResidualUnit(
        in_channels, out_channels, style=config.style, convs=config.residual_units, kernel=kernel, stride=stride
    )


def _bare_convolution(
    in_channels: int, out_channels: int, kernel: Sequence[int], *, stride: Sequence[int]
) -> nn.Module:
    padding = tuple((size - 1) // 2 for size in kernel)
    return convolution(len(kernel))(in_channels, out_channels, tuple(kernel), stride=tuple(stride), padding=padding)
