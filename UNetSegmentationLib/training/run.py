"""From a data set on disk to a model folder: plan, prepare, train, evaluate, describe."""

from __future__ import annotations

import json
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import torch

from .. import __version__
from ..cases.dataset import Case, find_cases, name_channels, read_label_values, read_labels_of, split_by_subject
from ..core.errors import CancelledError
from ..core.event_log import TrainingRecord
from ..core.files import sha256_of, write_text
from ..core.task import UNWATCHED, Event, Task
from ..evaluation.held_back import TrainedModel, measure_trained
from ..image.labels import Label
from ..models.card import write_card
from ..models.description import (
    DEMONSTRATION,
    WEIGHTS_FILE,
    Channel,
    ModelDescription,
    id_from,
    write_description,
)
from ..models.fit import MODALITIES_OF_NAMES
from ..models.installed import find_model
from ..networks import SegmentationNetwork, build_network
from ..networks.parts.planned_config import planned_config
from ..networks.parts.weights import save_weights
from ..planning.plan import Plan
from ..presets import PRESETS
from .checkpoint import CHECKPOINT_FILE
from .job import JOB_FILE, RECORD_FILE, TrainingJob, exclusive_folder, plan_at_start
from .loop import train
from .prepared_case import PreparedCase
from .prepared_cases import PreparedFolder, keep_prepared_cases_until_done
from .processes.processes import ALONE, Processes
from .replay_packing import add_replay
from .setup import augmentation_for, leave_raw, plan_cases
from .start_weights import read_initialisation, start_from_model

VALIDATION_CASES_WHILE_TRAINING = 8
RECORDED_STEPS = 10

Measure = Callable[[TrainedModel, Task], ModelDescription]


@dataclass(frozen=True, kw_only=True)
class _Cases:
    """The cases of a training.

    Attributes:
        training: Cases to train on.
        prepared: The same on the network's grid.
        held_back: Cases of other subjects, not used for training.
    """

    training: Sequence[Case]
    prepared: Sequence[PreparedCase]
    held_back: Sequence[Case]


def run_training(
    job: TrainingJob,
    *,
    is_resumed: bool = False,
    processes: Processes = ALONE,
    plan: Plan | None = None,
    measure: Measure = measure_trained,
    task: Task = UNWATCHED,
) -> ModelDescription:
    """Make a model folder; the held-back fold is evaluated once, at the end, with the stored weights.

    Of several processes only the first uses the folder; the others finish with the training loop.

    Args:
        job: Training job.
        is_resumed: Resume from the folder's checkpoint.
        processes: Processes that train together; the plan's batch size is per process.
        plan: Plan to use, the same in all processes; by default the job's file, or one made for the training cases.
        measure: Adds the figures to the description of the trained model.
        task: Told the events of dataset.read_label_values, dataset.read_fingerprint, PreparedFolder.fill,
            start_weights.start_from_model, loop.train and `measure`; {"event": "stage", "message": ...} between them;
            {"event": "done", "description": ...}. Often checked for cancellation.

    Returns:
        The model's description; without checksum and figures in the other processes.

    Raises:
        InputError: The data set or the job cannot be used, another training is running in the folder, or it already
            contains a model.
        CancelledError: The task was cancelled.
    """
    if not processes.is_first:
        return _train_exclusively(job, processes, is_resumed=is_resumed, plan=plan, measure=measure, task=task)
    with exclusive_folder(job.folder, is_resumed=is_resumed):
        with keep_prepared_cases_until_done(job.folder):
            description = _train_exclusively(
                job, processes, is_resumed=is_resumed, plan=plan, measure=measure, task=task
            )
        task.report({"event": "done", "description": description.to_dict()})
    return description


def _train_exclusively(
    job: TrainingJob,
    processes: Processes,
    *,
    is_resumed: bool,
    plan: Plan | None,
    measure: Measure,
    task: Task,
) -> ModelDescription:
    """Do the work of run_training in a locked folder."""
    task.report({"event": "stage", "message": "Reading the data set"})
    if job.init and not is_resumed:
        processes.share(lambda: find_model(job.init).description.id)  # report an unknown one before the cases are read
    cases = find_cases(job.dataset)
    processes.check_same("data set", [f"{case.id} {case.subject}" for case in cases])
    folds = split_by_subject(cases, folds=job.fold[1], seed=0)
    held_back = folds[job.fold[0]]
    training_cases = [case for case in cases if case not in held_back]
    values = processes.share_work(lambda shared: read_label_values(cases, task=shared), task)
    labels = read_labels_of(job.labels or job.dataset, values)
    if is_resumed or plan is None:
        plan = _agree_on_plan(job, training_cases, held_back, labels, processes, is_resumed=is_resumed, task=task)
    network = _network_of(job, plan, channels=len(cases[0].images), num_classes=len(labels) + 1)
    plan = leave_raw(plan, network.raw_channels)
    description = _describe(job, plan, labels, network, channel_names=name_channels(job.dataset, cases, job.channels))
    if processes.is_first:
        started = {"job": job.to_dict(), "plan": plan.to_dict(), "held_back": [case.id for case in held_back]}
        write_text(job.folder / JOB_FILE, json.dumps(started, indent=1))
    watched_cases = held_back[:VALIDATION_CASES_WHILE_TRAINING]
    folder = PreparedFolder(job.folder, plan, labels)
    to_prepare = [*training_cases, *watched_cases]
    task.report({"event": "stage", "message": f"Preparing {len(to_prepare)} cases"})
    processes.share_work(lambda shared: folder.fill(to_prepare, task=shared), task)
    prepared, watched = ([folder.open(case) for case in part] for part in (training_cases, watched_cases))
    device = processes.choose_device(job.device)
    record = TrainingRecord(job.folder / RECORD_FILE) if processes.is_first else None
    if job.init and not is_resumed:
        # The other processes get the weights when training begins.
        initialised = processes.share(lambda: start_from_model(network, job.init))
        if record is not None:
            record.append(initialised)
        task.report(initialised)
    if network.learning_message and not is_resumed:
        task.report({"event": "stage", "message": network.learning_message})
        network.to(device).learn_from_labels([case.labels for case in prepared], seed=job.options.seed, task=task)
    steps, seconds = train(
        network,
        prepared,
        watched,
        plan,
        options=job.options,
        augmentation=augmentation_for(plan, labels),
        folder=job.folder,
        device=device,
        processes=processes,
        task=recorded(task, record, labels=labels),
    )
    if record is None:
        return description
    about = _record_of(job, training_cases, held_back, steps=steps, seconds=seconds)
    if processes.count > 1:
        about["processes"] = processes.count
    of_training = _Cases(training=training_cases, prepared=prepared, held_back=held_back)
    return _finish(job, network, description, about, record, of_training, measure, task)


def _agree_on_plan(
    job: TrainingJob,
    training_cases: Sequence[Case],
    held_back: Sequence[Case],
    labels: Sequence[Label],
    processes: Processes,
    *,
    is_resumed: bool,
    task: Task,
) -> Plan:
    """Return the first process's plan: other hosts may have other devices, and lack the folder."""

    def planned(shared: Task) -> dict[str, Any]:
        if is_resumed:
            return plan_at_start(job, held_back).to_dict()
        return plan_cases(job, training_cases, labels, task=shared).to_dict()

    return Plan.from_dict(processes.share_work(planned, task))


def recorded(task: Task, record: TrainingRecord | None, *, labels: Sequence[Label]) -> Task:
    """Return a task that records the events of a loop before passing them on.

    Args:
        task: Told the events, and cancels the loop.
        record: Gets the events that is_recorded selects; None in processes that write nothing.
        labels: Their names are added to "start".
    """

    def record_and_report(event: Event) -> None:
        if event["event"] == "start":
            event = {**event, "labels": [label.name for label in labels]}
        if record is not None and is_recorded(event):
            record.append(event)
        task.report(event)

    return task.observed_by(record_and_report)


def _finish(
    job: TrainingJob,
    network: SegmentationNetwork,
    description: ModelDescription,
    about: dict[str, Any],
    record: TrainingRecord,
    cases: _Cases,
    measure: Measure,
    task: Task,
) -> ModelDescription:
    """Write the model, evaluate it and return its description."""
    save_weights(job.folder / WEIGHTS_FILE, network, is_half=job.is_half)
    if job.init:
        about["init"] = read_initialisation(record.path)
    description = replace(
        description,
        weights_sha256=sha256_of(job.folder / WEIGHTS_FILE),
        training={**description.training, **about},
        parent=about.get("init", {}).get("model"),
    )
    if job.has_replay:
        description = add_replay(job.folder, cases.prepared, description)
    write_description(job.folder, description)
    task.report({"event": "stage", "message": f"Evaluating on {len(cases.held_back)} held-back cases"})
    trained = TrainedModel(
        folder=job.folder,
        device=job.device,
        chooses_postprocess=job.chooses_postprocess,
        description=description,
        training_cases=cases.training,
        held_back=cases.held_back,
        record=record,
    )
    try:
        description = measure(trained, task)
    except CancelledError as error:
        raise CancelledError("cancelled while evaluating the model; continue with --resume") from error
    write_description(job.folder, description)
    write_card(job.folder, description)
    for name in (CHECKPOINT_FILE, JOB_FILE):
        (job.folder / name).unlink(missing_ok=True)
    return description


def is_recorded(event: Mapping[str, Any]) -> bool:
    """Return whether an event of a training is recorded; of the steps, every tenth is."""
    return event["event"] != "step" or int(event["step"]) % RECORDED_STEPS == 0


def _network_of(job: TrainingJob, plan: Plan, *, channels: int, num_classes: int) -> SegmentationNetwork:
    config = planned_config(job.network, plan, channels=channels, num_classes=num_classes, options=job.network_options)
    with torch.random.fork_rng():
        torch.manual_seed(job.options.seed)
        return build_network(job.network, config)


def _describe(
    job: TrainingJob,
    plan: Plan,
    labels: tuple[Label, ...],
    network: SegmentationNetwork,
    *,
    channel_names: Sequence[str],
) -> ModelDescription:
    count = network.config.in_channels
    offered = (*PRESETS[job.preset].channel_names, *(f"channel {index + 1}" for index in range(count)))
    names = channel_names or offered[:count]
    return ModelDescription(
        id=job.id or id_from(job.folder.resolve().name),
        title=job.title or f"{PRESETS[job.preset].title}, {job.network}",
        network=job.network,
        network_config=network.config.to_dict(),
        plan=plan,
        preset=job.preset,
        channels=tuple(
            Channel(
                name=name,
                modality=MODALITIES_OF_NAMES.get(name.upper(), PRESETS[job.preset].modalities[0]),
                is_optional=network.accepts_missing_channels,
            )
            for name in names
        ),
        labels=labels,
        licence=job.data_licence,
        training={
            "data": job.data_source,
            "data_licence": job.data_licence,
            **({DEMONSTRATION: True} if job.is_demonstration else {}),
        },
    )


def _record_of(
    job: TrainingJob, training_cases: Sequence[Case], held_back: Sequence[Case], *, steps: int, seconds: float
) -> dict[str, Any]:
    return {
        "cases": len(training_cases),
        "subjects": len({case.subject for case in training_cases}),
        "held_back_cases": [case.id for case in held_back],
        "held_back_subjects": len({case.subject for case in held_back}),
        "has_subjects": any(case.subject != case.id for case in (*training_cases, *held_back)),
        "fold": list(job.fold),
        "steps": steps,
        "minutes": round(seconds / 60, 1),
        "options": job.options.to_dict(),
        "date": datetime.now(UTC).date().isoformat(),
        "versions": {"unetsegmentation": __version__, "torch": torch.__version__, "python": platform.python_version()},
    }
