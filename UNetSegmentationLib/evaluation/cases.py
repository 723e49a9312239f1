"""Evaluation of a model on cases with a reference."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import isfinite
from time import perf_counter
from typing import Any

from ..cases.dataset import Case, read_case
from ..image.labels import Label
from ..inference.predictor import Predictor
from .metrics import evaluate_case, summarize


@dataclass(frozen=True, kw_only=True)
class CaseFigures:
    """Figures of one case: metrics by label value and name, and the prediction time in seconds."""

    case: str
    labels: dict[int, dict[str, float]]
    duration_s: float


def evaluate(predictor: Predictor, cases: Sequence[Case]) -> Iterator[CaseFigures]:
    """Segment each case and compare it with its reference on the grid of its image.

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


def figures_of_model(labels: Sequence[Label], results: Sequence[CaseFigures]) -> dict[str, Any]:
    """Return the figures for a model's description.

    Returns:
        {"cases": n, "labels": {name: {metric: mean over the cases where it is finite}}}; a metric without any finite
        value is omitted.
    """
    summary = summarize(result.labels for result in results)
    means = {
        label.name: {
            name: round(row["finite_mean"], 4)
            for name, row in summary.get(label.value, {}).items()
            if isfinite(row["finite_mean"])
        }
        for label in labels
    }
    return {"cases": len(results), "labels": means}
