"""From a data set on disk to a model folder: plan, prepare, train, measure, describe."""

from __future__ import annotations

import json
import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

from . import __version__
from .augmentation import AugmentationConfig
from .checkpoint import save_weights
from .dataset import (
    Case,
    PreparedCase,
    find_cases,
    fingerprint_of,
    label_values,
    name_channels,
    prepare_case,
    read_labels_of,
    split_by_subject,
)
from .device_planning import budget_of, plan_for
from .devices import choose_device
from .distributed import ALONE, Processes
from .errors import InputError
from .files import hold_alone, write_text
from .fingerprint import Fingerprint
from .initialisation import PRETRAINED, Cases, initialise, read_beginning
from .labels import Label, names_a_side
from .losses import build_loss
from .measuring import TrainedModel, measure_trained
from .modalities import MODALITIES_OF_NAMES
from .model_card import card_of
from .model_folder import (
    CARD_FILE,
    DESCRIPTION_FILE,
    WEIGHTS_FILE,
    Channel,
    ModelDescription,
    check_id,
    find_model,
    id_from,
    read_description,
    sha256_of,
    write_description,
)
from .networks import NETWORKS, SegmentationNetwork, build_network
from .networks.planned import planned_config
from .planning import Normalization, Plan, read_plan
from .presets import PRESETS
from .replay import REHEARSAL_CROPS, REPLAY_FILE, SENTINEL_CROPS, draw_replay, write_replay
from .training import train
from .training_options import TrainingOptions
from .training_record import TrainingRecord
from .training_state import CHECKPOINT_FILE, TRAINING, phase_of

RECORD_FILE = "training.jsonl"
JOB_FILE = "job.json"
STUDY_FILE = "study.json"  # of several trainings from which one model is made, see study
VALIDATION_CASES_WHILE_TRAINING = 8
RECORDED_STEPS = 10


@dataclass(frozen=True, kw_only=True)
class TrainingJob:
    """What to train, on what, and what to say of it.

    Attributes:
        dataset: Data set folder (see dataset.find_cases).
        folder: Model folder to make.
        id: Model id; the folder's name by default.
        title: Name shown to people; from network and preset by default.
        network: Registered name.
        preset: Registered name.
        channels: What the channels are called, in their order, such as "CT"; by default what the data set says.
        plan: Plan file to use instead of making one.
        labels: File with the labels' names, colours and terms (a JSON list of labels.Label); the data set's own by
            default.
        fold: Which part of the subjects is held back, of how many.
        options: How long and how.
        network_options: Options of the network beyond those that the plan gives.
        device: "auto", "cpu", "cuda" or "mps".
        data_licence: Licence of the data, for the card.
        data_source: Where the data come from and whom to credit, for the card.
        is_half: Store the weights in half precision.
        init: What to begin with: "" for drawn weights, "pretrained" for those of a pretraining without labels, or the
            id or folder of a model of the same network; the heads are drawn anyway.
        pretraining_steps: Steps of the pretraining; None: pretraining.STEPS.
        pretraining_images: Folder of the images to pretrain on; None: those of the data set. Images of subjects that
            are held back are left out.
        has_replay: Keep a few crops of the training images with the model, so that fine-tuning it forgets less;
            whoever gets the model gets them too.
        chooses_postprocess: Try post-processing on the cases that were held back, and keep what helps.
    """

    dataset: Path
    folder: Path
    id: str = ""
    title: str = ""
    network: str = "unet"
    preset: str = "mri"
    channels: tuple[str, ...] = ()
    plan: Path | None = None
    labels: Path | None = None
    fold: tuple[int, int] = (0, 5)
    options: TrainingOptions = field(default_factory=TrainingOptions)
    network_options: dict[str, Any] = field(default_factory=dict)
    device: str = "auto"
    data_licence: str = ""
    data_source: str = ""
    is_half: bool = True
    init: str = ""
    pretraining_steps: int | None = None
    pretraining_images: Path | None = None
    has_replay: bool = False
    chooses_postprocess: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "channels", tuple(self.channels))
        part, parts = self.fold
        if not (parts >= 2 and 0 <= part < parts):
            raise InputError(f"fold {part}/{parts} is out of range: give K/N with K from 0 to N - 1 and N at least 2")
        steps, images = self.pretraining_steps, self.pretraining_images
        if steps is not None and steps < 1:
            raise InputError(f"pretraining_steps is {steps}: give at least 1")
        if self.init != PRETRAINED and (steps is not None or images is not None):
            raise InputError("steps or images of a pretraining are given without one: add --init pretrained")
        # What is misspelt is told before the data set is read.
        if self.id:
            check_id(self.id)
        _ = NETWORKS[self.network], PRESETS[self.preset], build_loss(self.options.loss, self.options.loss_options)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON; paths are absolute, and the folder, which may be moved, is left out."""
        values = {**asdict(self), "dataset": str(self.dataset.absolute())}
        for name in ("plan", "labels", "pretraining_images"):
            values[name] = None if values[name] is None else str(values[name].absolute())
        if self.init and Path(self.init).is_dir():
            values["init"] = str(Path(self.init).absolute())
        del values["folder"]
        return values

    @classmethod
    def from_dict(cls, values: dict[str, Any], *, folder: Path) -> TrainingJob:
        """Return the job of a JSON object.

        Raises:
            TypeError: Entries that are missing or unknown.
        """
        names = ("dataset", "plan", "labels", "pretraining_images")
        paths = {name: None if values.get(name) is None else Path(values[name]) for name in names}
        part, parts = values["fold"]
        options = TrainingOptions(**values["options"])
        return cls(**{**values, **paths, "fold": (part, parts), "options": options, "folder": folder})


# What a training is begun with; other values would make it another training.
FIXED = (
    *("network", "preset", "channels", "plan", "labels", "fold", "network_options"),
    *("init", "pretraining_steps", "pretraining_images"),
)
FIXED_OPTIONS = tuple(name for name in TrainingOptions.__dataclass_fields__ if name not in ("steps", "minutes"))


def unfinished_job(folder: Path) -> TrainingJob:
    """Return the job whose checkpoint lies in a folder.

    Raises:
        InputError: There is none, or its description cannot be understood.
    """
    check_folder(folder, is_resumed=True)
    return TrainingJob.from_dict(_started(folder)["job"], folder=folder)


def _started(folder: Path) -> dict[str, Any]:
    """Return what was written when the training in a folder began: "job", "plan" and "held_back"."""
    path = folder / JOB_FILE
    try:
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        TrainingJob.from_dict(values["job"], folder=folder)
        Plan.from_dict(values["plan"])
        set(values["held_back"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} cannot be read ({error}): the training cannot go on, start another") from error
    return values


def run_training(
    job: TrainingJob,
    *,
    is_resumed: bool = False,
    processes: Processes = ALONE,
    is_cancelled: Callable[[], bool] = lambda: False,
    plan: Plan | None = None,
    measure: Callable[[TrainedModel], ModelDescription] = measure_trained,
) -> Iterator[dict[str, Any]]:
    """Make a model folder; the held-back fold is measured once, at the end, with the weights as they are stored.

    Of several processes the first alone touches the folder; the others end with the training itself.

    Args:
        job: What to train.
        is_resumed: Go on from the folder's checkpoint.
        processes: Those that train together; the batch size of the plan is that of each.
        is_cancelled: Asked often.
        plan: Plan to begin with; by default the job's file, or one that is made for the training cases.
        measure: Gives the description of the trained model its figures.

    Yields:
        Events of training.train, those of initialisation.initialise before them, and
        {"event": "stage", "message": ...}, {"event": "evaluation", ...},
        {"event": "done", "description": ...}.

    Raises:
        InputError: The data set or the job cannot be used, another training is at work in the folder, or it holds a
            model and resuming was not asked for.
        CancelledError: `is_cancelled` said so.
    """
    with alone_in(job.folder, is_resumed=is_resumed) if processes.is_first else nullcontext():
        yield from _train_alone(
            job, processes, is_resumed=is_resumed, is_cancelled=is_cancelled, plan=plan, measure=measure
        )


def _train_alone(
    job: TrainingJob,
    processes: Processes,
    *,
    is_resumed: bool,
    is_cancelled: Callable[[], bool],
    plan: Plan | None,
    measure: Callable[[TrainedModel], ModelDescription],
) -> Iterator[dict[str, Any]]:
    """Do what run_training promises, in a folder where nobody else trains."""
    yield {"event": "stage", "message": "Reading the data set"}
    if job.init not in ("", PRETRAINED) and not is_resumed:
        processes.share(lambda: find_model(job.init).description.id)  # a misspelt one is told before the cases are read
    cases = find_cases(job.dataset)
    processes.check_same("data set", [f"{case.id} {case.subject}" for case in cases])
    folds = split_by_subject(cases, folds=job.fold[1], seed=0)
    held_back = folds[job.fold[0]]
    training_cases = [case for case in cases if case not in held_back]
    labels = read_labels_of(job.labels or job.dataset, label_values(cases))
    begun = plan

    def make_plan() -> dict[str, Any]:
        made = _plan_as_begun(job, held_back) if is_resumed else begun or plan_of(job, training_cases, labels)
        return made.to_dict()

    plan = Plan.from_dict(processes.share(make_plan))  # other hosts may have other devices, and not the folder
    network = _network_of(job, plan, channels=len(cases[0].images), num_classes=len(labels) + 1)
    plan = leave_raw(plan, network.raw_channels)
    description = _describe(job, plan, labels, network, channel_names=name_channels(job.dataset, cases, job.channels))
    if processes.is_first:
        started = {"job": job.to_dict(), "plan": plan.to_dict(), "held_back": [case.id for case in held_back]}
        write_text(job.folder / JOB_FILE, json.dumps(started, indent=1))
    yield {"event": "stage", "message": f"Preparing {len(cases)} cases"}
    prepared = [prepare_case(case, plan, labels) for case in training_cases]
    watched = [prepare_case(case, plan, labels) for case in held_back[:VALIDATION_CASES_WHILE_TRAINING]]
    device = processes.choose_device(job.device)
    record = TrainingRecord(job.folder / RECORD_FILE) if processes.is_first else None
    is_begun = is_resumed and processes.share(lambda: phase_of(job.folder / CHECKPOINT_FILE)) == TRAINING
    augmentation = augmentation_for(plan, labels)
    of_training = Cases(training=training_cases, prepared=prepared, held_back=held_back)
    if job.init and not is_begun:
        beginning = initialise(
            job,
            network,
            plan,
            cases=of_training,
            augmentation=augmentation,
            device=device,
            processes=processes,
            is_cancelled=is_cancelled,
        )
        yield from _recorded(beginning, record)
    if not is_begun and network.lesson:
        yield {"event": "stage", "message": network.lesson}
        network.to(device).learn_from_labels(
            [case.labels for case in prepared], seed=job.options.seed, is_cancelled=is_cancelled
        )
    course = train(
        network,
        prepared,
        watched,
        plan,
        options=job.options,
        augmentation=augmentation,
        folder=job.folder,
        device=device,
        processes=processes,
        is_cancelled=is_cancelled,
    )
    steps, seconds = 0, 0.0
    for event in _recorded(course, record, labels=labels):
        steps, seconds = event["step"], event.get("elapsed_s", seconds)
        yield event
    if record is not None:
        about = _record_of(job, training_cases, held_back, steps=steps, seconds=seconds)
        if processes.count > 1:
            about["processes"] = processes.count
        yield from _finish(job, network, description, about, record, of_training, measure)


def _recorded(
    events: Iterator[dict[str, Any]], record: TrainingRecord | None, *, labels: Sequence[Label] = ()
) -> Iterator[dict[str, Any]]:
    """Pass events on and record those that count; the first one is given the names of the labels."""
    for event in events:
        if event["event"] == "start":
            event["labels"] = [label.name for label in labels]
        if record is not None and event["event"] != "stage" and is_recorded(event):
            record.append(event)
        yield event


def _finish(
    job: TrainingJob,
    network: SegmentationNetwork,
    description: ModelDescription,
    about: dict[str, Any],
    record: TrainingRecord,
    cases: Cases,
    measure: Callable[[TrainedModel], ModelDescription],
) -> Iterator[dict[str, Any]]:
    """Write the model, measure it and say so."""
    save_weights(job.folder / WEIGHTS_FILE, network, is_half=job.is_half)
    if job.init:
        about["init"] = read_beginning(record.path)
    description = replace(
        description,
        weights_sha256=sha256_of(job.folder / WEIGHTS_FILE),
        training={**description.training, **about},
        parent=about.get("init", {}).get("model"),
    )
    if job.has_replay:
        description = add_replay(job.folder, cases.prepared, description)
    write_description(job.folder, description)
    yield {"event": "stage", "message": f"Measuring on {len(cases.held_back)} cases that were held back"}
    trained = TrainedModel(
        folder=job.folder,
        device=job.device,
        chooses_postprocess=job.chooses_postprocess,
        description=description,
        training_cases=cases.training,
        held_back=cases.held_back,
        record=record,
    )
    description = measure(trained)
    write_description(job.folder, description)
    write_text(job.folder / CARD_FILE, card_of(description))
    for name in (CHECKPOINT_FILE, JOB_FILE):
        (job.folder / name).unlink(missing_ok=True)
    yield {"event": "done", "description": description.to_dict()}


def add_replay(folder: Path, cases: Sequence[PreparedCase], description: ModelDescription) -> ModelDescription:
    """Write crops of prepared training cases into a model folder and return the description that says so."""
    training = description.training
    licence, source = training.get("data_licence", ""), training.get("data", "")
    replay = draw_replay(cases, description.plan.patch_size, licence=licence, source=source)
    write_replay(folder / REPLAY_FILE, replay)
    about = {"rehearsal": len(replay.rehearsal), "sentinels": len(replay.sentinels), "licence": licence}
    return replace(description, training={**training, "replay": about})


def pack_replay(folder: Path, dataset: Path) -> ModelDescription:
    """Add replay crops to a model that was trained without them; cases that were held back are left out.

    Args:
        folder: Model folder; model.json and the card are written anew.
        dataset: What the model was trained on.

    Raises:
        InputError: The folder is no model, or the data set does not hold all the cases that were held back: then it is
            not the one that the model was trained on.
    """
    description = read_description(folder)
    held_back = set(description.training.get("held_back_cases", ()))
    cases = find_cases(dataset)
    if missing := sorted(held_back - {case.id for case in cases}):
        raise InputError(
            f"{dataset} has no case {missing[0]}, which '{description.id}' held back: give the data it was trained on"
        )
    subjects = {case.subject for case in cases if case.id in held_back}
    usable = [case for case in cases if case.subject not in subjects]
    order = np.random.default_rng(0).permutation(len(usable))[: REHEARSAL_CROPS + SENTINEL_CROPS]
    prepared = [prepare_case(usable[index], description.plan, description.labels) for index in sorted(order)]
    description = add_replay(folder, prepared, description)
    write_description(folder, description)
    write_text(folder / CARD_FILE, card_of(description))
    return description


def is_recorded(event: Mapping[str, Any]) -> bool:
    """Return whether an event of a training stands in its record: of the steps every tenth does."""
    number = {"step": "step", "pretraining": "pretraining_step"}.get(event["event"])
    return number is None or int(event[number]) % RECORDED_STEPS == 0


def augmentation_for(plan: Plan, labels: Sequence[Label]) -> AugmentationConfig:
    """Return the augmentation of a plan; nothing is mirrored where a label names a side."""
    mirror_axes = () if names_a_side(label.name for label in labels) else plan.mirror_axes
    spacing_mm = plan.spacing_mm if all(plan.spacing_mm) else (1.0, 1.0, 1.0)
    config = AugmentationConfig(spacing_mm=spacing_mm, mirror_axes=mirror_axes, outside_label=0)
    if any(scheme.scheme == "none" for scheme in plan.normalization):
        # Values with a meaning of their own, such as HU, must keep it: only sharpness and noise may change.
        return replace(
            config,
            gamma_probability=0.0,
            brightness_probability=0.0,
            contrast_probability=0.0,
            remap_probability=0.0,
            bias_field_probability=0.0,
        )
    return config


@contextmanager
def alone_in(folder: Path, *, is_resumed: bool) -> Iterator[None]:
    """Keep other trainings out of a folder that one may work in, see check_folder.

    Raises:
        InputError: The folder cannot be used, or another training is at work in it.
    """
    check_folder(folder, is_resumed=is_resumed)
    with hold_alone(folder / RECORD_FILE, task="training"):
        check_folder(folder, is_resumed=is_resumed)  # another may have ended between the two lines above
        yield


def check_folder(folder: Path, *, is_resumed: bool) -> None:
    """Raise InputError where a model cannot be made in a folder, or not be gone on with."""
    if (folder / CHECKPOINT_FILE).is_file() or (folder / STUDY_FILE).is_file():
        if not is_resumed:
            raise InputError(f"{folder} holds an unfinished training: give another folder, or --resume to go on")
    elif (folder / DESCRIPTION_FILE).is_file():
        if is_resumed:
            raise InputError(f"the training in {folder} is complete: use the model, or give another folder")
        raise InputError(f"{folder} holds a model: give another folder")
    elif is_resumed:
        raise InputError(f"{folder} has no checkpoint to go on from: leave out --resume")


def plan_of(job: TrainingJob, cases: Sequence[Case], labels: Sequence[Label]) -> Plan:
    """Return the plan for the cases that a job learns from: the job's file, or one that is made for them."""
    if job.plan is not None:
        return read_plan(job.plan)
    return plan_job(job, fingerprint_for(job, cases, labels), labels)


def fingerprint_for(job: TrainingJob, cases: Sequence[Case], labels: Sequence[Label]) -> Fingerprint:
    """Return the fingerprint of the cases that a job learns from."""
    orientation = "stored" if PRESETS[job.preset].dimensions == (2,) else "RAS"
    names = name_channels(job.dataset, cases, job.channels)
    fingerprint = fingerprint_of(cases, orientation=orientation, channel_names=names)
    return replace(fingerprint, label_names=tuple(label.name for label in labels))


def plan_job(
    job: TrainingJob,
    fingerprint: Fingerprint,
    labels: Sequence[Label],
    *,
    resolution: str = "full",
    dimensions: int | None = None,
) -> Plan:
    """Return the plan for a job's network on its device; see device_planning.plan_for."""
    return plan_for(
        job.network,
        fingerprint,
        job.preset,
        budget=budget_of(choose_device(job.device)),
        num_classes=len(labels) + 1,
        network_options=job.network_options,
        resolution=resolution,
        dimensions=dimensions,
    )


def _plan_as_begun(job: TrainingJob, held_back: Sequence[Case]) -> Plan:
    """Return the plan that an interrupted training began with.

    Raises:
        InputError: The job is another one, or the data set has changed since.
    """
    started = _started(job.folder)
    begun = TrainingJob.from_dict(started["job"], folder=job.folder)
    # As JSON, which makes no difference between lists and tuples.
    values, before = (json.loads(json.dumps(entry.to_dict())) for entry in (job, begun))
    now_and_then = [(name, values[name], before[name]) for name in FIXED]
    now_and_then += [(name, values["options"][name], before["options"][name]) for name in FIXED_OPTIONS]
    for name, now, then in now_and_then:
        if now != then:
            raise InputError(f"{name} is {now}, but the training began with {then}: leave it out, or start another")
    if [case.id for case in held_back] != started["held_back"]:
        raise InputError(f"{job.dataset} has changed since the training began: restore it, or start another training")
    return Plan.from_dict(started["plan"])


def leave_raw(plan: Plan, channels: Sequence[int]) -> Plan:
    """Return the plan with some channels left as they are stored."""
    schemes = [
        Normalization(scheme="none") if index in channels else scheme for index, scheme in enumerate(plan.normalization)
    ]
    return replace(plan, normalization=tuple(schemes))


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
        training={"data": job.data_source, "data_licence": job.data_licence},
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
        "options": asdict(job.options),
        "date": datetime.now(UTC).date().isoformat(),
        "versions": {"unetsegmentation": __version__, "torch": torch.__version__, "python": platform.python_version()},
    }
