"""The training job and its folder: one training at a time, and the start of an interrupted one."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from ..cases.dataset import Case
from ..core.errors import InputError
from ..core.files import hold_alone
from ..core.json_dataclass import NOT_STORED, JsonDataclass, written_by
from ..losses import build_loss
from ..models.description import DESCRIPTION_FILE, check_id
from ..models.installed import absolute_if_folder
from ..networks import NETWORKS
from ..planning.plan import Plan
from ..presets import PRESETS
from .checkpoint import CHECKPOINT_FILE
from .options import TrainingOptions

RECORD_FILE = "training.jsonl"
JOB_FILE = "job.json"
STUDY_FILE = "study.json"  # several trainings from which one model is made, see search


@dataclass(frozen=True, kw_only=True)
class TrainingJob(JsonDataclass):
    """A training job.

    Attributes:
        dataset: Data set folder (see dataset.find_cases).
        folder: Model folder to create.
        id: Model id; the folder's name by default.
        title: Display name; from network and preset by default.
        network: Registered name.
        preset: Registered name.
        channels: Names of the channels in order, such as "CT"; those of the data set by default.
        plan: Plan file to use instead of making one.
        labels: File with the labels' names, colours and terms (a JSON list of labels.Label); the data set's own by
            default.
        fold: Which part of the subjects is held back, and the number of parts.
        options: Duration and hyperparameters.
        network_options: Options of the network beyond those of the plan.
        device: "auto", "cpu", "cuda" or "mps".
        data_licence: Licence of the data, for the card.
        data_source: Source of the data and whom to credit, for the card.
        is_half: Store the weights in half precision.
        init: Initial weights: "" for random ones, or the id or folder of a model of the same network; the heads are
            always random.
        has_replay: Store a few crops of the training images with the model, so that fine-tuning forgets less; they are
            shared with the model.
        chooses_postprocess: Try post-processing on the held-back cases, and keep what helps.
        is_demonstration: The model is for demonstration only, and is never selected automatically.
    """

    dataset: Path
    folder: Path = field(metadata=NOT_STORED)  # may be moved
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
    init: str = field(default="", metadata=written_by(absolute_if_folder))
    has_replay: bool = False
    chooses_postprocess: bool = True
    is_demonstration: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "channels", tuple(self.channels))
        part, parts = self.fold
        if not (parts >= 2 and 0 <= part < parts):
            raise InputError(
                f"fold {part}/{parts} is out of range: must be K/N with K from 0 to N - 1 and N at least 2"
            )
        # Report unknown names before the data set is read.
        if self.id:
            check_id(self.id)
        _ = NETWORKS[self.network], PRESETS[self.preset], build_loss(self.options.loss, self.options.loss_options)


# Options fixed at the start; other values would make it another training.
FIXED = ("network", "preset", "channels", "plan", "labels", "fold", "network_options", "init")
FIXED_OPTIONS = tuple(option.name for option in fields(TrainingOptions) if option.name not in ("steps", "minutes"))


def unfinished_job(folder: Path) -> TrainingJob:
    """Return the job of the checkpoint in a folder.

    Raises:
        InputError: No unfinished training was found, or its description cannot be read.
    """
    check_folder(folder, is_resumed=True)
    return TrainingJob.from_dict(read_start(folder)["job"], folder=folder)


def read_start(folder: Path) -> dict[str, Any]:
    """Return the recorded start of the training in a folder: "job", "plan" and "held_back"."""
    path = folder / JOB_FILE
    try:
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        TrainingJob.from_dict(values["job"], folder=folder)
        Plan.from_dict(values["plan"])
        set(values["held_back"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} cannot be read ({error}): the training cannot be resumed, start a new one") from error
    return values


def plan_at_start(job: TrainingJob, held_back: Sequence[Case]) -> Plan:
    """Return the plan of an interrupted training.

    Raises:
        InputError: The job differs, or the data set has changed since.
    """
    started = read_start(job.folder)
    begun = TrainingJob.from_dict(started["job"], folder=job.folder)
    values, before = job.to_dict(), begun.to_dict()
    now_and_then = [(name, values[name], before[name]) for name in FIXED]
    now_and_then += [(name, values["options"][name], before["options"][name]) for name in FIXED_OPTIONS]
    for name, now, then in now_and_then:
        if now != then:
            raise InputError(f"{name} is {now}, but the training began with {then}: leave it out, or start a new one")
    if [case.id for case in held_back] != started["held_back"]:
        raise InputError(f"{job.dataset} has changed since the training began: restore it, or start a new training")
    return Plan.from_dict(started["plan"])


@contextmanager
def exclusive_folder(folder: Path, *, is_resumed: bool) -> Iterator[None]:
    """Lock a folder for one training, if it is usable, see check_folder.

    Raises:
        InputError: The folder cannot be used, or another training is running in it.
    """
    check_folder(folder, is_resumed=is_resumed)
    with hold_alone(folder / RECORD_FILE, task="training"):
        check_folder(folder, is_resumed=is_resumed)  # another training may have ended between the two lines above
        yield


def check_folder(folder: Path, *, is_resumed: bool) -> None:
    """Raise InputError if a model cannot be made in a folder, or not be resumed."""
    if (folder / CHECKPOINT_FILE).is_file() or (folder / STUDY_FILE).is_file():
        if not is_resumed:
            raise InputError(
                f"{folder} contains an unfinished training: choose another folder, or continue with --resume"
            )
    elif (folder / DESCRIPTION_FILE).is_file():
        if is_resumed:
            raise InputError(f"the training in {folder} is complete: use the model, or choose another folder")
        raise InputError(f"{folder} already contains a model: choose another folder")
    elif is_resumed:
        raise InputError(f"{folder} has no checkpoint to resume from: leave out --resume")
