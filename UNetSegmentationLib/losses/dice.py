"""Soft Dice loss (Milletari et al. 2016, arXiv:1606.04797)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from .contract import LOSSES, weighted_mean
from .parts.overlap import OverlapConfig, OverlapLoss


@dataclass(frozen=True, kw_only=True)
class DiceConfig(OverlapConfig):
    """Options of the Dice loss.

    Attributes:
        is_squared: Probabilities are squared in the denominator, as in V-Net's paper.
    """

    is_squared: bool = False


@LOSSES.register("dice", title="Dice")
class DiceLoss(OverlapLoss):
    """1 - 2 hits / (predicted + true), averaged over outputs and images (or over outputs, batch-wise)."""

    Config: ClassVar[type[DiceConfig]] = DiceConfig
    config: DiceConfig

    def compare(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the loss of logits (B, K, ...) for labels (B, ...)."""
        counts = self.count(logits, target, power=2 if self.config.is_squared else 1)
        smooth = self.config.smooth
        overlap = (2 * counts.hits + smooth) / (counts.predicted + counts.true + smooth)
        return weighted_mean(1 - overlap, counts.weights)
