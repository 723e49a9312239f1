"""What Dice and Tversky share: soft counts of hits, predicted and true voxels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from torch import Tensor

from .contract import IGNORED, LossConfig, SegmentationLoss


@dataclass(frozen=True, kw_only=True)
class OverlapConfig(LossConfig):
    """Options of losses of overlap.

    Attributes:
        include_background: Whether output 0 counts; regions always count.
        is_batch_wise: Counts run over the whole batch instead of each image, which steadies small and absent classes.
        smooth: Added to numerator and denominator; above 0, so that an output absent from both sides scores 0.
    """

    include_background: bool = False
    is_batch_wise: bool = False
    smooth: float = 1e-5

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(self.smooth > 0, f"smooth is {self.smooth}: give a number above 0")


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

    def count(self, logits: Tensor, target: Tensor, *, power: int = 1) -> SoftCounts:
        """Return the soft counts of logits (B, K, ...) for labels (B, ...); predictions count to the `power`."""
        is_counted = target != IGNORED
        probabilities = self.probabilities(logits)
        truth = self.membership(target, logits.shape[1])
        weights = self.weights_like(probabilities)
        if not self.config.include_background and not self.config.regions:
            probabilities, truth, weights = probabilities[:, 1:], truth[:, 1:], weights[1:]
        axes = tuple(range(2, logits.ndim))
        axes = (0, *axes) if self.config.is_batch_wise else axes
        predicted = (probabilities**power * is_counted.unsqueeze(1)).sum(axes)
        hits = (probabilities * truth).sum(axes)
        # An image without a counted voxel says nothing, hence must not dilute the mean.
        has_voxels = is_counted.unsqueeze(1).sum(axes) > 0
        shape = (-1, len(weights))
        return SoftCounts(
            hits=hits.view(shape),
            predicted=predicted.view(shape),
            true=truth.sum(axes).to(predicted).view(shape),
            weights=weights * has_voxels.view(-1, 1),
        )
