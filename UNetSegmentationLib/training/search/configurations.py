"""Configurations worth training on a data set, and the choice among them.

Reporting the best of several on the cases it was chosen on is biased: it is partly the luckiest. Cross-fitting avoids
this bias: one half of the subjects is used for the choice, the other for the figure, and vice versa.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import prod, sqrt
from typing import Any

import numpy as np

from ...core.json_dataclass import JsonOutput
from ...evaluation.postprocess_choice import LEAST_GAIN, in_halves
from ...planning.configurations import CONFIGURATION_LINES
from ...planning.fingerprint import Fingerprint
from ...planning.plan import Plan
from ...planning.planner import FEWEST_SLICES, SMALLEST_SHARE, SMALLEST_SLICE, coarse_axis, size_at, target_spacing_mm


@dataclass(frozen=True, kw_only=True)
class ConfigurationChoice(JsonOutput):
    """The chosen configuration, and the figures of all.

    Attributes:
        chosen: Name of the chosen one.
        subjects: Number of persons used for the choice.
        cross_fitted: Mean Dice on one half of the subjects of the choice made on the other; None for one subject.
        rows: For each: "name", "mean_dice" (over subjects), "behind" (mean difference to the best), "error" (its
            standard error; None for one subject), "is_tie", "operations_per_mm3", "is_chosen".
    """

    chosen: str
    subjects: int
    cross_fitted: float | None
    rows: tuple[dict[str, Any], ...]


def sensible_configurations(fingerprint: Fingerprint, plan: Plan) -> dict[str, str]:
    """Return the configurations worth training, each with the reason.

    Args:
        fingerprint: Fingerprint of the data set.
        plan: Plan of "full".
    """
    reasons = {"full": CONFIGURATION_LINES["full"]}
    if plan.dimensions != 3:
        return reasons
    share = prod(plan.patch_size) / prod(size_at(fingerprint, plan.spacing_mm))
    if share < SMALLEST_SHARE:
        reasons["low"] = f"a patch at full resolution shows only {share:.1%} of the image"
    depth, height, width = size_at(fingerprint, target_spacing_mm(fingerprint))
    if min(height, width) >= SMALLEST_SLICE:
        if coarse_axis(fingerprint) == 0:
            reasons["slices"] = "axial slices are much farther apart than their pixels"
        elif depth < 2 * FEWEST_SLICES:
            reasons["slices"] = f"there are only {depth} slices"
    return reasons


def choose_configuration(scores: Mapping[str, Mapping[str, float]], costs: Mapping[str, float]) -> ConfigurationChoice:
    """Return the best configuration; of those equally good within the noise, the cheapest.

    Equally good: behind the best by at most the standard error of the mean paired difference, or by less than
    LEAST_GAIN.

    Args:
        scores: Mean Dice by configuration and subject; the same subjects for each.
        costs: Cost of each on an image.
    """
    subjects = sorted(next(iter(scores.values())))
    chosen, rows = _choose(scores, costs, subjects)
    return ConfigurationChoice(
        chosen=chosen, subjects=len(subjects), rows=tuple(rows), cross_fitted=_cross_fitted(scores, costs, subjects)
    )


def _choose(
    scores: Mapping[str, Mapping[str, float]], costs: Mapping[str, float], subjects: Iterable[str]
) -> tuple[str, list[dict[str, Any]]]:
    table = {name: np.array([entries[subject] for subject in subjects]) for name, entries in scores.items()}
    best = min(table, key=lambda name: (-table[name].mean(), costs[name], name))
    rows: list[dict[str, Any]] = []
    for name, values in table.items():
        behind = table[best] - values
        error = float(behind.std(ddof=1) / sqrt(len(behind))) if len(behind) > 1 else None
        rows.append(
            {
                "name": name,
                "mean_dice": round(float(values.mean()), 4),
                "behind": round(float(behind.mean()), 4),
                "error": None if error is None else round(error, 4),
                "is_tie": bool(behind.mean() <= max(LEAST_GAIN, error or 0.0)),
                "operations_per_mm3": round(costs[name]),
            }
        )
    ties = [row for row in rows if row["is_tie"]]
    chosen = str(min(ties, key=lambda row: (costs[row["name"]], row["behind"], row["name"]))["name"])
    return chosen, [{**row, "is_chosen": row["name"] == chosen} for row in rows]


def _cross_fitted(
    scores: Mapping[str, Mapping[str, float]], costs: Mapping[str, float], subjects: list[str]
) -> float | None:
    if len(subjects) < 2:
        return None
    halves = in_halves(subjects)
    measured = []
    for choosing, measuring in (halves, halves[::-1]):
        chosen, _ = _choose(scores, costs, choosing)
        measured += [scores[chosen][subject] for subject in measuring]
    return round(float(np.mean(measured)), 4)
