"""Batch norm with statistics over the batch of all processes that train together (see processes)."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ...networks.parts.blocks import BatchNorm


def take_statistics_together(network: nn.Module) -> None:
    """Replace every batch norm by one with statistics over all processes; names and weights are kept."""
    for module in network.modules():
        for name, child in module.named_children():
            if isinstance(child, nn.modules.batchnorm._BatchNorm) and not isinstance(child, SharedBatchNorm):
                shared = SharedBatchNorm(child.num_features, eps=child.eps, momentum=child.momentum)
                shared.weight, shared.bias = child.weight, child.bias
                for buffer in ("running_mean", "running_var", "num_batches_tracked"):
                    setattr(shared, buffer, getattr(child, buffer))
                setattr(module, name, shared.train(child.training))


class SharedBatchNorm(BatchNorm):
    """Batch norm over the batch of all processes, on any device (torch's SyncBatchNorm supports CUDA only)."""

    def forward(self, input: Tensor) -> Tensor:
        """Map features (B, C, ...) to the same shape."""
        if not self.training or not dist.is_initialized():
            return super().forward(input)
        features = input if input.dtype == torch.float64 else input.float()
        axes, shape = (0, *range(2, input.ndim)), (1, -1, *(1,) * (input.ndim - 2))
        values = features.new_tensor([features.numel() / features.shape[1]])
        total = _SumOverProcesses.apply(torch.cat([features.sum(axes), values]))  # type: ignore[no-untyped-call]
        count = total[-1].detach()
        mean = total[:-1] / count
        centred = features - mean.view(shape)
        # In a second pass: the mean of squares minus the square of the mean loses precision.
        variance = _SumOverProcesses.apply(centred.square().sum(axes)) / count  # type: ignore[no-untyped-call]
        self._follow(mean.detach(), variance.detach(), count)
        normal = centred * (variance + self.eps).rsqrt().view(shape)
        scaled: Tensor = normal * self.weight.view(shape) + self.bias.view(shape)
        return scaled.to(input.dtype)

    @torch.no_grad()
    def _follow(self, mean: Tensor, variance: Tensor, count: Tensor) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        share = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean.to(self.running_mean), share)
        self.running_var.lerp_((variance * count / (count - 1)).to(self.running_var), share)


class _SumOverProcesses(torch.autograd.Function):
    """The sum of a tensor over all processes; each process's loss depends on every process's tensor."""

    @staticmethod
    def forward(_context: Any, values: Tensor) -> Tensor:
        total = values.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(_context: Any, gradient: Tensor) -> Tensor:
        total = gradient.clone()
        dist.all_reduce(total)
        return total
