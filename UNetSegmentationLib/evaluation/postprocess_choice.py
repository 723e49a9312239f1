"""Post-processing chosen on held-back cases, as nnU-Net does (doi:10.1038/s41592-020-01008-z).

A step is tried on the predictions, on top of the steps chosen before it. It is chosen if no label that it changes has a
lower mean Dice and one gains at least LEAST_GAIN, over all subjects and in each of two halves of them: an improvement
by chance in one half rarely repeats in the other.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite, prod
from typing import Any

import numpy as np

from ..core.json_dataclass import NOT_STORED, OMITTED_AT_DEFAULT, JsonDataclass, JsonOutput
from ..core.task import UNWATCHED, Task
from ..image.labels import Label
from ..postprocess import apply_steps
from ..postprocess.contract import Labelmap
from ..postprocess.parts.components import find_boxes, find_components, join_boxes
from .metrics import evaluate_case

# Figures have three decimals: a smaller gain would not show.
LEAST_GAIN = 0.001
# With fewer than four per half, a single case decides a half.
FEWEST_SUBJECTS = 8
# Annotators leave stray voxels: a twentieth of the components may be smaller than the limit.
SMALL_PERCENTILE = 5
_ROUNDING = 1e-9
_PACKED = np.dtype("<u2")


@dataclass(frozen=True, kw_only=True)
class PredictedCase(JsonDataclass):
    """Prediction and reference of a case, both cropped to their content and packed.

    Attributes:
        case: Name of the case.
        subject: Person it comes from.
        spacing_mm: Spacing (D, H, W).
        duration_s: Prediction time in seconds.
        shape: Size (D, H, W) of the box.
        packed: The two labelmaps of the box, compressed, as many cases stay in memory.
    """

    case: str
    subject: str
    spacing_mm: tuple[float, float, float]
    duration_s: float
    shape: tuple[int, int, int]
    packed: bytes = field(metadata=NOT_STORED)

    @classmethod
    def pack(
        cls,
        found: Labelmap,
        reference: Labelmap,
        *,
        case: str,
        subject: str,
        spacing_mm: tuple[float, float, float],
        duration_s: float = 0.0,
    ) -> PredictedCase:
        """Return the case of two labelmaps (D, H, W) with non-negative labels."""
        boxes = [box for labelmap in (found, reference) for _, box in find_boxes(labelmap)]
        # The margin distinguishes an object in one slice from a 2D image, and objects at the border from others.
        box = tuple(
            slice(max(0, part.start - 1), part.stop + 1)
            for part in (join_boxes(boxes) if boxes else (slice(1, 1),) * 3)
        )
        pair = np.stack([found[box], reference[box]]).astype(_PACKED)
        return cls(
            case=case,
            subject=subject,
            spacing_mm=spacing_mm,
            duration_s=duration_s,
            shape=(pair.shape[1], pair.shape[2], pair.shape[3]),
            packed=zlib.compress(pair.tobytes(), 1),
        )

    def unpack(self) -> tuple[Labelmap, Labelmap]:
        """Return prediction and reference, both (D, H, W)."""
        pair = np.frombuffer(zlib.decompress(self.packed), dtype=_PACKED).reshape(2, *self.shape)
        return pair[0], pair[1]


@dataclass(frozen=True, kw_only=True)
class PostprocessChoice(JsonOutput):
    """Steps that help, and all that were tried.

    Attributes:
        steps: Chosen steps as text, in order.
        cases: Number of cases used for the choice.
        subjects: Number of persons they come from.
        tried: For each step and label that it changes: "step", "label", "gain" (of mean Dice over subjects), "halves"
            (the same in each half), "is_chosen"; None if nothing was tried.
        reason: Why nothing was tried, or "".
        dice_before: Mean Dice by label without steps, labels without any value omitted; None if nothing was tried.
    """

    steps: tuple[str, ...]
    cases: int
    subjects: int
    tried: tuple[dict[str, Any], ...] | None = field(default=None, metadata=OMITTED_AT_DEFAULT)
    reason: str = field(default="", metadata=OMITTED_AT_DEFAULT)
    dice_before: Mapping[str, float] | None = field(default=None, metadata=OMITTED_AT_DEFAULT)


def choose_postprocess(
    cases: Sequence[PredictedCase],
    labels: Sequence[Label],
    *,
    min_volume_mm3: float | None = None,
    task: Task = UNWATCHED,
) -> PostprocessChoice:
    """Return the steps that help on held-back cases.

    Tried in this order: the largest component of all labels as one object, the largest component of each label (chosen
    per label), removal of components below `min_volume_mm3`, filling of holes.

    Args:
        cases: Predictions of the network alone, on subjects it has not seen.
        labels: Labels of the model.
        min_volume_mm3: Smallest expected component, see smallest_volume_mm3; None skips removal.
        task: Gets {"event": "compared", "case": ..., "number": ..., "of": ...} for each case and step, and checked for
            cancellation before each.

    Raises:
        CancelledError: The task was cancelled.
    """
    subjects = sorted({case.subject for case in cases})
    if len(subjects) < FEWEST_SUBJECTS:
        reason = (
            f"{len(subjects)} subjects were held back; fewer than {FEWEST_SUBJECTS} cannot tell a step that helps from "
            "chance"
        )
        return PostprocessChoice(steps=(), cases=len(cases), subjects=len(subjects), reason=reason)
    trial = _Trial(cases, labels, subjects, task)
    trial.begin()
    values = [label.value for label in labels]
    if len(values) > 1:
        trial.attempt("keep_largest_component:regions=" + "+".join(map(str, values)))
    kept = trial.attempt_by_label("keep_largest_component", lambda value: f"keep_largest_component:regions={value}")
    if kept:
        regions = "/".join(map(str, kept))
        trial.keep("keep_largest_component" if kept == values else f"keep_largest_component:regions={regions}")
    if min_volume_mm3:
        trial.attempt(f"remove_small:min_volume_mm3={min_volume_mm3:g}")
    trial.attempt("fill_holes")
    return PostprocessChoice(
        steps=tuple(trial.steps),
        cases=len(cases),
        subjects=len(subjects),
        tried=tuple(trial.tried),
        dice_before=trial.before,
    )


def component_volumes_mm3(labelmap: Labelmap, spacing_mm: Sequence[float]) -> dict[int, list[float]]:
    """Return the volumes of the components of every label."""
    return {
        label: (find_components(labelmap[box] == label)[1][1:] * prod(spacing_mm)).tolist()
        for label, box in find_boxes(labelmap)
    }


def smallest_volume_mm3(references: Sequence[dict[int, list[float]]], *, largest_voxel_mm3: float) -> float | None:
    """Return the volume that hardly any component of any label falls below, from component volumes of references.

    It is the SMALL_PERCENTILE-th percentile of the label whose components are smallest, to two digits; None if that
    is a single voxel, below which there is nothing to remove.
    """
    volumes: dict[int, list[float]] = {}
    for reference in references:
        for label, components in reference.items():
            volumes.setdefault(label, []).extend(components)
    if not volumes:
        return None
    smallest = min(float(np.percentile(rows, SMALL_PERCENTILE)) for rows in volumes.values())
    return float(f"{smallest:.2g}") if smallest > (1 + _ROUNDING) * largest_voxel_mm3 else None


def in_halves(subjects: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the subjects in two halves of nearly equal size, deterministic for the same subjects."""
    ordered = sorted(set(subjects))
    shuffled = [ordered[index] for index in np.random.default_rng(0).permutation(len(ordered))]
    return shuffled[::2], shuffled[1::2]


Scores = dict[str, dict[int, float]]


class _Trial:
    """Cases after the steps chosen so far, and the record of all steps tried."""

    def __init__(
        self,
        cases: Sequence[PredictedCase],
        labels: Sequence[Label],
        subjects: Sequence[str],
        task: Task,
    ) -> None:
        self._cases = cases
        self._task = task
        self._labels = {label.value: label.name for label in labels}
        self._halves = in_halves(subjects)
        self.steps: list[str] = []
        self.tried: list[dict[str, Any]] = []
        self.before: dict[str, float] = {}
        self._scores: Scores = {}

    def begin(self) -> None:
        """Evaluate the cases without any step."""
        self._scores = self._scores_with()
        means = {name: self._mean_of(self._scores, value) for value, name in self._labels.items()}
        self.before = {name: round(mean, 4) for name, mean in means.items() if isfinite(mean)}

    def attempt(self, step: str) -> None:
        """Try a step on all labels at once, and keep it if it helps."""
        scores = self._scores_with(step)
        rows = [self._row(value, scores) for value in self._labels]
        changed = [row for row in rows if row is not None]
        is_chosen = all(_is_not_worse(row) for row in changed) and any(_is_better(row) for row in changed)
        self._note(step, changed, lambda _: is_chosen)
        if is_chosen:
            self.keep(step, scores)

    def attempt_by_label(self, step: str, name_of: Callable[[int], str]) -> list[int]:
        """Try a step that treats labels independently, and return the labels for which it helps."""
        scores = self._scores_with(step)
        changed = {value: row for value in self._labels if (row := self._row(value, scores)) is not None}
        for value, row in changed.items():
            self._note(name_of(value), [row], _is_better)
        if not changed:
            self._note(step, [], _is_better)
        return [value for value, row in changed.items() if _is_better(row)]

    def keep(self, step: str, scores: Scores | None = None) -> None:
        """Keep a step for all further trials."""
        self.steps.append(step)
        self._scores = scores or self._scores_with()

    def _note(self, step: str, rows: Sequence[dict[str, Any]], is_chosen: Callable[[dict[str, Any]], bool]) -> None:
        if not rows:
            self.tried.append({"step": step, "label": None, "gain": 0.0, "halves": [0.0, 0.0], "is_chosen": False})
        for row in rows:
            figures = {"gain": round(row["gain"], 4), "halves": [round(gain, 4) for gain in row["halves"]]}
            self.tried.append({"step": step, "label": row["label"], **figures, "is_chosen": is_chosen(row)})

    def _row(self, value: int, scores: Scores) -> dict[str, Any] | None:
        """Return the gain of other scores in the mean Dice of a label, or None if they are equal."""
        gains = {case: figures[value] - self._scores[case][value] for case, figures in scores.items()}
        if not any(gains.values()):
            return None
        by_subject = mean_by_subject(self._cases, gains)
        halves = [float(np.mean([by_subject[subject] for subject in half])) for half in self._halves]
        return {
            "label": self._labels[value],
            "gain": float(np.mean(list(by_subject.values()))),
            "halves": halves,
        }

    def _scores_with(self, *more: str) -> Scores:
        """Return Dice by case and label after the chosen steps and some more."""
        scores = {}
        for case, figures in figures_with(self._cases, self._labels, (*self.steps, *more), with_surfaces=False):
            self._task.check()
            scores[case.case] = agreement_of(figures)
            self._task.report({"event": "compared", "case": case.case, "number": len(scores), "of": len(self._cases)})
        return scores

    def _mean_of(self, scores: Scores, value: int) -> float:
        return float(
            np.mean(list(mean_by_subject(self._cases, {c: rows[value] for c, rows in scores.items()}).values()))
        )


def figures_with(
    cases: Iterable[PredictedCase], values: Iterable[int], steps: Sequence[str], *, with_surfaces: bool = True
) -> Iterator[tuple[PredictedCase, dict[int, dict[str, float]]]]:
    """Yield every case with its figures by label value after some steps."""
    values = list(values)
    for case in cases:
        found, reference = case.unpack()
        found = apply_steps(found, case.spacing_mm, steps)
        yield case, evaluate_case(found, reference, values, case.spacing_mm, with_surfaces=with_surfaces)


def agreement_of(figures: Mapping[int, Mapping[str, float]]) -> dict[int, float]:
    """Return Dice by label, 1 if neither map has the label, so that removing a false positive counts as a gain."""
    return {value: row["dice"] if isfinite(row["dice"]) else 1.0 for value, row in figures.items()}


def mean_by_subject(cases: Sequence[PredictedCase], values: Mapping[str, float]) -> dict[str, float]:
    """Return the mean over the cases of each subject of values by case."""
    gathered: dict[str, list[float]] = {}
    for case in cases:
        gathered.setdefault(case.subject, []).append(values[case.case])
    return {subject: float(np.mean(entries)) for subject, entries in gathered.items()}


def _is_not_worse(row: Mapping[str, Any]) -> bool:
    return _least_gain(row) >= -_ROUNDING


def _is_better(row: Mapping[str, Any]) -> bool:
    return _least_gain(row) >= LEAST_GAIN - _ROUNDING


def _least_gain(row: Mapping[str, Any]) -> float:
    """Return the smallest gain over all subjects and the halves."""
    return float(min(row["gain"], *row["halves"]))
