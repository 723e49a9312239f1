"""Dice plus cross-entropy, the usual choice for volumes (Isensee et al. 2021, doi:10.1038/s41592-020-01008-z)."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import ClassVar

from torch import Tensor

from .contract import LOSSES, LossConfig, SegmentationLoss
from .cross_entropy import CrossEntropyLoss
from .dice import DiceConfig, DiceLoss


@dataclass(frozen=True, kw_only=True)
class DiceCrossEntropyConfig(DiceConfig):
    """Options of the sum; those of the Dice loss apply to its Dice part.

    Attributes:
        dice_weight: Factor of the Dice loss.
        cross_entropy_weight: Factor of the cross-entropy.
    """

    dice_weight: float = 1.0
    cross_entropy_weight: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        factors = (self.dice_weight, self.cross_entropy_weight)
        self.require(
            min(factors) >= 0 and max(factors) > 0, f"the two weights are {factors}: must be 0 or more, not both 0"
        )


@LOSSES.register("dice_cross_entropy", title="Dice and cross-entropy")
class DiceCrossEntropyLoss(SegmentationLoss):
    """Weighted sum of the Dice loss and the cross-entropy."""

    Config: ClassVar[type[DiceCrossEntropyConfig]] = DiceCrossEntropyConfig
    config: DiceCrossEntropyConfig

    def __init__(self, config: LossConfig | None = None) -> None:
        super().__init__(config)
        self.dice = DiceLoss(_part(self.config, DiceConfig))
        self.cross_entropy = CrossEntropyLoss(_part(self.config, LossConfig))

    @property
    def is_mean_over_images(self) -> bool:
        """Whether both parts are."""
        return self.dice.is_mean_over_images and self.cross_entropy.is_mean_over_images

    def compare(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the loss of logits (B, K, ...) for labels (B, ...)."""
        dice = self.dice.compare(logits, target)
        return self.config.dice_weight * dice + self.config.cross_entropy_weight * self.cross_entropy.compare(
            logits, target
        )


def _part(config: LossConfig, kind: type[LossConfig]) -> LossConfig:
    """Return the options of `config` that `kind` has."""
    names = {field.name for field in fields(kind)}
    return kind(**{name: value for name, value in asdict(config).items() if name in names})
