"""Parts shared by Dice and Tversky: soft counts of hits, predicted and true voxels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from torch import Tensor

from ..contract import IGNORED, LossConfig, SegmentationLoss


@dataclass(frozen=True, kw_only=True)
class OverlapConfig(LossConfig):
    """Options of overlap losses.

    Attributes:
        include_background: Whether output 0 counts; regions always count.
        is_batch_wise: Count over the whole batch instead of each image, which stabilises small and absent classes.
        smooth: Added to numerator and denominator; above 0, so that an output absent from both scores 0.
    """

    include_background: bool = False
    is_batch_wise: bool = False
    smooth: float = 1e-5

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(self.smooth > 0, f"smooth is {self.smooth}: must be above 0")


class SoftCounts(NamedTuple):
    """Soft counts (B, R), or (1, R) batch-wise, and their weights of the same shape."""

    hits: Tensor
    predicted: Tensor
    true: Tensor
    weights: Tensor


class OverlapLoss(SegmentationLoss):
    """A loss that is a function of soft counts."""

    Config: ClassVar[type[OverlapConfig]] = OverlapConfig
    config: OverlapConfig

    @property
    def is_mean_over_images(self) -> bool:
        """Unless counts are taken over the batch."""
        return not self.config.is_batch_wise

    def count(self, logits: Tensor, target: Tensor, *, power: int = 1) -> SoftCounts:
        """Return the soft counts of logits (B, K, ...) for labels (B, ...); predictions are raised to `power`."""
        is_counted = (target != IGNORED).unsqueeze(1)
        probabilities = self.probabilities(logits)
        # As numbers: products with booleans, and `where` even more, take twice as long forward and backward.
        truth = self.membership(target, logits.shape[1]).to(probabilities)
        axes = tuple(range(2, logits.ndim))
        axes = (0, *axes) if self.config.is_batch_wise else axes
        powers = probabilities if power == 1 else probabilities**power
        predicted = (powers * is_counted).sum(axes)
        hits = (probabilities * truth).sum(axes)
        true = truth.sum(axes)
        # An image without counted voxels must not dilute the mean.
        has_voxels = is_counted.sum(axes).view(-1, 1) > 0
        # Slice the sums rather than the maps, which would be copied.
        first = 0 if self.config.include_background or self.config.regions else 1
        hits, predicted, true = (sums.view(-1, truth.shape[1])[:, first:] for sums in (hits, predicted, true))
        weights = self.weights_like(probabilities)[first:] * has_voxels
        return SoftCounts(hits=hits, predicted=predicted, true=true, weights=weights)
