"""Figures of a trained model on held-back cases, with the post-processing chosen on them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from math import prod
from pathlib import Path
from time import perf_counter

import numpy as np
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from ..cases.dataset import Case, read_case
from ..core.event_log import TrainingRecord
from ..core.task import UNWATCHED, Task
from ..core.tensor_files import atomic_tensor_file
from ..image.labels import Label
from ..image.volume_io import read_labelmap
from ..inference.predictor import Predictor
from ..models.description import ModelDescription
from .cases import CaseFigures, figures_of_model
from .postprocess_choice import (
    FEWEST_SUBJECTS,
    PredictedCase,
    agreement_of,
    choose_postprocess,
    component_volumes_mm3,
    figures_with,
    mean_by_subject,
    smallest_volume_mm3,
)


@dataclass(frozen=True, kw_only=True)
class TrainedModel:
    """A model with its weights written, to be evaluated.

    Attributes:
        folder: Model folder.
        device: "auto", "cpu", "cuda" or "mps".
        chooses_postprocess: Try post-processing on the held-back cases.
        description: Without figures.
        training_cases: Cases it was trained on.
        held_back: Cases it has not seen.
        record: Record of the events.
    """

    folder: Path
    device: str
    chooses_postprocess: bool
    description: ModelDescription
    training_cases: Sequence[Case]
    held_back: Sequence[Case]
    record: TrainingRecord


def measure_trained(model: TrainedModel, task: Task = UNWATCHED) -> ModelDescription:
    """Return the description of a trained model with its figures and chosen post-processing.

    Args:
        model: Trained model.
        task: Told the events of predict_cases and describe_figures, and often checked for cancellation.

    Raises:
        InputError: A case cannot be read or does not fit the model.
        CancelledError: The task was cancelled.
    """
    found = predict_cases(Predictor(model.folder, device=model.device), model.held_back, task)
    return describe_figures(
        model.description,
        found,
        model.record,
        training_cases=model.training_cases,
        chooses_postprocess=model.chooses_postprocess,
        task=task,
    )


FOUND_FILE = "found.safetensors"


def predict_cases(predictor: Predictor, cases: Sequence[Case], task: Task = UNWATCHED) -> list[PredictedCase]:
    """Segment each case without post-processing; return predictions and references, packed.

    Args:
        predictor: Predictor of the model.
        cases: To segment.
        task: Gets {"event": "segmented", "case": ..., "number": ..., "of": ...} for each case, and often checked
            for cancellation.

    Raises:
        InputError: A case cannot be read or does not fit the model.
        CancelledError: The task was cancelled.
    """
    packed = []
    for number, case in enumerate(cases, start=1):
        volume, reference = read_case(case)
        began = perf_counter()
        found = predictor.segment(volume, postprocess=(), task=task.observed_by(None)).labelmap
        packed.append(
            PredictedCase.pack(
                found,
                reference.array[0],
                case=case.id,
                subject=case.subject,
                spacing_mm=volume.spacing_mm,
                duration_s=perf_counter() - began,
            )
        )
        task.report({"event": "segmented", "case": case.id, "number": number, "of": len(cases)})
    return packed


def describe_figures(
    description: ModelDescription,
    found: Sequence[PredictedCase],
    record: TrainingRecord,
    *,
    training_cases: Sequence[Case],
    chooses_postprocess: bool,
    task: Task = UNWATCHED,
) -> ModelDescription:
    """Return the description with the figures of the predictions after the chosen steps.

    Args:
        description: Description of the model.
        found: Predictions of all held-back cases, without post-processing.
        record: Gets the choice and the figures of every case.
        training_cases: Determine the smallest expected component.
        chooses_postprocess: Try steps; otherwise the figures are those of the network alone.
        task: Gets {"event": "read", ...} for each training case, and the events of choose_postprocess and measure;
            checked for cancellation before each case.

    Raises:
        CancelledError: The task was cancelled.
    """
    figures = {}
    if chooses_postprocess:
        # Radiographs rarely have a known pixel size: there are no volumes to compare.
        smallest = None
        if not description.plan.longest_side:
            smallest = _smallest_volume_of(training_cases, found, task)
        choice = choose_postprocess(found, description.labels, min_volume_mm3=smallest, task=task)
        description = replace(description, postprocess=choice.steps)
        figures["postprocess"] = choice.to_dict()
    results = measure(found, description, task)
    # Not earlier: work cancelled before this point is repeated.
    for name, entry in figures.items():
        record.append({"event": name, **entry})
    for result in results:
        record.append({"event": "evaluation", **asdict(result)})
    return replace(description, figures={**figures_of_model(description.labels, results), **figures})


def measure(found: Sequence[PredictedCase], description: ModelDescription, task: Task = UNWATCHED) -> list[CaseFigures]:
    """Return the figures of every case after the model's own steps.

    Args:
        found: Predictions without post-processing.
        description: Provides labels and steps.
        task: Gets {"event": "measured", "case": ..., "number": ..., "of": ...} for each case, and checked for
            cancellation before each.

    Raises:
        CancelledError: The task was cancelled.
    """
    values = [label.value for label in description.labels]
    results = []
    for case, figures in figures_with(found, values, description.postprocess):
        task.check()
        results.append(CaseFigures(case=case.case, labels=figures, duration_s=case.duration_s))
        task.report({"event": "measured", "case": case.case, "number": len(results), "of": len(found)})
    return results


def scores_by_subject(found: Sequence[PredictedCase], labels: Sequence[Label]) -> dict[str, float]:
    """Return the mean Dice over labels by subject, 1 for a label in neither map."""
    scores = {
        case.case: float(np.mean(list(agreement_of(figures).values())))
        for case, figures in figures_with(found, [label.value for label in labels], (), with_surfaces=False)
    }
    return mean_by_subject(found, scores)


def save_predicted(path: Path, cases: Sequence[PredictedCase]) -> None:
    """Write predictions, so that they need not be computed again."""
    about = [case.to_dict() for case in cases]
    tensors = {str(index): np.frombuffer(case.packed, np.uint8) for index, case in enumerate(cases)}
    with atomic_tensor_file(path) as temporary:
        save_file(tensors, temporary, metadata={"cases": json.dumps(about)})


def load_predicted(path: Path) -> list[PredictedCase]:
    """Read the predictions of save_predicted."""
    with safe_open(path, framework="np") as file:
        about = json.loads(file.metadata()["cases"])
    tensors = load_file(path)
    return [PredictedCase.from_dict(entry, packed=tensors[str(index)].tobytes()) for index, entry in enumerate(about)]


def _smallest_volume_of(cases: Sequence[Case], found: Sequence[PredictedCase], task: Task) -> float | None:
    """Return the smallest volume in the references of training cases, or None if too few cases were held back."""
    if len({case.subject for case in found}) < FEWEST_SUBJECTS:
        return None
    references, largest_voxel_mm3 = [], 0.0
    for number, case in enumerate(cases, start=1):
        task.check()
        volume = read_labelmap(case.labels)
        references.append(component_volumes_mm3(volume.array[0], volume.spacing_mm))
        largest_voxel_mm3 = max(largest_voxel_mm3, prod(volume.spacing_mm))
        task.report({"event": "read", "case": case.id, "number": number, "of": len(cases)})
    return smallest_volume_mm3(references, largest_voxel_mm3=largest_voxel_mm3)
