"""SegResNet (Myronenko 2018, arXiv:1810.11654): pre-activated residual blocks, group norm and summed skips."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from .contract import NETWORKS, NetworkConfig, SegmentationNetwork
from .parts.blocks import (
    BlockStyle,
    Tap,
    UpSample,
    convolution,
    initialise_weights,
    make_activation,
    make_dropout,
    make_head,
    make_norm,
)

UPSAMPLINGS = ("linear", "transposed")


@dataclass(frozen=True, kw_only=True)
class SegResNetConfig(NetworkConfig):
    """Shape of a SegResNet; dropout acts only after the first convolution.

    Attributes:
        encoder_blocks: Residual blocks of each encoder stage; empty: 1, 2, 2, 4 as in the paper, the last repeated.
        decoder_blocks: Residual blocks of each decoder stage, finest first; empty: 1 everywhere as in the paper.
        upsampling: "linear" interpolation, or "transposed" convolution whose kernel is the stride.
    """

    norm: str = "group"
    activation: str = "relu"
    encoder_blocks: tuple[int, ...] = ()
    decoder_blocks: tuple[int, ...] = ()
    upsampling: str = "linear"

    def __post_init__(self) -> None:
        depth = len(self.features_per_stage)
        paper = (1, 2, 2, *(4,) * depth)[:depth]
        object.__setattr__(self, "encoder_blocks", tuple(self.encoder_blocks) or paper)
        object.__setattr__(self, "decoder_blocks", tuple(self.decoder_blocks) or (1,) * (depth - 1))
        super().__post_init__()

    def _check(self, depth: int, axes: int) -> None:
        super()._check(depth, axes)
        for name, needed in (("encoder_blocks", depth), ("decoder_blocks", depth - 1)):
            blocks = getattr(self, name)
            self.require(
                len(blocks) == needed and min(blocks, default=0) >= 0,
                f"{name} is {blocks}: must be {needed} numbers of at least 0",
            )
        self.require(
            self.upsampling in UPSAMPLINGS, f"upsampling is '{self.upsampling}': choose {' or '.join(UPSAMPLINGS)}"
        )

    @property
    def style(self) -> BlockStyle:
        """Style shared by all blocks of this network."""
        return BlockStyle.of(self)


class ResidualBlock(nn.Module):
    """Norm, activation and convolution, twice, plus the input.

    Args:
        channels: Channels of input and output.
        style: Style shared by the network's blocks.
        kernel: Odd size along each axis.
    """

    def __init__(self, channels: int, *, style: BlockStyle, kernel: tuple[int, ...]) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *(
                layer
                for _ in range(2)
                for layer in (
                    make_norm(style.norm, channels),
                    make_activation(style.activation, channels),
                    _convolution(channels, channels, kernel),
                )
            )
        )
        # In place, the first activation would change the shortcut if no norm copies it.
        if style.norm == "none":
            self.layers[0] = _Copy()

    def forward(self, features: Tensor) -> Tensor:
        """Map features (B, C, ...) to the same shape."""
        result: Tensor = features + self.layers(features)
        return result


class _Copy(nn.Module):
    def forward(self, features: Tensor) -> Tensor:
        return features.clone()


@NETWORKS.register("segresnet", title="SegResNet")
class SegResNet(SegmentationNetwork):
    """SegResNet without the variational branch, which serves training only."""

    Config = SegResNetConfig
    config: SegResNetConfig

    def __init__(self, config: SegResNetConfig) -> None:
        super().__init__(config)
        style, widths = config.style, config.features_per_stage
        self.stem = _convolution(config.in_channels, widths[0], config.kernel_sizes[0])
        self.dropout = make_dropout(style)
        self.downs = nn.ModuleList(
            _convolution(widths[level - 1], widths[level], config.kernel_sizes[level], stride=config.strides[level])
            for level in range(1, len(widths))
        )
        self.stages = nn.ModuleList(
            nn.Sequential(*(ResidualBlock(width, style=style, kernel=kernel) for _ in range(blocks)))
            for width, kernel, blocks in zip(widths, config.kernel_sizes, config.encoder_blocks, strict=True)
        )
        self.taps = nn.ModuleList(Tap("skip", level) for level in range(len(widths) - 1))
        self.ups = nn.ModuleList(_up(config, level) for level in range(len(widths) - 1))
        self.decoder_stages = nn.ModuleList(
            nn.Sequential(*(ResidualBlock(widths[level], style=style, kernel=kernel) for _ in range(blocks)))
            for level, (kernel, blocks) in enumerate(zip(config.kernel_sizes, config.decoder_blocks, strict=False))
        )
        levels = max(1, len(widths) - 1) if config.deep_supervision else 1
        self.heads = nn.ModuleList(_head(config, level) for level in range(levels))
        initialise_weights(self)

    def forward_aligned(self, image: Tensor) -> Tensor | list[Tensor]:
        """Map image (B, C, D, H, W) or (B, C, H, W) to logits (B, K, same size), or to a list, finest first."""
        features = [self.stages[0](self.dropout(self.stem(image)))]
        for down, stage in zip(self.downs, list(self.stages)[1:], strict=True):
            features.append(stage(down(features[-1])))
        decoded = features.pop()
        levels = [decoded]
        is_supervised = self.config.deep_supervision and self.training
        for level in reversed(range(len(features))):
            decoded = self.decoder_stages[level](self.ups[level](decoded) + self.taps[level](features.pop()))
            levels = [decoded, *levels] if is_supervised else [decoded]
        if is_supervised:
            return [head(level) for head, level in zip(self.heads, levels, strict=False)]
        logits: Tensor = self.heads[0](decoded)
        return logits


def _up(config: SegResNetConfig, level: int) -> nn.Module:
    widths = config.features_per_stage
    return nn.Sequential(
        _convolution(widths[level + 1], widths[level], (1,) * config.dimensions),
        UpSample(
            widths[level],
            widths[level],
            style=config.style,
            stride=config.strides[level + 1],
            mode=config.upsampling,
        ),
    )


def _head(config: SegResNetConfig, level: int) -> nn.Module:
    width = config.features_per_stage[level]
    # Only the head reads the finest features, but the coarser ones are decoded further.
    norm = _Copy() if config.norm == "none" else make_norm(config.norm, width)
    return nn.Sequential(norm, make_activation(config.activation, width), make_head(width, config))


def _convolution(
    in_channels: int, out_channels: int, kernel: tuple[int, ...], *, stride: tuple[int, ...] = ()
) -> nn.Module:
    padding = tuple((size - 1) // 2 for size in kernel)
    # Every convolution is followed by a norm, possibly after an addition.
    return convolution(len(kernel))(in_channels, out_channels, kernel, stride=stride or 1, padding=padding, bias=False)
