"""The model made from several trainings: the best configuration, and the ensemble of its folds."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from safetensors import SafetensorError

from ...cases.dataset import Case
from ...core.event_log import TrainingRecord
from ...core.files import sha256_of
from ...core.task import UNWATCHED, Task
from ...evaluation.cases import figures_of_model
from ...evaluation.held_back import (
    FOUND_FILE,
    describe_figures,
    load_predicted,
    measure,
    predict_cases,
    scores_by_subject,
)
from ...evaluation.postprocess_choice import PredictedCase
from ...inference.predictor import Predictor
from ...models.card import write_card
from ...models.description import (
    WEIGHTS_FILE,
    ModelDescription,
    id_from,
    read_description,
    write_description,
)
from ...networks.parts.ensemble import Ensemble
from ...networks.parts.weights import load_network, save_weights
from ...presets import PRESETS
from ..job import RECORD_FILE, TrainingJob
from ..replay_packing import pack_replay
from .configurations import ConfigurationChoice, choose_configuration


@dataclass(frozen=True, kw_only=True)
class Training:
    """One of several trainings.

    Attributes:
        name: Name of its folder.
        configuration: Name in planning.configurations.CONFIGURATIONS.
        job: Its training job.
    """

    name: str
    configuration: str
    job: TrainingJob

    @property
    def title(self) -> str:
        """Display name."""
        return self.name.replace("-", ", ").replace("fold", "fold ")


def make_model(
    job: TrainingJob,
    trainings: Sequence[Training],
    cases: Sequence[Case],
    costs: Mapping[str, float],
    task: Task = UNWATCHED,
) -> ModelDescription:
    """Make a model from finished trainings in the folder of `job`, and return its description.

    Configurations are compared by their predictions without post-processing; post-processing is then chosen for the
    best one, on all cases that its networks have not seen. If interrupted, it can be repeated.

    Args:
        job: Common settings of the trainings.
        trainings: All of them; the folds of a configuration become an ensemble.
        cases: Cases of the data set.
        costs: Costs by configuration, see configurations.choose_configuration.
        task: Told the events of held_back.predict_cases and held_back.describe_figures, and often checked for
            cancellation.

    Raises:
        CancelledError: The task was cancelled.
    """
    by_configuration: dict[str, list[Training]] = {}
    for training in trainings:
        by_configuration.setdefault(training.configuration, []).append(training)
    found = {}
    for training in trainings:
        found[training.name] = _found_in(training, cases, task)
    choice = _compare(by_configuration, found, costs)
    members = by_configuration[choice.chosen]
    record = _begin_record(job, members)
    figures: dict[str, Any] = {}
    if len(by_configuration) > 1:
        record.append({"event": "configurations", **choice.to_dict()})
        figures["configurations"] = choice.to_dict()
    _write_weights(job, members)
    description = _describe(job, members, cases)
    write_description(job.folder, description)
    held_back = {case.case for training in members for case in found[training.name]}
    is_ensemble = len(members) > 1
    description = describe_figures(
        description,
        [case for training in members for case in found[training.name]],
        record,
        training_cases=[case for case in cases if is_ensemble or case.id not in held_back],
        chooses_postprocess=job.chooses_postprocess,
        task=task,
    )
    if is_ensemble:
        figures["folds"] = [_figures_of_fold(description, found[training.name], task) for training in members]
    description = replace(description, figures={**description.figures, **figures})
    write_description(job.folder, description)
    write_card(job.folder, description)
    if job.has_replay:
        description = pack_replay(job.folder, job.dataset)
    for training in trainings:
        # Labelmaps of persons must not be distributed with a model.
        (training.job.folder / FOUND_FILE).unlink(missing_ok=True)
    return description


def _found_in(training: Training, cases: Sequence[Case], task: Task) -> list[PredictedCase]:
    """Return the predictions of a training's network on its held-back cases."""
    folder = training.job.folder
    try:
        return load_predicted(folder / FOUND_FILE)
    except (OSError, SafetensorError, ValueError, KeyError, TypeError):  # interrupted while the model was made
        named = read_description(folder).training["held_back_cases"]
        held_back = [case for case in cases if case.id in named]
        return predict_cases(Predictor(folder, device=training.job.device), held_back, task)


def _compare(
    by_configuration: Mapping[str, Sequence[Training]],
    found: Mapping[str, Sequence[PredictedCase]],
    costs: Mapping[str, float],
) -> ConfigurationChoice:
    scores = {}
    for name, members in by_configuration.items():
        labels = read_description(members[0].job.folder).labels
        scores[name] = scores_by_subject([case for training in members for case in found[training.name]], labels)
    return choose_configuration(scores, costs)


def _begin_record(job: TrainingJob, members: Sequence[Training]) -> TrainingRecord:
    """Return the model's record: that of its training, or a new one for several."""
    path = job.folder / RECORD_FILE
    path.write_bytes(b"")
    record = TrainingRecord(path)
    if len(members) == 1:
        for event in TrainingRecord.read(members[0].job.folder / RECORD_FILE):
            if event["event"] != "evaluation":
                record.append(event)
    return record


def _write_weights(job: TrainingJob, members: Sequence[Training]) -> None:
    target = job.folder / WEIGHTS_FILE
    if len(members) == 1:
        shutil.copyfile(members[0].job.folder / WEIGHTS_FILE, target)
    else:
        networks = [load_network(training.job.folder)[0] for training in members]
        save_weights(target, Ensemble(networks), is_half=job.is_half)


def _describe(job: TrainingJob, members: Sequence[Training], cases: Sequence[Case]) -> ModelDescription:
    """Return the model's description without figures."""
    descriptions = [read_description(training.job.folder) for training in members]
    training = {**descriptions[0].training, "configuration": members[0].configuration}
    if len(members) > 1:
        records = [description.training for description in descriptions]
        training |= {
            "cases": len(cases),
            "subjects": len({case.subject for case in cases}),
            "held_back_cases": [],  # the ensemble has seen every case
            "held_back_subjects": 0,
            "folds": [record["held_back_cases"] for record in records],
            "steps": sum(record["steps"] for record in records),
            "minutes": round(sum(record["minutes"] for record in records), 1),
        }
        del training["fold"]
    return replace(
        descriptions[0],
        id=job.id or id_from(job.folder.resolve().name),
        title=job.title or f"{PRESETS[job.preset].title}, {job.network}",
        members=len(members),
        weights_sha256=sha256_of(job.folder / WEIGHTS_FILE),
        training=training,
        postprocess=(),
        figures={},
    )


def _figures_of_fold(description: ModelDescription, found: Sequence[PredictedCase], task: Task) -> dict[str, Any]:
    """Return mean Dice by label of one fold, after the model's post-processing."""
    results = measure(found, description, task)
    figures = figures_of_model(description.labels, results)
    dice = {name: entry["dice"] for name, entry in figures["labels"].items() if "dice" in entry}
    return {"cases": len(results), "subjects": len({case.subject for case in found}), "dice": dice}
