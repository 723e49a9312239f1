"""Fine-tuning: continue any model on a few local cases without forgetting."""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from hashlib import sha256
from math import isfinite
from pathlib import Path
from typing import Any

import torch

from .. import __version__
from ..augmentation import AugmentationConfig
from ..backends.parts.devices import choose_device
from ..cases.dataset import Case, find_cases, read_label_values
from ..core.errors import InputError
from ..core.event_log import TrainingRecord
from ..core.files import atomic_path, sha256_of, write_text
from ..core.task import UNWATCHED, Task
from ..image.labels import Label
from ..models.card import write_card
from ..models.description import WEIGHTS_FILE, ModelDescription, id_from, write_description
from ..models.installed import find_model
from ..networks import SegmentationNetwork
from ..networks.parts.ensemble import Ensemble
from ..networks.parts.weights import load_network, save_weights
from ..planning.plan import Plan
from ..training.checkpoint import CHECKPOINT_FILE
from ..training.job import RECORD_FILE, exclusive_folder
from ..training.loop import train
from ..training.options import TrainingOptions
from ..training.patches import PatchSource
from ..training.prepared_case import PreparedCase
from ..training.prepared_cases import PreparedFolder, keep_prepared_cases_until_done
from ..training.replay import REPLAY_FILE, Replay, find_replay, read_replay
from ..training.run import recorded
from ..training.setup import augmentation_for
from .forgetting import MixedPatches, loss_of_change
from .gate import GateRow, compare_models, hold_back, judge
from .job import JOB_FILE, UNLABELLED, FinetuningJob, options_of, read_start

# Entries of the parent's training record that apply to the new model, too.
INHERITED = ("data", "data_licence")
# Large enough that the random draws of two sources differ.
_SEED_STEP = 7919


@dataclass(frozen=True, kw_only=True)
class _Parent:
    """The model to continue: all members for prediction, one network for training."""

    network: SegmentationNetwork
    trained: SegmentationNetwork
    description: ModelDescription
    replay: Replay | None
    crops: bytes
    folder: Path


def run_finetuning(job: FinetuningJob, *, is_resumed: bool = False, task: Task = UNWATCHED) -> ModelDescription:
    """Make a model folder from a parent and local cases; it is kept with the verdict, whatever the gate decides.

    Args:
        job: Fine-tuning job.
        is_resumed: Resume from the folder's checkpoint.
        task: Told the events of dataset.read_label_values, PreparedFolder.fill, loop.train and gate.compare_models;
            {"event": "stage", "message": ...} between them; {"event": "gate", ...} with the result of gate.judge, and
            {"event": "done", "description": ...}. Often checked for cancellation.

    Returns:
        The new model's description.

    Raises:
        InputError: The model, the cases or the job cannot be used, another training is running in the folder, or it
            already contains a model.
        CancelledError: The task was cancelled; once training has begun, it can be resumed from the checkpoint.
    """
    with exclusive_folder(job.folder, is_resumed=is_resumed):
        with keep_prepared_cases_until_done(job.folder):
            description = _finetune_exclusively(job, is_resumed=is_resumed, task=task)
        task.report({"event": "done", "description": description.to_dict()})
    return description


def _finetune_exclusively(job: FinetuningJob, *, is_resumed: bool, task: Task) -> ModelDescription:
    """Do the work of run_finetuning in a locked folder."""
    task.report({"event": "stage", "message": "Reading the model and the cases"})
    parent = _read_parent(job)
    _ = _named(job, parent.description)  # report an impossible id before training
    plan, labels = parent.description.plan, parent.description.labels
    cases = find_cases(job.dataset)
    values = read_label_values(cases, task=task)
    ignored = _ignored_value(values, labels)
    held_back = hold_back(cases, parent.description)
    local = [case for case in cases if case not in held_back]
    options = options_of(job, has_replay=parent.replay is not None, cases=len(local))
    _write_or_check_start(job, parent, held_back, is_resumed=is_resumed)
    folder = PreparedFolder(job.folder, plan, labels, ignored=ignored)
    folder.fill([*local, *held_back], task=task)
    prepared, watched = ([folder.open(case) for case in part] for part in (local, held_back))
    network, device = deepcopy(parent.trained), choose_device(job.device)
    augmentation = augmentation_for(plan, labels)
    record = TrainingRecord(job.folder / RECORD_FILE)
    task.report({"event": "stage", "message": _strategy(parent, local, held_back)})
    steps, seconds = train(
        network,
        [*prepared, *(parent.replay.rehearsal if parent.replay else ())],
        [],
        plan,
        options=options,
        augmentation=augmentation,
        folder=job.folder,
        device=device,
        patches=_patches(prepared, parent.replay, plan, options, augmentation),
        extra_loss=loss_of_change(
            parent.trained, device, pull=job.pull, teacher=None if parent.replay else parent.network
        ),
        task=recorded(task, record, labels=labels),
    )
    save_weights(job.folder / WEIGHTS_FILE, network, is_half=_is_half(parent.folder))
    task.report({"event": "stage", "message": "Comparing with the parent"})
    groups = {"sentinel": parent.replay.sentinels if parent.replay else (), "local": watched}
    rows = compare_models(parent.network, network, groups, plan, device=device, task=task)
    verdict = judge(rows)
    record.append({"event": "gate", "step": steps, **verdict})
    task.report({"event": "gate", **verdict})
    description = _describe(job, parent, rows, verdict, _record_of(job, options, local, held_back, steps, seconds))
    _finish(job, parent, description)
    return description


def _read_parent(job: FinetuningJob) -> _Parent:
    folder = find_model(job.model).folder
    network, description = load_network(folder)
    if description.previous_stage is not None:
        raise InputError(
            f"model '{description.id}' is the second stage of a cascade: fine-tuning needs a network that takes the "
            "image alone; choose another model"
        )
    if description.output != "labels":
        raise InputError(
            f"model '{description.id}' predicts overlapping regions: fine-tuning needs one label per voxel; "
            "continue training it in the tool that it comes from"
        )
    trained = network.members[0] if isinstance(network, Ensemble) else network
    assert isinstance(trained, SegmentationNetwork)
    crops = find_replay(folder, description.training) if job.uses_replay else None
    return _Parent(
        network=network,
        trained=trained,
        description=description,
        replay=read_replay(crops) if crops else None,
        crops=crops.read_bytes() if crops else b"",
        folder=folder,
    )


def _ignored_value(values: Sequence[int], labels: Sequence[Label]) -> int | None:
    """Return the value of unlabelled voxels, or None if the model has a label with this value.

    Raises:
        InputError: A labelmap holds a value that the model does not know.
    """
    known = {label.value for label in labels}
    ignored = None if UNLABELLED in known else UNLABELLED
    unknown = sorted(set(values) - known - {UNLABELLED})
    if unknown:
        raise InputError(
            f"labelmaps contain the values {unknown}, but the model knows {sorted(known)}"
            f"{f' and {UNLABELLED} for unlabelled voxels' if ignored else ''}: change them or train a new model"
        )
    return ignored


def _patches(
    local: Sequence[PreparedCase],
    replay: Replay | None,
    plan: Plan,
    options: TrainingOptions,
    augmentation: AugmentationConfig,
) -> MixedPatches:
    """Return batches that are half local; in 3D one patch of each kind, in 2D half of the plan's batch each."""
    half = replace(plan, batch_size=1 if plan.dimensions == 3 else max(1, plan.batch_size // 2))
    sources = [PatchSource(local, half, options, augmentation)]
    if replay is not None:
        other = replace(options, seed=options.seed + _SEED_STEP)
        sources.append(PatchSource(replay.rehearsal, half, other, augmentation))
    return MixedPatches(sources)


def _strategy(parent: _Parent, local: Sequence[Case], held_back: Sequence[Case]) -> str:
    how = (
        f"rehearsing {len(parent.replay.rehearsal)} crops of the parent's training images"
        if parent.replay
        else "staying close to the parent's predictions, as it comes without crops of its training images"
    )
    kept = f", {len(held_back)} held back" if held_back else ""
    return f"Continuing '{parent.description.id}' on {len(local)} local case(s){kept}, {how}"


def _write_or_check_start(job: FinetuningJob, parent: _Parent, held_back: Sequence[Case], *, is_resumed: bool) -> None:
    """Record the start of a fine-tuning, or check that a resumed one has the same.

    Raises:
        InputError: Something has changed since the training began.
    """
    started: dict[str, Any] = {
        "job": job.to_dict(),
        "parent_sha256": sha256_of(parent.folder / WEIGHTS_FILE),
        "crops_sha256": sha256(parent.crops).hexdigest() if parent.crops else "",
        "held_back": [case.id for case in held_back],
    }
    if is_resumed:
        begun = read_start(job.folder)
        free = ("steps", "minutes", "device", "id", "title")
        now, then = job.to_dict(), begun["job"]
        changed = [name for name in now if name not in free and now[name] != then.get(name)]
        changed += [name for name in ("parent_sha256", "crops_sha256", "held_back") if started[name] != begun[name]]
        if changed:
            raise InputError(
                f"{', '.join(changed)} changed since fine-tuning began: restore it, or start a new fine-tuning"
            )
    write_text(job.folder / JOB_FILE, json.dumps(started, indent=1))


def _describe(
    job: FinetuningJob,
    parent: _Parent,
    rows: Sequence[GateRow],
    verdict: dict[str, Any],
    record: dict[str, Any],
) -> ModelDescription:
    old = parent.description
    inherited: dict[str, Any] = {name: old.training[name] for name in INHERITED if name in old.training}
    if parent.replay:
        about = old.training.get("replay", {"licence": parent.replay.licence})
        inherited["replay"] = {name: value for name, value in about.items() if name != "shared"}
    return replace(
        _named(job, old),
        members=1,
        parent=old.id,
        weights_sha256=sha256_of(job.folder / WEIGHTS_FILE),
        training={
            **inherited,
            **record,
            "parent": {"id": old.id, "weights_sha256": old.weights_sha256, "figures": old.figures.get("labels", {})},
            "local_cases": sorted({*old.training.get("local_cases", ()), *record["local_cases"]}),
        },
        figures={**_local_figures(old.labels, rows), "gate": verdict},
    )


def _named(job: FinetuningJob, parent: ModelDescription) -> ModelDescription:
    name = job.id or id_from(job.folder.resolve().name)
    return replace(parent, id=name, title=job.title or f"{parent.title}, fine-tuned")


def _local_figures(labels: Sequence[Label], rows: Sequence[GateRow]) -> dict[str, Any]:
    """Return the mean Dice of the new model by label over the held-back local cases."""
    local = [row for row in rows if row.group == "local"]
    figures = {}
    for value, label in enumerate(labels, start=1):
        finite = [row.new[value] for row in local if isfinite(row.new[value])]
        if finite:
            figures[label.name] = {"dice": round(sum(finite) / len(finite), 4)}
    return {"cases": len(local), "labels": figures}


def _record_of(
    job: FinetuningJob,
    options: TrainingOptions,
    local: Sequence[Case],
    held_back: Sequence[Case],
    steps: int,
    seconds: float,
) -> dict[str, Any]:
    return {
        "cases": len(local),
        "subjects": len({case.subject for case in local}),
        "local_cases": [case.id for case in local],
        "held_back_cases": [case.id for case in held_back],
        "held_back_local_cases": [case.id for case in held_back],
        "held_back_subjects": len({case.subject for case in held_back}),
        "steps": steps,
        "minutes": round(seconds / 60, 1),
        "options": {**options.to_dict(), "pull": job.pull},
        "date": datetime.now(UTC).date().isoformat(),
        "versions": {"unetsegmentation": __version__, "torch": torch.__version__, "python": platform.python_version()},
    }


def _finish(job: FinetuningJob, parent: _Parent, description: ModelDescription) -> None:
    """Complete the model folder; the parent's crops are passed on, without any of the local cases."""
    if parent.crops:
        with atomic_path(job.folder / REPLAY_FILE) as temporary:
            temporary.write_bytes(parent.crops)
    write_description(job.folder, description)
    write_card(job.folder, description)
    for name in (CHECKPOINT_FILE, JOB_FILE):
        (job.folder / name).unlink(missing_ok=True)


def _is_half(folder: Path) -> bool:
    """Return whether a model's weights are stored in half precision."""
    from safetensors import safe_open

    with safe_open(folder / WEIGHTS_FILE, framework="pt") as file:
        return any(file.get_slice(name).get_dtype() == "F16" for name in file.keys())  # noqa: SIM118
