"""Focal loss (Lin et al. 2017, arXiv:1708.02002)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from .contract import IGNORED, LOSSES, LossConfig, SegmentationLoss, weighted_mean


@dataclass(frozen=True, kw_only=True)
class FocalConfig(LossConfig):
    """Options of the focal loss.

    Attributes:
        gamma: How strongly well-classified voxels are down-weighted: 0 is cross-entropy, else at least 1.
    """

    gamma: float = 2.0

    def __post_init__(self) -> None:
        super().__post_init__()
        holds = self.gamma == 0 or self.gamma >= 1
        self.require(holds, f"gamma is {self.gamma}: must be 0 or at least 1, gradients are infinite in between")


@LOSSES.register("focal", title="Focal")
class FocalLoss(SegmentationLoss):
    """Cross-entropy of every voxel times (1 - p)^gamma, where p is the probability of the true class.

    Class weights play the role of the paper's alpha: a voxel counts with the weight of its class, and the sum is
    divided by the weights. Regions and sigmoids: mean over voxels and outputs.
    """

    Config: ClassVar[type[FocalConfig]] = FocalConfig
    config: FocalConfig

    @property
    def is_mean_over_images(self) -> bool:
        """Not with class weights, which are normalised over all voxels of a batch."""
        return not self.config.class_weights

    def compare(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the loss of logits (B, K, ...) for labels (B, ...)."""
        is_counted = target != IGNORED
        if self.is_exclusive:
            losses = F.cross_entropy(logits, target, ignore_index=IGNORED, reduction="none")
            weights = self.weights_like(logits)[target.clamp(min=0)] * is_counted
        else:
            scores = self.output_logits(logits)
            truth = self.membership(target, logits.shape[1]).to(scores)
            losses = F.binary_cross_entropy_with_logits(scores, truth, reduction="none")
            weights = self.weights_like(scores).view(1, -1, *(1,) * (target.ndim - 1)) * is_counted.unsqueeze(1)
        # For p near 1, 1 - p would be lost to rounding; expm1 keeps it.
        errors = -torch.expm1(-losses)
        return weighted_mean(errors**self.config.gamma * losses, weights)
