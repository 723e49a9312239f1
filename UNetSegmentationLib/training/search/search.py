"""Several trainings that yield one model: configurations are compared, folds become an ensemble."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any

from ...cases.dataset import Case, find_cases, read_label_values, read_labels_of, split_by_subject
from ...core.errors import CancelledError, InputError
from ...core.files import hold_alone, write_text
from ...core.json_dataclass import JsonDataclass
from ...core.task import UNWATCHED, Event, Task
from ...evaluation.held_back import FOUND_FILE, TrainedModel, describe_figures, predict_cases, save_predicted
from ...image.labels import Label
from ...inference.predictor import Predictor
from ...models.description import DESCRIPTION_FILE, ModelDescription, id_from
from ...networks.parts.cost import training_cost
from ...networks.parts.planned_config import planned_config
from ...planning.configurations import CONFIGURATIONS
from ...planning.fingerprint import Fingerprint
from ...planning.plan import Plan, read_plan
from ...planning.planner import target_spacing_mm
from ..checkpoint import CHECKPOINT_FILE
from ..job import RECORD_FILE, STUDY_FILE, TrainingJob, check_folder
from ..prepared_cases import remove_prepared_cases
from ..run import run_training
from ..setup import fingerprint_for, plan_job
from .configurations import sensible_configurations
from .winner import Training, make_model

TRAININGS_FOLDER = "trainings"
# Changing these on resuming affects neither the training nor its description.
FREE = ("dataset", "device")


@dataclass(frozen=True, kw_only=True)
class Study(JsonDataclass):
    """Several trainings of one job.

    Attributes:
        job: Common settings of the trainings; its folder gets the model.
        configurations: Names in planning.configurations.CONFIGURATIONS; empty: those that suit the data.
        has_all_folds: Hold back each part of the subjects in turn, and make an ensemble of the networks; otherwise only
            the job's fold.
        shares_budget: The steps and minutes of the job are divided equally among the trainings; otherwise each gets
            all of them.
    """

    job: TrainingJob
    configurations: tuple[str, ...] = ("full",)
    has_all_folds: bool = False
    shares_budget: bool = True

    def __post_init__(self) -> None:
        for name in self.configurations:
            if name not in CONFIGURATIONS:
                raise InputError(f"configuration '{name}' is unknown: choose {', '.join(CONFIGURATIONS)}")
        if len(set(self.configurations)) < len(self.configurations):
            raise InputError(f"configurations {', '.join(self.configurations)} contain a duplicate: name each once")
        if self.job.plan is not None and self.configurations != ("full",):
            raise InputError("a plan file defines a single configuration: leave out the file or the configurations")


@dataclass(frozen=True, kw_only=True)
class StudyRecord(JsonDataclass):
    """Decisions at the start of a study.

    Attributes:
        study: The study.
        cases: Ids of the cases of the data set.
        costs: Operations per cubic millimetre of an image, by configuration.
        plans: By configuration.
    """

    study: Study
    cases: tuple[str, ...]
    costs: dict[str, float]
    plans: dict[str, Plan]

    @classmethod
    def read(cls, folder: Path) -> StudyRecord:
        """Return the record in a folder; raises InputError if it cannot be read."""
        path = folder / STUDY_FILE
        try:
            return cls.from_dict(json.loads(path.read_text(encoding="utf-8")), folder=folder)
        except (OSError, ValueError) as error:
            raise InputError(
                f"{path} cannot be read ({error}): the trainings cannot be resumed, start new ones"
            ) from error


def unfinished_study(folder: Path) -> Study:
    """Return the unfinished study in a folder.

    Raises:
        InputError: No unfinished training was found, or its description cannot be read.
    """
    return StudyRecord.read(folder).study


def run_study(study: Study, *, is_resumed: bool = False, task: Task = UNWATCHED) -> ModelDescription:
    """Run the trainings of a study one after another, and make the best the model of its folder.

    Each training has its own folder in TRAININGS_FOLDER, from which it can be resumed; finished ones are not repeated.
    A study of one training runs in the folder itself.

    Args:
        study: The study.
        is_resumed: Resume the study in the folder.
        task: Told the events of dataset.read_label_values, setup.fingerprint_for and winner.make_model, and those of
            run_training, "share_left" of all trainings together and "start" with "folder", where the training lies; at
            last {"event": "done", "description": ...} of the model. Often checked for cancellation.

    Returns:
        The model's description.

    Raises:
        InputError: The data set or the study cannot be used, or differs from the one to resume.
        CancelledError: The task was cancelled.
    """
    folder = study.job.folder
    check_folder(folder, is_resumed=is_resumed)
    task.report({"event": "stage", "message": "Reading the data set"})
    cases = find_cases(study.job.dataset)
    if is_resumed:
        begun = _read_started(study, cases)
    else:
        begun = _start(study, cases, task)
        task.report({"event": "stage", "message": _announcement(begun)})
    trainings = _trainings_of(begun)
    if len(trainings) == 1:
        return run_training(study.job, plan=begun.plans[trainings[0].configuration], task=task)
    with hold_alone(folder / RECORD_FILE, task="training"):
        check_folder(folder, is_resumed=is_resumed)
        write_text(folder / STUDY_FILE, json.dumps(begun.to_dict(), indent=1))
        for number, training in enumerate(trainings):
            part = _part_of_study(task, training, number=number, count=len(trainings))
            _train(training, begun.plans[training.configuration], part)
        task.report({"event": "stage", "message": "Comparing predictions on the held-back cases"})
        try:
            description = make_model(begun.study.job, trainings, cases, begun.costs, task)
        except CancelledError as error:
            raise CancelledError("cancelled while comparing the trainings; continue with --resume") from error
        (folder / STUDY_FILE).unlink()
        if description.members == 1:
            # The model is this training: no second copy is needed.
            kept = next(t for t in trainings if t.configuration == description.training["configuration"])
            shutil.rmtree(kept.job.folder)
        task.report({"event": "done", "description": description.to_dict()})
    return description


def _part_of_study(task: Task, training: Training, *, number: int, count: int) -> Task:
    """Return the task of one of `count` trainings, the first of which has number 0."""

    def report(event: Event) -> None:
        if event["event"] == "done":
            return  # more trainings follow
        if "share_left" in event:
            event = {**event, "share_left": 1 - (number + 1 - event["share_left"]) / count}
        if event["event"] == "stage":
            event = {**event, "message": f"{training.title}: {event['message']}"}
        if event["event"] == "start":
            event = {**event, "folder": str(training.job.folder)}
        task.report(event)

    return task.observed_by(report)


def _start(study: Study, cases: Sequence[Case], task: Task) -> StudyRecord:
    """Plan the trainings: one plan for all folds, so that their networks have the same shape."""
    job = study.job
    folds = split_by_subject(cases, folds=job.fold[1], seed=0)
    learnt = cases if study.has_all_folds else [case for case in cases if case not in folds[job.fold[0]]]
    values = read_label_values(cases, task=task)
    labels = read_labels_of(job.labels or job.dataset, values)
    fingerprint = fingerprint_for(job, learnt, labels, task=task)
    if job.plan is not None:
        plans = {"full": read_plan(job.plan)}
    else:
        plans = _plans_of(study, fingerprint, labels)
    begun = StudyRecord(
        study=replace(study, configurations=tuple(plans)),
        cases=tuple(case.id for case in cases),
        plans=plans,
        costs={name: _cost_of(job, plan, fingerprint, len(labels) + 1) for name, plan in plans.items()},
    )
    _trainings_of(begun)  # reports a budget that is too small
    return begun


def _plans_of(study: Study, fingerprint: Fingerprint, labels: Sequence[Label]) -> dict[str, Plan]:
    full = plan_job(study.job, fingerprint, labels)
    plans: dict[str, Plan] = {}
    for name in study.configurations or sensible_configurations(fingerprint, full):
        plan = plan_job(study.job, fingerprint, labels, **CONFIGURATIONS[name]) if CONFIGURATIONS[name] else full
        same = next((other for other, planned in {"full": full, **plans}.items() if planned == plan), name)
        if name in (same, "full"):
            plans[name] = plan
        elif study.configurations:
            raise InputError(f"configuration '{name}' is the same as '{same}' for this data set: leave it out")
    return plans


def _cost_of(job: TrainingJob, plan: Plan, fingerprint: Fingerprint, num_classes: int) -> float:
    """Return the floating-point operations per cubic millimetre of an image, up to a factor."""
    config = planned_config(
        job.network, plan, channels=fingerprint.channels, num_classes=num_classes, options=job.network_options
    )
    flops = training_cost(job.network, config, plan.patch_size[3 - plan.dimensions :]).flops
    steps = [step or own for step, own in zip(plan.spacing_mm, target_spacing_mm(fingerprint), strict=True)]
    return flops / (prod(plan.patch_size) * prod(steps))


def _announcement(begun: StudyRecord) -> str:
    trainings = _trainings_of(begun)
    if len(trainings) == 1:
        return f"Configuration: only {trainings[0].configuration} suits this data set"
    options = trainings[0].job.options
    share = f"{options.steps} steps" if options.minutes is None else f"{options.minutes:.3g} minutes"
    return f"{len(trainings)} trainings of {share} each: {', '.join(training.title for training in trainings)}"


def _trainings_of(begun: StudyRecord) -> list[Training]:
    """Return the trainings of a study, each with its share of the budget."""
    study, job = begun.study, begun.study.job
    part, parts = job.fold
    folds = range(parts) if study.has_all_folds else (part,)
    count = len(begun.plans) * len(folds)
    options = job.options
    if study.shares_budget:
        if options.steps < count:
            raise InputError(f"{options.steps} steps are too few for {count} trainings: must be at least {count}")
        minutes = None if options.minutes is None else options.minutes / count
        options = replace(options, steps=options.steps // count, minutes=minutes)
    trainings = []
    for configuration in begun.plans:
        for fold in folds:
            words = [configuration] if len(begun.plans) > 1 or not study.has_all_folds else []
            words += [f"fold{fold}"] if study.has_all_folds else []
            name = "-".join(words)
            own = replace(
                job,
                folder=job.folder / TRAININGS_FOLDER / name,
                id=f"{job.id or id_from(job.folder.resolve().name)}-{name}",
                title=f"{job.title} ({name})" if job.title else "",
                plan=None,
                fold=(fold, parts),
                options=options,
                has_replay=False,
                chooses_postprocess=False,
            )
            trainings.append(Training(name=name, configuration=configuration, job=own))
    return trainings


def _train(training: Training, plan: Plan, task: Task) -> None:
    """Train, resume, or do nothing if it is finished."""
    folder = training.job.folder
    is_begun = (folder / CHECKPOINT_FILE).is_file()
    if not is_begun and (folder / DESCRIPTION_FILE).is_file():
        remove_prepared_cases(folder)  # left by a training killed at its very end
        return
    run_training(training.job, is_resumed=is_begun, plan=plan, measure=_measure_and_keep, task=task)


def _measure_and_keep(model: TrainedModel, task: Task) -> ModelDescription:
    """Return the figures of the network alone; its predictions are kept for the choices of the study."""
    found = predict_cases(Predictor(model.folder, device=model.device), model.held_back, task)
    save_predicted(model.folder / FOUND_FILE, found)
    return describe_figures(
        model.description,
        found,
        model.record,
        training_cases=model.training_cases,
        chooses_postprocess=False,
        task=task,
    )


def _read_started(study: Study, cases: Sequence[Case]) -> StudyRecord:
    """Return the started study in the folder.

    Raises:
        InputError: The study differs, or the data set has changed since.
    """
    begun = StudyRecord.read(study.job.folder)
    asked, before = (_flat(entry) for entry in (study, begun.study))
    if not study.configurations:
        asked["configurations"] = before["configurations"]
    for name, now in asked.items():
        if name not in FREE and now != before[name]:
            raise InputError(
                f"{name} is {now}, but the trainings began with {before[name]}, which is the same for all: leave it "
                "out, or start new ones"
            )
    if tuple(case.id for case in cases) != begun.cases:
        raise InputError(f"{study.job.dataset} has changed since the trainings began: restore it, or start new ones")
    return replace(begun, study=replace(begun.study, job=study.job))


def _flat(study: Study) -> dict[str, Any]:
    """Return all options of a study by name, as JSON."""
    values = study.to_dict()
    job = dict(values["job"])
    options = job.pop("options")
    return {**job, **options, **{name: value for name, value in values.items() if name != "job"}}
