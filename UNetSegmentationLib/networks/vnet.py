"""V-Net (Milletari et al. 2016, arXiv:1606.04797): residual stages, strided convolutions down and up, PReLU."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from ..core.errors import InputError
from .contract import NETWORKS, NetworkConfig, SegmentationNetwork
from .parts.blocks import (
    BlockStyle,
    ConvBlock,
    Tap,
    UpSample,
    initialise_weights,
    make_activation,
    make_dropout,
    make_head,
    make_norm,
)


@dataclass(frozen=True, kw_only=True)
class VNetConfig(NetworkConfig):
    """Shape of a V-Net; empty kernel_sizes mean 5 along every axis, and convs_per_stage is an upper limit.

    Attributes:
        encoder_convs: Convolutions of each encoder stage; empty: 1, 2, 3, 3, 3 as in the paper.
        decoder_convs: Convolutions of each decoder stage, finest first; empty: 1, 2, 3, 3 as in the paper.
        head_kernel: If above 1, a convolution of this kernel to the classes, with norm and activation, precedes the
            heads.
        is_stem_activated: The first stage has an activation both before and after the image is added.
    """

    features_per_stage: tuple[int, ...] = (16, 32, 64, 128, 256)
    convs_per_stage: int = 3
    activation: str = "prelu"
    residual: bool = True
    encoder_convs: tuple[int, ...] = ()
    decoder_convs: tuple[int, ...] = ()
    head_kernel: int = 1
    is_stem_activated: bool = True

    def __post_init__(self) -> None:
        depth = len(self.features_per_stage)
        if not self.kernel_sizes:
            object.__setattr__(self, "kernel_sizes", ((5,) * self.dimensions,) * depth)
        rising = tuple(min(level + 1, self.convs_per_stage) for level in range(depth))
        object.__setattr__(self, "encoder_convs", tuple(self.encoder_convs) or rising)
        object.__setattr__(self, "decoder_convs", tuple(self.decoder_convs) or rising[:-1])
        super().__post_init__()

    def _check(self, depth: int, axes: int) -> None:
        super()._check(depth, axes)
        for name, needed in (("encoder_convs", depth), ("decoder_convs", depth - 1)):
            convs = getattr(self, name)
            if len(convs) != needed or min(convs, default=1) < 1:
                raise InputError(f"VNetConfig: {name} is {convs}: must be {needed} numbers of at least 1")
        self.require(self.head_kernel % 2 == 1, f"head_kernel is {self.head_kernel}: must be an odd number")


class VStage(nn.Module):
    """Convolutions of constant width plus their input (`residual`), then an activation.

    Args:
        channels: Channels of input and output.
        style: Style shared by the network's blocks.
        convs: Number of convolutions.
        kernel: Odd size along each axis.
        in_channels: Input channels of the first convolution if they differ.
        is_activated: The last convolution has an activation both before and after the input is added.
    """

    def __init__(
        self,
        channels: int,
        *,
        style: BlockStyle,
        convs: int,
        kernel: tuple[int, ...],
        in_channels: int | None = None,
        is_activated: bool = True,
    ) -> None:
        super().__init__()
        self.blocks = nn.Sequential(
            *(
                ConvBlock(
                    (in_channels or channels) if index == 0 else channels,
                    channels,
                    style=style,
                    kernel=kernel,
                    is_activated=is_activated or index < convs - 1,
                )
                for index in range(convs)
            )
        )
        self.activation = make_activation(style.activation, channels) if style.residual else None
        self.dropout = make_dropout(style)

    def forward(self, features: Tensor, shortcut: Tensor | None = None) -> Tensor:
        """Map features (B, C, ...) to the same shape; `shortcut` replaces an input of another width."""
        result: Tensor = self.blocks(features)
        if self.activation is not None:
            result = self.activation(result + (features if shortcut is None else shortcut))
        dropped: Tensor = self.dropout(result)
        return dropped


class VEncoder(nn.Module):
    """V-Net's left side: strided convolutions whose kernel is their stride, each before a stage."""

    def __init__(self, config: VNetConfig) -> None:
        super().__init__()
        style, widths = BlockStyle.of(config), config.features_per_stage
        self.downs = nn.ModuleList(
            ConvBlock(widths[level - 1], widths[level], style=style, kernel=stride, stride=stride)
            for level, stride in enumerate(config.strides)
            if level
        )
        self.stages = nn.ModuleList(
            VStage(
                width,
                style=style,
                convs=config.encoder_convs[level],
                kernel=config.kernel_sizes[level],
                in_channels=config.in_channels if level == 0 else None,
                is_activated=config.is_stem_activated or level > 0,
            )
            for level, width in enumerate(widths)
        )
        self.width = widths[0]

    def forward(self, image: Tensor) -> list[Tensor]:
        """Map image (B, C, ...) to the features of every stage, finest first."""
        # The paper adds the image to each of the first stage's maps; several channels alternate.
        copies = -(-self.width // image.shape[1])
        shortcut = torch.cat([image] * copies, dim=1)[:, : self.width]
        features = [self.stages[0](image, shortcut)]
        for level, down in enumerate(self.downs, start=1):
            features.append(self.stages[level](down(features[-1])))
        return features


class VDecoder(nn.Module):
    """V-Net's right side: each stage has twice the width of its skip and keeps the concatenation as its shortcut."""

    def __init__(self, config: VNetConfig) -> None:
        super().__init__()
        style, widths = BlockStyle.of(config), config.features_per_stage
        depth = len(widths)
        self.taps = nn.ModuleList(Tap("skip", level) for level in range(depth - 1))
        self.ups, self.stages = nn.ModuleList(), nn.ModuleList()
        for level in range(depth - 1):
            coarser = 2 * widths[level + 1] if level + 2 < depth else widths[-1]
            up = UpSample(coarser, widths[level], style=style, stride=config.strides[level + 1])
            norm, activation = make_norm(style.norm, widths[level]), make_activation(style.activation, widths[level])
            self.ups.append(nn.Sequential(up, norm, activation))
            self.stages.append(
                VStage(
                    2 * widths[level],
                    style=style,
                    convs=config.decoder_convs[level],
                    kernel=config.kernel_sizes[level],
                )
            )
        levels = max(1, depth - 1) if config.deep_supervision else 1
        self.heads = nn.ModuleList(_head(2 * widths[i] if depth > 1 else widths[0], config) for i in range(levels))
        self.is_supervised = config.deep_supervision

    def forward(self, features: list[Tensor]) -> Tensor | list[Tensor]:
        """Map the encoder's features, finest first, to logits (B, K, ...), or to a list of them, finest first."""
        *skips, decoded = features
        decoded_levels = [decoded]
        for level in reversed(range(len(skips))):
            coarser = self.ups[level](decoded)
            decoded = self.stages[level](torch.cat([coarser, self.taps[level](skips[level])], dim=1))
            decoded_levels.insert(0, decoded)
        if self.is_supervised and self.training:
            return [head(level) for head, level in zip(self.heads, decoded_levels, strict=False)]
        logits: Tensor = self.heads[0](decoded)
        return logits


def _head(in_channels: int, config: VNetConfig) -> nn.Module:
    if config.head_kernel == 1:
        return make_head(in_channels, config)
    kernel = (config.head_kernel,) * config.dimensions
    block = ConvBlock(in_channels, config.num_classes, style=BlockStyle.of(config), kernel=kernel)
    return nn.Sequential(block, make_head(config.num_classes, config))


@NETWORKS.register("vnet", title="V-Net")
class VNet(SegmentationNetwork):
    """V-Net; kernels of five voxels and residual stages as in the paper, norm and dropout as options."""

    Config = VNetConfig
    planned_kernel: ClassVar[int] = 5
    config: VNetConfig

    def __init__(self, config: VNetConfig) -> None:
        super().__init__(config)
        self.encoder = VEncoder(config)
        self.decoder = VDecoder(config)
        initialise_weights(self)

    def forward_aligned(self, image: Tensor) -> Tensor | list[Tensor]:
        """Map image (B, C, D, H, W) or (B, C, H, W) to logits (B, K, same size)."""
        logits: Tensor | list[Tensor] = self.decoder(self.encoder(image))
        return logits
