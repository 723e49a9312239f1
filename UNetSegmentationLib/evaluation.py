"""How good a model is on cases with a reference."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import isfinite
from time import perf_counter
from typing import Any

from .dataset import Case, read_case
from .metrics import evaluate_case
from .prediction import Predictor


@dataclass(frozen=True, kw_only=True)
class CaseFigures:
    """Figures of one case: per label value, metric by name; and the seconds that the prediction took."""

    case: str
    labels: dict[int, dict[str, float]]
    duration_s: float


def evaluate(predictor: Predictor, cases: Sequence[Case]) -> Iterator[CaseFigures]:
    """Segment each case and compare it with its reference on the reference's own grid.

    Raises:
        InputError: A case cannot be read or does not fit the model.
    """
    values = [label.value for label in predictor.description.labels]
    for case in cases:
        volume, reference = read_case(case)
        began = perf_counter()
        result = predictor.segment(volume)
        duration_s = perf_counter() - began
        figures = evaluate_case(result.labelmap, reference.array[0], values, volume.spacing_mm)
        yield CaseFigures(case=case.id, labels=figures, duration_s=duration_s)


def figures_of_model(predictor: Predictor, results: Sequence[CaseFigures]) -> dict[str, Any]:
    """Return the means over cases for a model's description: {"cases": n, "labels": {name: {metric: mean}}}."""
    labels: dict[str, dict[str, float]] = {}
    for label in predictor.description.labels:
        rows = [result.labels[label.value] for result in results]
        labels[label.name] = {name: _mean([row[name] for row in rows]) for name in rows[0]} if rows else {}
    return {"cases": len(results), "labels": labels}


def _mean(values: Sequence[float]) -> float:
    """Return the mean of the defined values, rounded for reading; 0 where none is defined."""
    defined = [value for value in values if isfinite(value)]
    return round(sum(defined) / len(defined), 4) if defined else 0.0
