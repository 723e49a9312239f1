"""Boundary loss (Kervadec et al. 2019, arXiv:1812.07032)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..core.errors import InputError
from .contract import IGNORED, LOSSES, LossConfig, SegmentationLoss, weighted_mean
from .parts.distance_map import signed_distance


@dataclass(frozen=True, kw_only=True)
class BoundaryConfig(LossConfig):
    """Options of the boundary loss.

    Attributes:
        spacing_mm: Size of a voxel along (D, H, W) or (H, W). Empty: 1 mm along every axis.
        include_background: Whether output 0 counts; regions always count.
    """

    spacing_mm: tuple[float, ...] = ()
    include_background: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "spacing_mm", tuple(self.spacing_mm))
        self.require(all(s > 0 for s in self.spacing_mm), f"spacing_mm is {self.spacing_mm}: must be above 0")


@LOSSES.register("boundary", title="Boundary")
class BoundaryLoss(SegmentationLoss):
    """Mean of probability times signed distance in mm to the true boundary; negative if most of it lies inside.

    It pulls the boundary in from afar but is nearly blind to the size of an object, so use it as the smaller part of
    a sum, for instance with Dice. Outputs that are absent from an image, or fill it, have no boundary and score 0.
    Ignored voxels count as outside in the distance maps.
    """

    Config: ClassVar[type[BoundaryConfig]] = BoundaryConfig
    config: BoundaryConfig

    @property
    def is_mean_over_images(self) -> bool:
        """It is."""
        return True

    def compare(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the loss of logits (B, K, ...) for labels (B, ...)."""
        spacing_mm = self.config.spacing_mm or (1.0,) * (target.ndim - 1)
        if len(spacing_mm) != target.ndim - 1:
            raise InputError(f"spacing_mm is {spacing_mm} for {target.ndim - 1} axes: must be one number per axis")
        probabilities = self.probabilities(logits)
        truth = self.membership(target, logits.shape[1])
        weights = self.weights_like(probabilities)
        if not self.config.include_background and not self.config.regions:
            probabilities, truth, weights = probabilities[:, 1:], truth[:, 1:], weights[1:]
        with torch.no_grad():
            distances_mm = signed_distance(truth, spacing_mm).to(probabilities)
        weights = weights.view(1, -1, *(1,) * (target.ndim - 1)) * (target != IGNORED).unsqueeze(1)
        return weighted_mean(probabilities * distances_mm, weights)
