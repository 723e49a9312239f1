"""Tversky loss (Salehi et al. 2017, arXiv:1706.05721) and its focal form (Abraham & Khan 2018, arXiv:1810.07842)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from .contract import LOSSES, weighted_mean
from .parts.overlap import OverlapConfig, OverlapLoss


@dataclass(frozen=True, kw_only=True)
class TverskyConfig(OverlapConfig):
    """Options of the Tversky loss.

    Attributes:
        false_positive_weight: Cost of a false positive (alpha in the paper); 0.5 and 0.5 give the Dice loss.
        false_negative_weight: Cost of a false negative (beta); larger than alpha, fewer small structures are missed.
        gamma: Exponent of the loss of every output, at least 1; 4/3 gives the focal Tversky loss.
    """

    false_positive_weight: float = 0.3
    false_negative_weight: float = 0.7
    gamma: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        costs = (self.false_positive_weight, self.false_negative_weight)
        self.require(
            min(costs) >= 0 and max(costs) > 0, f"the error weights are {costs}: must be 0 or more, not both 0"
        )
        self.require(self.gamma >= 1, f"gamma is {self.gamma}: must be at least 1, gradients are infinite below")


@LOSSES.register("tversky", title="Tversky")
class TverskyLoss(OverlapLoss):
    """1 - hits / (hits + alpha false positives + beta misses), averaged over outputs and images."""

    Config: ClassVar[type[TverskyConfig]] = TverskyConfig
    config: TverskyConfig

    def compare(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the loss of logits (B, K, ...) for labels (B, ...)."""
        options, counts = self.config, self.count(logits, target)
        # Rounding can make a difference of sums slightly negative, which a power would turn into NaN.
        false_alarms = (counts.predicted - counts.hits).clamp(min=0)
        misses = (counts.true - counts.hits).clamp(min=0)
        errors = options.false_positive_weight * false_alarms + options.false_negative_weight * misses
        losses = errors / (counts.hits + errors + options.smooth)
        return weighted_mean(losses**options.gamma, counts.weights)
