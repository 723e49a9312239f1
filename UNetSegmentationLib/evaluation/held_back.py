"""The figures of a trained model on the cases that it has not seen, with the post-processing that they ask for."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from math import prod
from pathlib import Path
from time import perf_counter

import numpy as np
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from ..cases.dataset import Case, read_case
from ..core.errors import CancelledError
from ..core.event_log import TrainingRecord
from ..core.events import Course
from ..core.tensor_files import atomic_tensor_file
from ..image.labels import Label
from ..image.volume_io import read_labelmap
from ..inference.predictor import Predictor
from ..models.description import ModelDescription
from .cases import CaseFigures, figures_of_model
from .postprocess_choice import (
    FEWEST_SUBJECTS,
    FoundCase,
    agreement_of,
    choose_postprocess,
    component_volumes_mm3,
    figures_with,
    mean_by_subject,
    smallest_volume_mm3,
)


@dataclass(frozen=True, kw_only=True)
class TrainedModel:
    """A model whose weights are written and that is to be measured.

    Attributes:
        folder: Model folder.
        device: "auto", "cpu", "cuda" or "mps".
        chooses_postprocess: Try post-processing on what was held back.
        description: Without figures.
        training_cases: What it learnt from.
        held_back: What it has not seen.
        record: Where events are kept.
    """

    folder: Path
    device: str
    chooses_postprocess: bool
    description: ModelDescription
    training_cases: Sequence[Case]
    held_back: Sequence[Case]
    record: TrainingRecord


def measure_trained(model: TrainedModel, is_cancelled: Callable[[], bool] = lambda: False) -> Course[ModelDescription]:
    """Return the description of a trained model with its figures and the post-processing that they ask for.

    Args:
        model: Whose weights are written.
        is_cancelled: Asked often.

    Yields:
        Events of find_in_cases and describe_figures.

    Raises:
        InputError: A case cannot be read or does not fit the model.
        CancelledError: `is_cancelled` said so.
    """
    found = yield from find_in_cases(Predictor(model.folder, device=model.device), model.held_back, is_cancelled)
    return (
        yield from describe_figures(
            model.description,
            found,
            model.record,
            training_cases=model.training_cases,
            chooses_postprocess=model.chooses_postprocess,
            is_cancelled=is_cancelled,
        )
    )


FOUND_FILE = "found.safetensors"


def find_in_cases(
    predictor: Predictor, cases: Sequence[Case], is_cancelled: Callable[[], bool] = lambda: False
) -> Course[list[FoundCase]]:
    """Segment each case without post-processing; return the results beside their references, packed.

    Args:
        predictor: Of the model.
        cases: To segment.
        is_cancelled: Asked often.

    Yields:
        {"event": "segmented", "case": ..., "number": ..., "of": ...} for each case.

    Raises:
        InputError: A case cannot be read or does not fit the model.
        CancelledError: `is_cancelled` said so.
    """
    packed = []
    for number, case in enumerate(cases, start=1):
        volume, reference = read_case(case)
        began = perf_counter()
        found = predictor.segment(volume, postprocess=(), is_cancelled=is_cancelled).labelmap
        packed.append(
            FoundCase.pack(
                found,
                reference.array[0],
                case=case.id,
                subject=case.subject,
                spacing_mm=volume.spacing_mm,
                duration_s=perf_counter() - began,
            )
        )
        yield {"event": "segmented", "case": case.id, "number": number, "of": len(cases)}
    return packed


def describe_figures(
    description: ModelDescription,
    found: Sequence[FoundCase],
    record: TrainingRecord,
    *,
    training_cases: Sequence[Case],
    chooses_postprocess: bool,
    is_cancelled: Callable[[], bool] = lambda: False,
) -> Course[ModelDescription]:
    """Return the description with the figures of what was found, after the steps that were chosen on it.

    Args:
        description: Of the model that found it.
        found: Every held-back case, without post-processing.
        record: Gets the choice and the figures of every case.
        training_cases: Tell how small a component may be.
        chooses_postprocess: Try steps; without it the figures are those of the network alone.
        is_cancelled: Asked before each case.

    Yields:
        {"event": "read", ...} for each training case, and the events of choose_postprocess and measure.

    Raises:
        CancelledError: `is_cancelled` said so.
    """
    figures = {}
    if chooses_postprocess:
        # Radiographs seldom tell the size of a pixel: there are no volumes to compare.
        smallest = None
        if not description.plan.longest_side:
            smallest = yield from _smallest_volume_of(training_cases, found, is_cancelled)
        choice = yield from choose_postprocess(
            found, description.labels, min_volume_mm3=smallest, is_cancelled=is_cancelled
        )
        description = replace(description, postprocess=choice.steps)
        figures["postprocess"] = choice.to_dict()
    results = yield from measure(found, description, is_cancelled)
    # Not before: what is cancelled so far is done again.
    for name, entry in figures.items():
        record.append({"event": name, **entry})
    for result in results:
        record.append({"event": "evaluation", **asdict(result)})
    return replace(description, figures={**figures_of_model(description.labels, results), **figures})


def measure(
    found: Sequence[FoundCase], description: ModelDescription, is_cancelled: Callable[[], bool] = lambda: False
) -> Course[list[CaseFigures]]:
    """Return the figures of every case after the model's own steps.

    Yields:
        {"event": "measured", "case": ..., "number": ..., "of": ...} for each case.

    Raises:
        CancelledError: `is_cancelled` said so.
    """
    values = [label.value for label in description.labels]
    results = []
    for case, figures in figures_with(found, values, description.postprocess):
        if is_cancelled():
            raise CancelledError("cancelled")
        results.append(CaseFigures(case=case.case, labels=figures, duration_s=case.duration_s))
        yield {"event": "measured", "case": case.case, "number": len(results), "of": len(found)}
    return results


def scores_by_subject(found: Sequence[FoundCase], labels: Sequence[Label]) -> dict[str, float]:
    """Return the mean Dice over labels by subject, 1 for a label that neither map shows."""
    scores = {
        case.case: float(np.mean(list(agreement_of(figures).values())))
        for case, figures in figures_with(found, [label.value for label in labels], (), with_surfaces=False)
    }
    return mean_by_subject(found, scores)


def save_found(path: Path, cases: Sequence[FoundCase]) -> None:
    """Write what was found, so that it need not be found again."""
    about = [case.to_dict() for case in cases]
    tensors = {str(index): np.frombuffer(case.packed, np.uint8) for index, case in enumerate(cases)}
    with atomic_tensor_file(path) as temporary:
        save_file(tensors, temporary, metadata={"cases": json.dumps(about)})


def load_found(path: Path) -> list[FoundCase]:
    """Read what save_found wrote."""
    with safe_open(path, framework="np") as file:
        about = json.loads(file.metadata()["cases"])
    tensors = load_file(path)
    return [FoundCase.from_dict(entry, packed=tensors[str(index)].tobytes()) for index, entry in enumerate(about)]


def _smallest_volume_of(
    cases: Sequence[Case], found: Sequence[FoundCase], is_cancelled: Callable[[], bool]
) -> Course[float | None]:
    """Return the smallest volume in the references of training cases; None where too few cases were found to choose."""
    if len({case.subject for case in found}) < FEWEST_SUBJECTS:
        return None
    references, largest_voxel_mm3 = [], 0.0
    for number, case in enumerate(cases, start=1):
        if is_cancelled():
            raise CancelledError("cancelled")
        volume = read_labelmap(case.labels)
        references.append(component_volumes_mm3(volume.array[0], volume.spacing_mm))
        largest_voxel_mm3 = max(largest_voxel_mm3, prod(volume.spacing_mm))
        yield {"event": "read", "case": case.id, "number": number, "of": len(cases)}
    return smallest_volume_mm3(references, largest_voxel_mm3=largest_voxel_mm3)
