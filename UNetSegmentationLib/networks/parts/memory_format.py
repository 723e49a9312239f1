"""Channels-last features on the CPU, where convolutions on them are faster, and an instance norm that preserves them.

torch's instance norm converts channels-last features to channels-first, so that every convolution after it pays for
converting them back.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

FORMATS = {4: torch.channels_last, 5: torch.channels_last_3d}


def is_channels_last(features: Tensor) -> bool:
    """Return whether features (B, C, ...) are channels-last in memory, and not also contiguous."""
    return (
        features.ndim in FORMATS
        and not features.is_contiguous()
        and features.is_contiguous(memory_format=FORMATS[features.ndim])
    )


def to_channels_last(network: nn.Module) -> None:
    """Convert a network's weights to channels-last."""
    _lay_out(network, is_last=True)


def to_channels_first(network: nn.Module) -> None:
    """Convert a network's weights to torch's default layout."""
    _lay_out(network, is_last=False)


def _lay_out(network: nn.Module, *, is_last: bool) -> None:
    # Module.to(memory_format=...) takes one format for all and rejects networks with both 2D and 3D tensors.
    for tensor in (*network.parameters(), *network.buffers()):
        if tensor.ndim in FORMATS:
            chosen = FORMATS[tensor.ndim] if is_last else torch.contiguous_format
            tensor.data = tensor.data.contiguous(memory_format=chosen)


def channels_last_instance_norm(features: Tensor, weight: Tensor, bias: Tensor, *, eps: float) -> Tensor:
    """Apply instance norm to channels-last features (B, C, ...) on the CPU; the result is channels-last too.

    Args:
        features: With at least two voxels.
        weight: Scale (C).
        bias: Shift (C).
        eps: Added to the variance.
    """
    if features.dtype in (torch.float32, torch.float64):
        normed: Tensor = _ChannelsLastNorm.apply(features, weight, bias, eps)  # type: ignore[no-untyped-call]
        return normed
    # torch's batch norm takes half-precision features with float32 statistics and keeps the format; batches are small.
    samples = [
        F.batch_norm(sample[None], None, None, weight, bias, training=True, momentum=0.0, eps=eps)
        for sample in features
    ]
    return torch.cat(samples).contiguous(memory_format=FORMATS[features.ndim])


class _ChannelsLastNorm(torch.autograd.Function):
    """Instance norm in few passes; sums over voxels are matrix products, faster than torch's reductions."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
        voxels = _as_rows(features)
        centred = torch.empty_like(features)
        rows = torch.sub(voxels, voxels.mean(1, keepdim=True), out=_as_rows(centred))
        variance = _products(rows, rows) / rows.shape[1]
        inverse = torch.rsqrt(variance + eps)
        normed = torch.empty_like(features)
        torch.addcmul(bias, rows, inverse * weight, out=_as_rows(normed))
        ctx.save_for_backward(centred, inverse, weight)
        return normed

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        centred, inverse, weight = ctx.saved_tensors
        rows = _as_rows(centred)
        incoming = _as_rows(gradients[0].contiguous(memory_format=FORMATS[centred.ndim]))
        scale = weight * inverse
        of_bias = incoming.sum(1, keepdim=True)
        of_weight = _products(incoming, rows) * inverse
        outgoing = torch.empty_like(centred)
        torch.addcmul(-scale * of_bias / rows.shape[1], incoming, scale, out=_as_rows(outgoing))
        _as_rows(outgoing).addcmul_(rows, -scale * inverse * of_weight / rows.shape[1])
        return outgoing, of_weight.sum((0, 1)), of_bias.sum((0, 1)), None


def _as_rows(features: Tensor) -> Tensor:
    """View channels-last features (B, C, ...) as (B, voxels, C)."""
    return features.movedim(1, -1).flatten(1, -2)


def _products(left: Tensor, right: Tensor) -> Tensor:
    """Return the sum over voxels of the product of two (B, voxels, C), as (B, 1, C)."""
    return torch.bmm(left.transpose(1, 2), right).diagonal(dim1=1, dim2=2).unsqueeze(1)
