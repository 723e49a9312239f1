"""Fused layers for prediction on the CPU: same weights, same values, fewer passes over memory.

Features are channels-last. A norm and its activation process blocks that fit in the cache and overwrite the
convolution's output: of 32 x 64^3 features 9 ms instead of 58 (one thread, AVX2).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...networks.parts.blocks import NORM_EPSILON, ConvBlock, InstanceNorm
from ...networks.parts.memory_format import FORMATS
from .network_copy import copy_network

BLOCK_BYTES = 2**20  # per thread; the fastest of 128 KiB to 1 MiB
_CONVOLUTIONS = (nn.Conv2d, nn.Conv3d)
_TRANSPOSED = (nn.ConvTranspose2d, nn.ConvTranspose3d)

InPlace = Callable[[Tensor], Any]


def fused_copy(network: nn.Module) -> nn.Module:
    """Return a copy made of the layers below that shares the weights of `network`, which is not changed.

    Args:
        network: In evaluation mode, float32, on the CPU.
    """
    return copy_network(network, replace=_fused)


def _fused(module: nn.Module) -> nn.Module | None:
    """Return the replacement for one layer or block, or None to keep it."""
    if type(module) is ConvBlock and isinstance(module.norm, InstanceNorm) and _is_plain(module.conv):
        activate = _in_place(module.activation)
        if activate is not None:
            return FusedBlock(FusedConvolution(module.conv), module.norm, activate)
    if isinstance(module, _CONVOLUTIONS) and _is_plain(module):
        return FusedConvolution(module)
    if isinstance(module, _TRANSPOSED) and _is_tiling(module):
        return FusedTransposed(module)
    return FusedNorm(module) if type(module) is InstanceNorm else None


def _is_plain(convolution: nn.Module) -> bool:
    # Exactly these types: a subclass may compute something else.
    return (
        isinstance(convolution, _CONVOLUTIONS)
        and type(convolution) in _CONVOLUTIONS
        and convolution.padding_mode == "zeros"
        and not isinstance(convolution.padding, str)
    )


def _is_tiling(convolution: nn.Module) -> bool:
    """Return whether every output voxel of a transposed convolution depends on one input voxel."""
    return (
        isinstance(convolution, _TRANSPOSED)
        and type(convolution) in _TRANSPOSED
        and convolution.kernel_size == convolution.stride
        and convolution.groups == 1
        and not any((*convolution.padding, *convolution.output_padding))
        and set(convolution.dilation) == {1}
    )


def _in_place(activation: nn.Module) -> InPlace | None:
    """Return the in-place version of an activation, or None."""
    if isinstance(activation, nn.LeakyReLU):
        slope = activation.negative_slope
        return lambda features: F.leaky_relu_(features, slope)
    if isinstance(activation, nn.ELU):
        alpha = activation.alpha
        return lambda features: F.elu_(features, alpha)
    if isinstance(activation, nn.ReLU):
        return torch.relu_
    return (lambda _: None) if type(activation) is nn.Identity else None


class FusedConvolution(nn.Module):
    """A oneDNN convolution; torch's choice for small maps is up to seven times slower."""

    def __init__(self, convolution: nn.Module) -> None:
        super().__init__()
        assert isinstance(convolution, _CONVOLUTIONS)
        self.format = FORMATS[convolution.weight.ndim]
        self.weight = nn.Parameter(convolution.weight.detach().contiguous(memory_format=self.format), False)
        self.bias = convolution.bias
        assert not isinstance(convolution.padding, str)
        self.geometry = (convolution.padding, convolution.stride, convolution.dilation, convolution.groups)

    def forward(self, features: Tensor) -> Tensor:
        """Map features (B, C, ...) to (B, C', ...), channels-last."""
        features = features.contiguous(memory_format=self.format)
        convolved: Tensor = torch.mkldnn_convolution(features, self.weight, self.bias, *self.geometry)
        return convolved.contiguous(memory_format=self.format)


class FusedTransposed(nn.Module):
    """A transposed convolution whose kernel is its stride: one matrix product per slab, written in place."""

    def __init__(self, convolution: nn.Module) -> None:
        super().__init__()
        assert isinstance(convolution, _TRANSPOSED)
        weight = convolution.weight.detach()
        self.kernel = tuple(convolution.kernel_size)
        self.out_channels = convolution.out_channels
        self.matrix = nn.Parameter(weight.movedim(1, -1).flatten(1).contiguous(), False)
        bias = weight.new_zeros(self.out_channels) if convolution.bias is None else convolution.bias.detach()
        self.bias = nn.Parameter(bias.repeat(prod(self.kernel)), False)

    def forward(self, features: Tensor) -> Tensor:
        """Map features (B, C, ...) to (B, C', ... * kernel), channels-last."""
        size, dimensions = features.shape[2:], len(self.kernel)
        memory_format = FORMATS[features.ndim]
        out_size = [extent * step for extent, step in zip(size, self.kernel, strict=True)]
        result = torch.empty(
            (len(features), self.out_channels, *out_size), dtype=features.dtype, memory_format=memory_format
        )
        slabs = features.contiguous(memory_format=memory_format).movedim(1, -1).flatten(0, 1)
        steps = [length for pair in zip(size, self.kernel, strict=True) for length in pair]
        # (B * D, kernel of D, H, kernel of H, ..., C'): each slab's part of the result.
        places = result.movedim(1, -1).view(len(slabs), *steps[1:], self.out_channels)
        # From (H, W, kernel of D, H, W, C') to the order of `places`.
        order = [dimensions - 1]
        for axis in range(dimensions - 1):
            order += [axis, dimensions + axis]
        for slab, place in zip(slabs, places, strict=True):
            rows = torch.addmm(self.bias, slab.flatten(0, -2), self.matrix)
            place.copy_(rows.view(*size[1:], *self.kernel, self.out_channels).permute(*order, 2 * dimensions - 1))
        return result


class FusedNorm(nn.Module):
    """Instance norm that does not overwrite its input."""

    def __init__(self, norm: InstanceNorm) -> None:
        super().__init__()
        self.weight, self.bias = norm.weight, norm.bias

    def forward(self, features: Tensor) -> Tensor:
        """Map features (B, C, ...) to the same shape, channels-last."""
        features = features.clone(memory_format=FORMATS[features.ndim])
        return normalise_(features, self.weight, self.bias)


class FusedBlock(nn.Module):
    """Convolution, instance norm and activation, the last two at once."""

    def __init__(self, convolution: FusedConvolution, norm: InstanceNorm, activate: InPlace) -> None:
        super().__init__()
        self.conv = convolution
        self.weight, self.bias = norm.weight, norm.bias
        self.activate = activate

    def forward(self, features: Tensor) -> Tensor:
        """Map features (B, C, ...) to (B, C', ...), channels-last."""
        return normalise_(self.conv(features), self.weight, self.bias, activate=self.activate)


def normalise_(
    features: Tensor, weight: Tensor, bias: Tensor, *, activate: InPlace | None = None, eps: float = NORM_EPSILON
) -> Tensor:
    """Apply instance norm and activation in place to channels-last features (B, C, ...).

    Each block is centred before squaring, and the blocks are merged as in Chan et al. (1979), so that no precision is
    lost if the mean is large compared to the deviation.

    Args:
        features: float32, on the CPU.
        weight: Scale (C).
        bias: Shift (C).
        activate: Applies the activation in place to a part of the features.
        eps: Added to the variance.
    """
    samples = features.movedim(1, -1).flatten(1, -2)
    _, voxels, channels = samples.shape
    block = max(1, BLOCK_BYTES * torch.get_num_threads() // (channels * features.element_size()))
    for rows in samples:
        parts = rows.split(block)
        mean, variance = _moments(parts)
        scale = weight * torch.rsqrt(variance / voxels + eps)
        shift = torch.addcmul(bias, mean, scale, value=-1)
        for part in parts:
            torch.addcmul(shift, part, scale, out=part)
            if activate is not None:
                activate(part)
    return features


def _moments(parts: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Return mean (C) and sum of squared deviations (C) of all rows of the parts (n, C)."""
    scratch = torch.empty_like(parts[0])
    sizes = scratch.new_tensor([len(part) for part in parts])[:, None]
    means = scratch.new_empty((len(parts), scratch.shape[1]))
    squares = torch.empty_like(means)
    for index, part in enumerate(parts):
        torch.mean(part, 0, out=means[index])
        deviation = torch.sub(part, means[index], out=scratch[: len(part)])
        torch.sum(deviation.square_(), 0, out=squares[index])
    mean = (means * sizes).sum(0) / sizes.sum()
    return mean, squares.sum(0) + (sizes * (means - mean).square()).sum(0)
