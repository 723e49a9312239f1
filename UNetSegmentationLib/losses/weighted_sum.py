"""Weighted sum of registered losses, given as a table."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, cast

from torch import Tensor, nn

from ..core.json_dataclass import JsonDataclass
from .contract import LOSSES, LossConfig, SegmentationLoss


@dataclass(frozen=True, kw_only=True)
class Term(JsonDataclass):
    """One row of the table: the name of a loss, its factor, and its options."""

    loss: str
    weight: float = 1.0
    options: dict[str, Any] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, kw_only=True)
class WeightedSumConfig(LossConfig):
    """Options of a sum; the ignored label, class weights, regions and activation hold for every term.

    Attributes:
        terms: Rows of the table. JSON gives each as an object:
            {"loss": "boundary", "weight": 0.01, "options": {"spacing_mm": [3, 1, 1]}}.
    """

    terms: tuple[Term, ...] = (Term(loss="dice"), Term(loss="focal"))

    def __post_init__(self) -> None:
        super().__post_init__()
        weights = [term.weight for term in self.terms]
        self.require(bool(weights), "terms is empty: name at least one loss")
        self.require(min(weights) >= 0 and max(weights) > 0, f"weights are {weights}: must be 0 or more, not all 0")
        shared = {entry.name for entry in fields(LossConfig)}
        for term in self.terms:
            twice = sorted(shared & set(term.options))
            self.require(not twice, f"term '{term.loss}' sets {', '.join(twice)}: set it once, for the whole sum")

    def config_of(self, term: Term) -> LossConfig:
        """Return the configuration of one term's loss: the shared options and its own."""
        shared = {entry.name: getattr(self, entry.name) for entry in fields(LossConfig)}
        return LOSSES[term.loss].Config.from_dict(shared | term.options)


@LOSSES.register("weighted_sum", title="Weighted sum")
class WeightedSumLoss(SegmentationLoss):
    """Sum over the terms of factor times loss."""

    Config: ClassVar[type[WeightedSumConfig]] = WeightedSumConfig
    config: WeightedSumConfig

    def __init__(self, config: LossConfig | None = None) -> None:
        super().__init__(config)
        terms = self.config.terms
        self.losses = nn.ModuleList(LOSSES[term.loss](self.config.config_of(term)) for term in terms)

    @property
    def is_mean_over_images(self) -> bool:
        """Whether every term is."""
        return all(cast(SegmentationLoss, loss).is_mean_over_images for loss in self.losses)

    def compare(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the loss of logits (B, K, ...) for labels (B, ...)."""
        total = logits.new_zeros(())
        for term, loss in zip(self.config.terms, self.losses, strict=True):
            total = total + term.weight * cast(SegmentationLoss, loss).compare(logits, target)
        return total
