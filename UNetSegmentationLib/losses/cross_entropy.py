"""Cross-entropy; binary cross-entropy of every output for regions or sigmoids."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from .contract import IGNORED, LOSSES, SegmentationLoss, weighted_mean


@LOSSES.register("cross_entropy", title="Cross-entropy")
class CrossEntropyLoss(SegmentationLoss):
    """Mean over voxels of the negative log-probability of the true class, weighted by class.

    Regions and sigmoids: mean over voxels and outputs, weighted by output.
    """

    @property
    def is_mean_over_images(self) -> bool:
        """Not with class weights, which are normalised over all voxels of a batch."""
        return not self.config.class_weights

    def compare(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the loss of logits (B, K, ...) for labels (B, ...)."""
        if not self.is_exclusive:
            return self._compare_outputs(logits, target)
        is_counted = target != IGNORED
        if self.config.class_weights:
            weights = self.weights_like(logits)
            counted = (weights[target.clamp(min=0)] * is_counted).sum()
        else:
            weights, counted = None, is_counted.sum().to(logits)
        total = F.cross_entropy(logits, target, weight=weights, ignore_index=IGNORED, reduction="sum")
        return total / counted.where(counted > 0, counted.new_ones(()))

    def _compare_outputs(self, logits: Tensor, target: Tensor) -> Tensor:
        scores = self.output_logits(logits)
        truth = self.membership(target, logits.shape[1]).to(scores)
        losses = F.binary_cross_entropy_with_logits(scores, truth, reduction="none")
        weights = self.weights_like(scores).view(1, -1, *(1,) * (target.ndim - 1))
        return weighted_mean(losses, weights * (target != IGNORED).unsqueeze(1))
