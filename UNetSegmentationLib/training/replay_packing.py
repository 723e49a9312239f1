"""Add replay crops to a model folder, at the end of training or later."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ..cases.dataset import find_cases
from ..core.errors import InputError
from ..models.card import write_card
from ..models.description import ModelDescription, read_description, write_description
from .prepared_case import PreparedCase, prepare_case
from .replay import MAX_BYTES, REHEARSAL_CROPS, REPLAY_FILE, SENTINEL_CROPS, draw_replay, write_replay


def add_replay(
    folder: Path, cases: Sequence[PreparedCase], description: ModelDescription, *, max_bytes: int = MAX_BYTES
) -> ModelDescription:
    """Write crops of prepared training cases into a model folder and return the updated description."""
    training = description.training
    licence, source = training.get("data_licence", ""), training.get("data", "")
    replay = draw_replay(cases, description.plan.patch_size, licence=licence, source=source)
    write_replay(folder / REPLAY_FILE, replay, max_bytes=max_bytes)
    about = {"rehearsal": len(replay.rehearsal), "sentinels": len(replay.sentinels), "licence": licence}
    return replace(description, training={**training, "replay": about})


def pack_replay(folder: Path, dataset: Path, *, max_bytes: int = MAX_BYTES) -> ModelDescription:
    """Add replay crops to a model that was trained without them, excluding held-back cases.

    Args:
        folder: Model folder; model.json and the card are rewritten.
        dataset: Data set that the model was trained on.
        max_bytes: Largest size of the crops, provided that 32 grey levels fit.

    Raises:
        InputError: The folder is not a model, or the data set lacks held-back cases, so it is not that of the model.
    """
    description = read_description(folder)
    held_back = set(description.training.get("held_back_cases", ()))
    cases = find_cases(dataset)
    if missing := sorted(held_back - {case.id for case in cases}):
        raise InputError(
            f"{dataset} has no case {missing[0]}, which '{description.id}' held back: use the data it was trained on"
        )
    subjects = {case.subject for case in cases if case.id in held_back}
    usable = [case for case in cases if case.subject not in subjects]
    order = np.random.default_rng(0).permutation(len(usable))[: REHEARSAL_CROPS + SENTINEL_CROPS]
    prepared = [prepare_case(usable[index], description.plan, description.labels) for index in sorted(order)]
    description = add_replay(folder, prepared, description, max_bytes=max_bytes)
    write_description(folder, description)
    write_card(folder, description)
    return description
