"""A fine-tuning job: the parent, the local cases and the options that follow."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..core.errors import InputError
from ..core.json_dataclass import NOT_STORED, JsonDataclass, written_by
from ..models.installed import absolute_if_folder
from ..training.job import check_folder
from ..training.options import TrainingOptions

JOB_FILE = "finetuning.json"
# Value of unlabelled voxels in the labelmaps of local cases.
UNLABELLED = 255
FIRST_STEPS, STEPS_PER_CASE = 120, 40
LEARNING_RATE = 1e-3
# Without replay only a small rate prevents forgetting.
LEARNING_RATE_WITHOUT_REPLAY = 1e-4
PARENT_PULL = 0.01


@dataclass(frozen=True, kw_only=True)
class FinetuningJob(JsonDataclass):
    """A fine-tuning job.

    Attributes:
        model: Id or folder of the parent.
        dataset: Local cases (see dataset.find_cases) with the parent's label values; 255 for unlabelled voxels.
        folder: Model folder to create.
        id: Model id; the folder's name by default.
        title: Display name; the parent's with "fine-tuned" by default.
        steps: Optimiser steps; None: 120 plus 40 per case, or as many as fit into `minutes`.
        minutes: Time budget of the loop.
        device: "auto", "cpu", "cuda" or "mps".
        uses_replay: Rehearse the crops that come with the parent, if any.
        pull: Weight of the squared distance to the parent's weights.
        learning_rate: None: 1e-3 with replay and 1e-4 without.
        precision: As in training.TrainingOptions.
        seed: Seed of patches and augmentation.
    """

    model: str = field(metadata=written_by(absolute_if_folder))
    dataset: Path
    folder: Path = field(metadata=NOT_STORED)  # may be moved
    id: str = ""
    title: str = ""
    steps: int | None = None
    minutes: float | None = None
    device: str = "auto"
    uses_replay: bool = True
    pull: float = PARENT_PULL
    learning_rate: float | None = None
    precision: str = "auto"
    seed: int = 0


def unfinished_job(folder: Path) -> FinetuningJob:
    """Return the job of the checkpoint in a folder.

    Raises:
        InputError: No unfinished training was found, or its description cannot be read.
    """
    check_folder(folder, is_resumed=True)
    return FinetuningJob.from_dict(read_start(folder)["job"], folder=folder)


def read_start(folder: Path) -> dict[str, Any]:
    """Return the start of a fine-tuning as recorded in JOB_FILE.

    Raises:
        InputError: The file cannot be read or is incomplete.
    """
    path = folder / JOB_FILE
    try:
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        FinetuningJob.from_dict(values["job"], folder=folder)
        _ = values["parent_sha256"], values["crops_sha256"], list(values["held_back"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} cannot be read ({error}): fine-tuning cannot be resumed, start a new one") from error
    return values


def options_of(job: FinetuningJob, *, has_replay: bool, cases: int) -> TrainingOptions:
    """Return the training options of a job with a number of local cases."""
    steps = job.steps
    if steps is None:
        steps = FIRST_STEPS + STEPS_PER_CASE * cases if job.minutes is None else 1_000_000
    rate = LEARNING_RATE if has_replay else LEARNING_RATE_WITHOUT_REPLAY
    return TrainingOptions(
        steps=steps,
        minutes=job.minutes,
        learning_rate=job.learning_rate or rate,
        weight_decay=0.0,  # the pull is towards the parent, not towards 0
        validate_every=0,
        precision=job.precision,
        has_fixed_statistics=True,
        seed=job.seed,
    )
