"""Weighted sum of any registered losses, as a table says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar, cast

from torch import Tensor, nn

from .contract import LOSSES, LossConfig, SegmentationLoss


@dataclass(frozen=True, kw_only=True)
class Term:
    """One row of the table: the name of a loss, its factor, and the options that only it has."""

    loss: str
    weight: float = 1.0
    options: tuple[tuple[str, Any], ...] = ()


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
        object.__setattr__(self, "terms", tuple(self._term(row) for row in self.terms))
        weights = [term.weight for term in self.terms]
        self.require(bool(weights), "terms is empty: name at least one loss")
        self.require(min(weights) >= 0 and max(weights) > 0, f"weights are {weights}: give 0 or more, not all 0")
        shared = {field.name for field in fields(LossConfig)}
        for term in self.terms:
            twice = sorted(shared & {name for name, _ in term.options})
            self.require(not twice, f"term '{term.loss}' sets {', '.join(twice)}: set it once, for the whole sum")

    def _term(self, row: Term | Mapping[str, Any]) -> Term:
        if isinstance(row, Term):
            return row
        known = {field.name for field in fields(Term)}
        unknown = sorted(set(row) - known)
        self.require(not unknown, f"a term has no entry {', '.join(unknown)}: choose from {', '.join(sorted(known))}")
        self.require("loss" in row, f"term {dict(row)} names no loss: add one of the table")
        options = dict(row.get("options", {}))
        return Term(
            loss=row["loss"],
            weight=float(row.get("weight", 1.0)),
            options=tuple((name, _frozen(value)) for name, value in options.items()),
        )

    def config_of(self, term: Term) -> LossConfig:
        """Return the configuration of one term's loss: the shared options and its own."""
        shared = {field.name: getattr(self, field.name) for field in fields(LossConfig)}
        return LOSSES[term.loss].Config.from_dict(shared | dict(term.options))

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON; `from_dict` restores an equal configuration."""
        rows = [{"loss": t.loss, "weight": t.weight, "options": dict(t.options)} for t in self.terms]
        return super().to_dict() | {"terms": rows}


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
        """Where every term is."""
        return all(cast(SegmentationLoss, loss).is_mean_over_images for loss in self.losses)

    def compare(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the loss of logits (B, K, ...) for labels (B, ...)."""
        total = logits.new_zeros(())
        for term, loss in zip(self.config.terms, self.losses, strict=True):
            total = total + term.weight * cast(SegmentationLoss, loss).compare(logits, target)
        return total


def _frozen(value: Any) -> Any:
    """Return `value` with lists turned to tuples, which keeps the configuration hashable."""
    return tuple(_frozen(part) for part in value) if isinstance(value, list) else value
