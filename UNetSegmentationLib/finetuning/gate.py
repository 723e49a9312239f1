"""The gate: compares a model with its successor on cases unseen by both, and decides if it may replace it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from math import isfinite, nan
from typing import Any

import numpy as np
import torch

from ..cases.dataset import Case
from ..core.task import UNWATCHED, Task
from ..evaluation.metrics import dice
from ..image.geometry import Array
from ..models.description import ModelDescription
from ..networks import SegmentationNetwork
from ..planning.plan import Plan
from ..training.prepared_case import PreparedCase, predict_case

# Measured at 1 to 4 corrected cases: with replay, Dice on the original images drops by 0.01 to 0.03.
LARGEST_SENTINEL_DROP = 0.03
LEAST_LOCAL_GAIN = 0.005
LARGEST_LOCAL_DROP = 0.05
LEAST_NOT_WORSE = 0.6
HELD_BACK_ONE_IN = 3
VERDICTS = ("better", "worse", "not validated")


@dataclass(frozen=True, kw_only=True)
class GateRow:
    """One case under both models.

    Attributes:
        group: "sentinel" (a crop of the parent's training images) or "local" (a held-back case).
        case: Its name.
        old: Dice of the parent by class number; NaN if the class is in neither map.
        new: Dice of the successor, likewise.
        is_newly_empty: The successor segments nothing although the parent did.
    """

    group: str
    case: str
    old: dict[int, float]
    new: dict[int, float]
    is_newly_empty: bool = False

    @property
    def old_mean(self) -> float:
        """Mean of the parent's finite Dice; NaN without one."""
        return _mean(self.old.values())

    @property
    def new_mean(self) -> float:
        """Mean of the successor's finite Dice; NaN without one."""
        return _mean(self.new.values())

    @property
    def change(self) -> float:
        """Gain of the successor."""
        return self.new_mean - self.old_mean


def hold_back(cases: Sequence[Case], parent: ModelDescription) -> list[Case]:
    """Return the held-back local cases: those of a third of the subjects, none for fewer than 3 subjects.

    A case keeps its role across fine-tunings: training cases of an ancestor are never held back, held-back cases stay
    held back; others are chosen by a hash of their subject, so that adding cases does not move any.
    """
    trained = set(parent.training.get("local_cases", ()))
    kept = set(parent.training.get("held_back_local_cases", ()))
    subjects = {case.subject for case in cases}
    if len(subjects) < HELD_BACK_ONE_IN:
        return []
    seen = {case.subject for case in cases if case.id in trained}
    chosen = {case.subject for case in cases if case.id in kept} - seen
    for subject in sorted(subjects - seen - chosen, key=_hash_of):
        if len(chosen) >= len(subjects) // HELD_BACK_ONE_IN:
            break
        chosen.add(subject)
    return [case for case in cases if case.subject in chosen] if chosen != subjects else []


def compare_models(
    old: SegmentationNetwork,
    new: SegmentationNetwork,
    groups: dict[str, Sequence[PreparedCase]],
    plan: Plan,
    *,
    device: torch.device,
    task: Task = UNWATCHED,
) -> list[GateRow]:
    """Segment every case with both networks, on the network's grid; voxels of class -1 do not count.

    Args:
        old: The parent, in evaluation mode.
        new: The successor, in evaluation mode.
        groups: Cases by "sentinel" and "local".
        plan: Plan of both.
        device: Device to compute on.
        task: Gets {"event": "compared", "case": ..., "number": ..., "of": ...} for each case, and checked for
            cancellation before each.

    Raises:
        CancelledError: The task was cancelled.
    """
    rows: list[GateRow] = []
    count = sum(map(len, groups.values()))
    for group, cases in groups.items():
        for case in cases:
            task.check("cancelled while comparing the models; continue with --resume")
            found = [_classes(network.to(device), case, plan) for network in (old, new)]
            truth = case.labels.numpy()
            values = range(1, old.config.num_classes)
            before, after = ({value: _dice(classes, truth, value) for value in values} for classes in found)
            rows.append(
                GateRow(
                    group=group,
                    case=case.id,
                    old=before,
                    new=after,
                    is_newly_empty=bool(found[0].any() and not found[1].any()),
                )
            )
            task.report({"event": "compared", "case": case.id, "number": len(rows), "of": count})
    return rows


def judge(rows: Sequence[GateRow]) -> dict[str, Any]:
    """Return the gate's verdict for a model's figures.

    Returns:
        "verdict" (one of VERDICTS), "reasons" (sentences), "sentinel" and "local" (cases, means, worst change; None
        without cases), and "table" with a row for every case.
    """
    groups = {
        name: [row for row in rows if row.group == name and isfinite(row.change)] for name in ("sentinel", "local")
    }
    faults = [*_sentinel_faults(groups["sentinel"]), *_local_faults(groups["local"])]
    empty = [row.case for row in rows if row.is_newly_empty]
    if empty:
        faults.append(f"nothing is segmented any more in {', '.join(empty)}")
    unknown = [f"there is no {what} to compare on" for name, what in _GROUPS.items() if not groups[name]]
    verdict = VERDICTS[1] if faults else VERDICTS[2] if unknown else VERDICTS[0]
    return {
        "verdict": verdict,
        "reasons": faults + unknown,
        **{name: _summary(entries) for name, entries in groups.items()},
        "table": [_plain(row) for row in rows],
    }


_GROUPS = {"sentinel": "crop of the parent's training images", "local": "held-back local case"}


def _sentinel_faults(rows: Sequence[GateRow]) -> list[str]:
    drop = -_mean([row.change for row in rows])
    if not rows or drop <= LARGEST_SENTINEL_DROP:
        return []
    return [f"Dice on the parent's images drops by {drop:.3f}, more than {LARGEST_SENTINEL_DROP}"]


def _local_faults(rows: Sequence[GateRow]) -> list[str]:
    if not rows:
        return []
    changes = [row.change for row in rows]
    faults = []
    if _mean(changes) < LEAST_LOCAL_GAIN:
        faults.append(f"Dice on the local cases changes by {_mean(changes):+.3f}, less than {LEAST_LOCAL_GAIN:+}")
    share = sum(change >= 0 for change in changes) / len(changes)
    if share < LEAST_NOT_WORSE:
        faults.append(f"only {share:.0%} of the local cases are not worse, less than {LEAST_NOT_WORSE:.0%}")
    worst = min(rows, key=lambda row: row.change)
    if worst.change < -LARGEST_LOCAL_DROP:
        faults.append(f"Dice drops by {-worst.change:.3f} on {worst.case}, more than {LARGEST_LOCAL_DROP}")
    return faults


def _summary(rows: Sequence[GateRow]) -> dict[str, Any] | None:
    if not rows:
        return None
    return {
        "cases": len(rows),
        "old": round(_mean([row.old_mean for row in rows]), 4),
        "new": round(_mean([row.new_mean for row in rows]), 4),
        "worst_change": round(min(row.change for row in rows), 4),
    }


def _plain(row: GateRow) -> dict[str, Any]:
    entry = asdict(row)
    for name in ("old", "new"):
        entry[name] = {str(value): round(d, 4) if isfinite(d) else None for value, d in entry[name].items()}
    return entry


def _classes(network: SegmentationNetwork, case: PreparedCase, plan: Plan) -> Array:
    logits = predict_case(network.eval(), case, plan)
    found: Array = logits.argmax(dim=0).to(torch.int16).cpu().numpy()
    return found


def _dice(found: Array, truth: Array, value: int) -> float:
    is_known = truth >= 0
    return dice((found == value) & is_known, truth == value)


def _mean(values: Any) -> float:
    finite = [value for value in values if isfinite(value)]
    return float(np.mean(finite)) if finite else nan


def _hash_of(subject: str) -> str:
    return sha256(subject.encode("utf-8")).hexdigest()
