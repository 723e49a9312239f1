"""Measures against forgetting: replayed patches, a pull towards the initial weights, distillation."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..networks import SegmentationNetwork
from ..training.loop import ExtraLoss
from ..training.patches import Patches

DISTILLATION_WEIGHT = 1.0


def loss_of_change(
    network: SegmentationNetwork, device: torch.device, *, pull: float, teacher: SegmentationNetwork | None = None
) -> ExtraLoss:
    """Return a loss term that penalises changes of a network.

    Args:
        network: Network before training.
        device: Device of the training.
        pull: Weight of the squared distance to its weights.
        teacher: If given, its predictions are distilled.
    """
    start = {name: value.detach().clone().to(device) for name, value in network.named_parameters()}
    teacher = None if teacher is None else deepcopy(teacher).to(device).eval()

    def extra_loss(
        network: SegmentationNetwork, image: Tensor, outputs: Tensor | list[Tensor], labels: Tensor
    ) -> Tensor:
        loss = pull * squared_distance(network, start)
        if teacher is not None:
            with torch.no_grad():
                answer = teacher(image)
            finest = outputs if isinstance(outputs, Tensor) else outputs[0]
            loss = loss + DISTILLATION_WEIGHT * distillation_loss(finest, answer, labels)
        return loss

    return extra_loss


def distillation_loss(logits: Tensor, parent_logits: Tensor, labels: Tensor) -> Tensor:
    """Return the cross-entropy to the parent's probabilities, over the voxels where the labels do not contradict them.

    Args:
        logits: (B, K, ...) of the network.
        parent_logits: (B, K, ...) of the parent.
        labels: Class numbers (B, ...), -1 for unlabelled voxels.
    """
    losses = F.cross_entropy(logits.float(), parent_logits.float().softmax(dim=1), reduction="none")
    counted = (labels < 0) | (labels == parent_logits.argmax(dim=1))
    return (losses * counted).sum() / counted.sum().clamp(min=1)


def squared_distance(network: nn.Module, start: dict[str, Tensor]) -> Tensor:
    """Return the sum of squared differences of all weights to the initial ones (L2-SP, arXiv:1802.01483)."""
    terms = [(value - start[name]).square().sum() for name, value in network.named_parameters() if value.requires_grad]
    return torch.stack(terms).sum()


class MixedPatches:
    """Batches combined from several sources.

    Args:
        sources: Each provides its part of every batch.
    """

    def __init__(self, sources: Sequence[Patches]) -> None:
        self._sources = sources

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """Return images (B, C, ...) and class numbers (B, ...) of a step."""
        images, labels = zip(*(source.batch(step) for source in self._sources), strict=True)
        return torch.cat(images), torch.cat(labels)

    def close(self) -> None:
        """Close the sources."""
        for source in self._sources:
            source.close()
