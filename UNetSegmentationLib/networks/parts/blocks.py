"""Building blocks shared by the networks: convolution, norm and activation, stages, up-sampling, initial weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import gcd, prod
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..contract import NetworkConfig
from .memory_format import channels_last_instance_norm, is_channels_last

NEGATIVE_SLOPE = 0.01
NORM_EPSILON = 1e-5
MOST_GROUPS = 8  # of group norm, as in SegResNet (arXiv:1810.11654)

_CONVOLUTIONS: dict[int, Callable[..., nn.Module]] = {2: nn.Conv2d, 3: nn.Conv3d}
_TRANSPOSED: dict[int, Callable[..., nn.Module]] = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
_POOLINGS: dict[int, Callable[..., nn.Module]] = {2: nn.MaxPool2d, 3: nn.MaxPool3d}
_AVERAGE_POOLINGS: dict[int, Callable[..., nn.Module]] = {2: nn.AvgPool2d, 3: nn.AvgPool3d}
_DROPOUTS: dict[int, Callable[..., nn.Module]] = {2: nn.Dropout2d, 3: nn.Dropout3d}
LINEAR_MODES = {2: "bilinear", 3: "trilinear"}

UPSAMPLINGS = ("transposed", "nearest_conv", "linear")


@dataclass(frozen=True, kw_only=True)
class BlockStyle:
    """Style shared by all blocks of a network.

    Attributes:
        dimensions: 2 or 3 spatial dimensions.
        norm: One of NORMS.
        activation: One of ACTIVATIONS.
        conv_bias: Convolutions before the norm have a bias.
        residual: Stages add their input to their output.
        dropout: Probability of dropping a feature map after each stage.
    """

    dimensions: int
    norm: str = "instance"
    activation: str = "leaky_relu"
    conv_bias: bool = False
    residual: bool = False
    dropout: float = 0.0

    @classmethod
    def of(cls, config: NetworkConfig, *, conv_bias: bool | None = None) -> Self:
        """Return the style of a network; by default only convolutions that no norm follows have a bias."""
        # A norm subtracts the mean, and with it any preceding bias.
        return cls(
            dimensions=config.dimensions,
            norm=config.norm,
            activation=config.activation,
            conv_bias=config.norm == "none" if conv_bias is None else conv_bias,
            residual=config.residual,
            dropout=config.dropout,
        )


class Tap(nn.Identity):
    """Identity that marks features worth viewing; `inference.feature_maps` reads them.

    Args:
        kind: "skip" for features that pass from encoder to decoder, "gate" for attention maps.
        level: Stage of the encoder whose grid the tensor has, 0 the finest.
    """

    def __init__(self, kind: str, level: int) -> None:
        super().__init__()
        self.kind = kind
        self.level = level


class InstanceNorm(nn.Module):
    """Instance norm with scale and shift that accepts single voxels (Ulyanov et al. 2016, arXiv:1607.08022).

    A patch as small as the total stride leaves one voxel at the bottom, which torch's layer rejects. Less its mean it
    is zero, so the result is the shift.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, features: Tensor) -> Tensor:
        """Map features (B, C, ...) to the same shape."""
        if prod(features.shape[2:]) == 1:
            return torch.group_norm(features, features.shape[1], self.weight, self.bias, NORM_EPSILON)
        if features.device.type == "cpu" and is_channels_last(features):
            return channels_last_instance_norm(features, self.weight, self.bias, eps=NORM_EPSILON)
        return F.instance_norm(features, weight=self.weight, bias=self.bias, eps=NORM_EPSILON)


class GroupNorm(nn.Module):
    """Group norm with scale and shift (Wu and He 2018, arXiv:1803.08494) that accepts single voxels.

    The number of groups is the greatest common divisor of MOST_GROUPS and the channels.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.groups = gcd(MOST_GROUPS, channels)
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, features: Tensor) -> Tensor:
        """Map features (B, C, ...) to the same shape."""
        return torch.group_norm(features, self.groups, self.weight, self.bias, NORM_EPSILON)


class BatchNorm(nn.BatchNorm3d):
    """Batch norm for 2D and 3D that falls back to its running statistics if a channel has a single value."""

    def _check_input_dim(self, input: Tensor) -> None:  # noqa: ARG002
        return

    def forward(self, input: Tensor) -> Tensor:
        """Map features (B, C, ...) to the same shape."""
        if self.training and input.numel() == input.shape[1]:
            return F.batch_norm(
                input, self.running_mean, self.running_var, self.weight, self.bias, training=False, eps=self.eps
            )
        return super().forward(input)


class AveragePooling(nn.Module):
    """Mean over boxes of `stride` voxels, taken in float32: torch has no half-precision kernel for it on the CPU."""

    def __init__(self, stride: Sequence[int]) -> None:
        super().__init__()
        self.pooling = _AVERAGE_POOLINGS[len(stride)](tuple(stride))

    def forward(self, features: Tensor) -> Tensor:
        """Map features (B, C, ...) to (B, C, ... / stride)."""
        pooled: Tensor = self.pooling(features if features.dtype == torch.float64 else features.float())
        return pooled.to(features.dtype)


def convolution(dimensions: int) -> Callable[..., nn.Module]:
    """Return torch's convolution for 2 or 3 spatial dimensions."""
    return _CONVOLUTIONS[dimensions]


def transposed_convolution(dimensions: int) -> Callable[..., nn.Module]:
    """Return torch's transposed convolution for 2 or 3 spatial dimensions."""
    return _TRANSPOSED[dimensions]


def make_norm(kind: str, channels: int) -> nn.Module:
    """Return the norm layer `kind`, one of NORMS, for features (B, channels, ...)."""
    if kind == "instance":
        return InstanceNorm(channels)
    if kind == "group":
        return GroupNorm(channels)
    return BatchNorm(channels, eps=NORM_EPSILON) if kind == "batch" else nn.Identity()


def make_activation(kind: str, channels: int) -> nn.Module:
    """Return the activation `kind`, one of ACTIVATIONS, for features (B, channels, ...)."""
    # In place: out of place, a full-resolution map takes nine times as long.
    if kind == "leaky_relu":
        return nn.LeakyReLU(NEGATIVE_SLOPE, inplace=True)
    if kind == "prelu":
        return nn.PReLU(channels)
    return nn.ReLU(inplace=True) if kind == "relu" else nn.ELU(inplace=True)


def make_pooling(stride: Sequence[int]) -> nn.Module:
    """Return max pooling by `stride` along each axis."""
    return nn.Identity() if prod(stride) == 1 else _POOLINGS[len(stride)](tuple(stride))


def make_average_pooling(stride: Sequence[int]) -> nn.Module:
    """Return average pooling by `stride` along each axis."""
    return nn.Identity() if prod(stride) == 1 else AveragePooling(stride)


def make_dropout(style: BlockStyle) -> nn.Module:
    """Return the layer that drops whole feature maps with the style's probability."""
    return _DROPOUTS[style.dimensions](style.dropout) if style.dropout else nn.Identity()


def make_head(in_channels: int, config: NetworkConfig) -> nn.Module:
    """Return the 1x1 convolution from features (B, in_channels, ...) to logits (B, K, ...)."""
    return convolution(config.dimensions)(in_channels, config.num_classes, 1)


class ConvBlock(nn.Module):
    """Convolution, norm, activation.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        style: Style shared by the network's blocks.
        kernel: Size along each axis, odd or equal to the stride; 3 by default.
        stride: Step along each axis; 1 by default.
        is_activated: End with the activation.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        style: BlockStyle,
        kernel: Sequence[int] = (),
        stride: Sequence[int] = (),
        is_activated: bool = True,
    ) -> None:
        super().__init__()
        kernel = tuple(kernel) or (3,) * style.dimensions
        self.conv = convolution(style.dimensions)(
            in_channels,
            out_channels,
            kernel,
            stride=tuple(stride) or 1,
            padding=tuple((size - 1) // 2 for size in kernel),
            bias=style.conv_bias,
        )
        self.norm = make_norm(style.norm, out_channels)
        self.activation = make_activation(style.activation, out_channels) if is_activated else nn.Identity()

    def forward(self, features: Tensor) -> Tensor:
        """Map features (B, in_channels, ...) to (B, out_channels, ... / stride)."""
        activated: Tensor = self.activation(self.norm(self.conv(features)))
        return activated


class Stage(nn.Module):
    """Consecutive blocks, the first optionally strided; a residual stage adds its input before the last activation.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        style: Style shared by the network's blocks.
        convs: Number of blocks.
        kernel: Odd size along each axis; 3 by default.
        stride: Step of the first block along each axis; 1 by default.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        style: BlockStyle,
        convs: int = 2,
        kernel: Sequence[int] = (),
        stride: Sequence[int] = (),
    ) -> None:
        super().__init__()
        self.blocks = nn.Sequential(
            *(
                ConvBlock(
                    in_channels if index == 0 else out_channels,
                    out_channels,
                    style=style,
                    kernel=kernel,
                    stride=stride if index == 0 else (),
                    is_activated=index < convs - 1 or not style.residual,
                )
                for index in range(convs)
            )
        )
        self.shortcut = make_shortcut(in_channels, out_channels, stride, style=style) if style.residual else None
        self.activation = make_activation(style.activation, out_channels) if style.residual else None
        self.dropout = make_dropout(style)

    def forward(self, features: Tensor) -> Tensor:
        """Map features (B, in_channels, ...) to (B, out_channels, ... / stride)."""
        result: Tensor = self.blocks(features)
        if self.shortcut is not None and self.activation is not None:
            result = self.activation(result + self.shortcut(features))
        dropped: Tensor = self.dropout(result)
        return dropped


def make_shortcut(in_channels: int, out_channels: int, stride: Sequence[int], *, style: BlockStyle) -> nn.Module:
    """Return the shortcut of a residual stage: the identity, or a strided 1x1 convolution if shapes differ."""
    if in_channels == out_channels and prod(stride) == 1:
        return nn.Identity()
    return ConvBlock(
        in_channels, out_channels, style=style, kernel=(1,) * style.dimensions, stride=stride, is_activated=False
    )


class UpSample(nn.Module):
    """Up-sampling by a stride: a transposed convolution whose kernel is the stride, or interpolation.

    Args:
        in_channels: Channels of the coarser features.
        out_channels: Channels of the finer result; "linear" has no weights and keeps `in_channels`.
        style: Style shared by the network's blocks.
        stride: Factor along each axis.
        mode: One of UPSAMPLINGS; "nearest_conv" interpolates and then applies a 3x3 block.
        bias: The transposed convolution has a bias.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        style: BlockStyle,
        stride: Sequence[int],
        mode: str = "transposed",
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.stride = tuple(float(step) for step in stride)
        self.out_channels = in_channels if mode == "linear" else out_channels
        self.interpolation = {"linear": LINEAR_MODES[style.dimensions], "nearest_conv": "nearest"}.get(mode)
        self.conv: nn.Module = nn.Identity()
        if mode == "transposed":
            step = tuple(stride)
            self.conv = _TRANSPOSED[style.dimensions](in_channels, out_channels, step, stride=step, bias=bias)
        elif mode == "nearest_conv":
            self.conv = ConvBlock(in_channels, out_channels, style=style)

    def forward(self, features: Tensor) -> Tensor:
        """Map features (B, in_channels, ...) to (B, out_channels, ... * stride)."""
        if self.interpolation:
            align = False if self.interpolation != "nearest" else None
            features = F.interpolate(
                features, scale_factor=list(self.stride), mode=self.interpolation, align_corners=align
            )
        result: Tensor = self.conv(features)
        return result


def without_residual(style: BlockStyle) -> BlockStyle:
    """Return the style without residual stages."""
    return replace(style, residual=False)


def initialise_weights(network: nn.Module) -> None:
    """Draw convolution weights for leaky rectifiers and set their biases to zero (He et al. 2015, arXiv:1502.01852)."""
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.ConvTranspose3d)):
            nn.init.kaiming_normal_(module.weight, a=NEGATIVE_SLOPE)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
