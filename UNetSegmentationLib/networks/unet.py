"""U-Net (Ronneberger et al. 2015, arXiv:1505.04597; in 3D Çiçek et al. 2016, arXiv:1606.06650)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..core.errors import InputError
from .contract import NETWORKS, NetworkConfig, SegmentationNetwork
from .parts.blocks import UPSAMPLINGS, BlockStyle, Stage, Tap, UpSample, initialise_weights, make_head, make_pooling

DOWNSAMPLINGS = ("max_pool", "strided")


@dataclass(frozen=True, kw_only=True)
class UNetConfig(NetworkConfig):
    """Shape of a U-Net.

    Attributes:
        downsampling: "max_pool" before each stage as in the paper, or "strided": its first convolution is strided.
        upsampling: "transposed" convolution whose kernel is the stride, "nearest_conv" or "linear" interpolation.
        conv_bias: Convolutions have a bias; None: only those without a norm after them.
    """

    downsampling: str = "max_pool"
    upsampling: str = "transposed"
    conv_bias: bool | None = None

    def _check(self, depth: int, axes: int) -> None:
        super()._check(depth, axes)
        for name, value, allowed in (
            ("downsampling", self.downsampling, DOWNSAMPLINGS),
            ("upsampling", self.upsampling, UPSAMPLINGS),
        ):
            if value not in allowed:
                raise InputError(f"{type(self).__name__}: {name} is '{value}': choose one of {', '.join(allowed)}")

    @property
    def style(self) -> BlockStyle:
        """Style shared by all blocks of this network."""
        return BlockStyle.of(self, conv_bias=self.conv_bias)


class Encoder(nn.Module):
    """Stages of decreasing resolution.

    Args:
        config: Shape of the network.
        in_channels: Channels of the image; the configuration's by default.
        convs: Convolutions of each stage; the configuration's by default.
    """

    def __init__(
        self, config: UNetConfig, *, in_channels: int | None = None, convs: Sequence[int] | None = None
    ) -> None:
        super().__init__()
        depth = len(config.features_per_stage)
        inputs = (in_channels or config.in_channels, *config.features_per_stage)
        is_pooled = config.downsampling == "max_pool"
        self.poolings = nn.ModuleList(make_pooling(stride) if is_pooled else nn.Identity() for stride in config.strides)
        self.stages = nn.ModuleList(
            Stage(
                inputs[level],
                config.features_per_stage[level],
                style=config.style,
                convs=convs[level] if convs else config.convs_per_stage,
                kernel=config.kernel_sizes[level],
                stride=() if is_pooled else config.strides[level],
            )
            for level in range(depth)
        )

    def forward(self, image: Tensor, *, stages: int | None = None) -> list[Tensor]:
        """Map image (B, C, ...) to the features of every stage, or of the first `stages`, finest first."""
        features = [image]
        for pooling, stage in list(zip(self.poolings, self.stages, strict=True))[:stages]:
            features.append(stage(pooling(features[-1])))
        return features[1:]


class Decoder(nn.Module):
    """Up-sampling, concatenation with the skip and a stage, level by level; a head at every supervised level.

    Args:
        config: Shape of the network.
        skip_channels: Channels of the skips, finest first, and of the coarsest features; the encoder's by default.
        convs: Convolutions of each stage, finest first; the configuration's by default.
        style: Style shared by the blocks; the configuration's by default.
    """

    def __init__(
        self,
        config: UNetConfig,
        *,
        skip_channels: Sequence[int] = (),
        convs: Sequence[int] | None = None,
        style: BlockStyle | None = None,
    ) -> None:
        super().__init__()
        style = style or config.style
        skips = tuple(skip_channels) or config.features_per_stage
        features = config.features_per_stage
        self.taps = nn.ModuleList(Tap("skip", level) for level in range(len(features) - 1))
        self.ups = nn.ModuleList()
        self.up_channels: list[int] = []
        self.stages = nn.ModuleList()
        for level in range(len(features) - 1):
            coarser = features[level + 1] if level + 2 < len(features) else skips[-1]
            up = UpSample(
                coarser,
                features[level],
                style=style,
                stride=config.strides[level + 1],
                mode=config.upsampling,
                bias=config.conv_bias is not False,
            )
            self.ups.append(up)
            self.up_channels.append(up.out_channels)
            self.stages.append(
                Stage(
                    up.out_channels + skips[level],
                    features[level],
                    style=style,
                    convs=convs[level] if convs else config.convs_per_stage,
                    kernel=config.kernel_sizes[level],
                )
            )
        levels = max(1, len(self.stages)) if config.deep_supervision else 1
        inputs = features if len(features) > 1 else skips
        self.heads = nn.ModuleList(make_head(inputs[level], config) for level in range(levels))
        self.is_supervised = config.deep_supervision

    def gate(self, level: int, skip: Tensor, coarser: Tensor) -> Tensor:  # noqa: ARG002
        """Return the skip (B, C, ...) at `level` as it enters the decoder, given the up-sampled coarser features."""
        return skip

    def merge(self, level: int, skip: Tensor, decoded: Tensor) -> Tensor:
        """Return the up-sampled decoded features and the gated skip, concatenated (B, C + C', ...)."""
        coarser = self.ups[level](decoded)
        return torch.cat([coarser, self.gate(level, self.taps[level](skip), coarser)], dim=1)

    def forward(self, features: list[Tensor]) -> Tensor | list[Tensor]:
        """Map the encoder's features, finest first, to logits (B, K, ...), or to a list of them, finest first.

        The list is consumed: each skip is freed once merged, which saves 30 % of the memory of prediction.
        """
        decoded = features.pop()
        decoded_levels = [decoded]
        for level in reversed(range(len(features))):
            decoded = self.stages[level](self.merge(level, features.pop(), decoded))
            decoded_levels = [decoded, *decoded_levels] if self.is_supervised and self.training else [decoded]
        if self.is_supervised and self.training:
            return [head(level) for head, level in zip(self.heads, decoded_levels, strict=False)]
        logits: Tensor = self.heads[0](decoded)
        return logits


@NETWORKS.register("unet", title="U-Net")
class UNet(SegmentationNetwork):
    """U-Net: encoder, decoder and concatenated skips between them."""

    Config = UNetConfig
    config: UNetConfig

    def __init__(self, config: UNetConfig) -> None:
        super().__init__(config)
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        initialise_weights(self)

    def forward_aligned(self, image: Tensor) -> Tensor | list[Tensor]:
        """Map image (B, C, D, H, W) or (B, C, H, W) to logits (B, K, same size)."""
        logits: Tensor | list[Tensor] = self.decoder(self.encoder(image))
        return logits
