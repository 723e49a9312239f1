"""Put replay crops into a model folder, as a training ends or later."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ..cases.dataset import find_cases
from ..core.errors import InputError
from ..core.files import sha256_of
from ..models.card import write_card
from ..models.description import ModelDescription, read_description, write_description
from .prepared_case import PreparedCase, prepare_case
from .replay import MAX_BYTES, REHEARSAL_CROPS, REPLAY_FILE, SENTINEL_CROPS, draw_replay, read_replay, write_replay


def add_replay(
    folder: Path, cases: Sequence[PreparedCase], description: ModelDescription, *, max_bytes: int = MAX_BYTES
) -> ModelDescription:
    """Write crops of prepared training cases into a model folder and return the description that says so."""
    training = description.training
    licence, source = training.get("data_licence", ""), training.get("data", "")
    replay = draw_replay(cases, description.plan.patch_size, licence=licence, source=source)
    write_replay(folder / REPLAY_FILE, replay, max_bytes=max_bytes)
    about = {"rehearsal": len(replay.rehearsal), "sentinels": len(replay.sentinels), "licence": licence}
    return replace(description, training={**training, "replay": about})


def pack_replay(folder: Path, dataset: Path, *, max_bytes: int = MAX_BYTES) -> ModelDescription:
    """Add replay crops to a model that was trained without them; cases that were held back are left out.

    Args:
        folder: Model folder; model.json and the card are written anew.
        dataset: What the model was trained on.
        max_bytes: Of the crops, as long as 32 grey levels fit.

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
    description = add_replay(folder, prepared, description, max_bytes=max_bytes)
    write_description(folder, description)
    write_card(folder, description)
    return description


def share_replay(folder: Path, other: Path) -> ModelDescription:
    """Let a model be continued with the crops of another that will lie beside it wherever it is used, to save space.

    Args:
        folder: Model folder; model.json and the card are written anew.
        other: Model folder with crops, of a model that learnt from the same cases.

    Raises:
        InputError: A folder is no model, the other has no crops, this one has some, or the models differ in what they
            learnt from, in their channels or labels, or in how they prepare images.
    """
    description, owner = read_description(folder), read_description(other)
    if (folder / REPLAY_FILE).exists():
        raise InputError(f"'{description.id}' has crops of its own: remove {folder / REPLAY_FILE} to share others")
    replay = read_replay(other / REPLAY_FILE)
    ours, theirs = _must_agree(description), _must_agree(owner)
    differences = [name for name in ours if ours[name] != theirs[name]]
    if differences:
        raise InputError(
            f"the crops of '{owner.id}' do not suit '{description.id}': {', '.join(differences)} are not the same; "
            "train with --replay instead"
        )
    shared = {"model": other.resolve().name, "sha256": sha256_of(other / REPLAY_FILE)}
    counts = {"rehearsal": len(replay.rehearsal), "sentinels": len(replay.sentinels)}
    about = {**counts, "licence": replay.licence, "shared": shared}
    description = replace(description, training={**description.training, "replay": about})
    write_description(folder, description)
    write_card(folder, description)
    return description


def _must_agree(description: ModelDescription) -> dict[str, object]:
    """Return what must be the same of two models for the one's crops to serve the other, by its name."""
    training, plan = description.training, description.plan
    grid = (plan.dimensions, plan.spacing_mm, plan.orientation, plan.longest_side, plan.transpose)
    return {
        "the data": (training.get("data"), training.get("held_back_cases")),
        "the channels": description.channels,
        "the labels": description.labels,
        "the preparation of images": (*grid, plan.normalization, plan.conventions),
    }
