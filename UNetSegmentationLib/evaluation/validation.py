"""Entries of a validation event in the training log."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..core.event_log import plain
from .metrics import summarize


def describe_validation(cases: Mapping[str, Mapping[int, Mapping[str, float]]]) -> dict[str, Any]:
    """Return the entries of a validation event.

    Args:
        cases: Results of `metrics.evaluate_case` by case name.

    Returns:
        "cases": {case: {label: {metric: value}}}; "labels": {label: {metric: mean over the finite values}};
        "undefined": {label: {metric: number of cases without a finite value}}. Labels are strings, as in JSON.
    """
    summary = summarize(cases.values())
    means = {str(label): {name: row["finite_mean"] for name, row in rows.items()} for label, rows in summary.items()}
    undefined = {
        str(label): {name: int(row["undefined"] + row["infinite"]) for name, row in rows.items()}
        for label, rows in summary.items()
    }
    by_case = {case: {str(label): dict(figures) for label, figures in labels.items()} for case, labels in cases.items()}
    return {"cases": plain(by_case), "labels": plain(means), "undefined": undefined}
