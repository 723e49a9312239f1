"""Starter models that share the replay crops of another shipped model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from UNetSegmentationLib.core.errors import InputError
from UNetSegmentationLib.core.files import sha256_of, write_text
from UNetSegmentationLib.models.card import card_of
from UNetSegmentationLib.models.description import CARD_FILE, ModelDescription, read_description, write_description
from UNetSegmentationLib.training.replay import REPLAY_FILE, read_replay


def share_replay(folder: Path, other: Path) -> ModelDescription:
    """Let a model use the crops of another that is always installed beside it, to save space.

    Args:
        folder: Model folder; model.json and the card are rewritten.
        other: Model folder with crops, of a model trained on the same cases.

    Raises:
        InputError: A folder is not a model, the other has no crops, this one has some, or the models differ in training
            cases, channels, labels or preprocessing.
    """
    description, owner = read_description(folder), read_description(other)
    if (folder / REPLAY_FILE).exists():
        raise InputError(f"'{description.id}' has its own crops: remove {folder / REPLAY_FILE} to share others")
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
    write_text(folder / CARD_FILE, card_of(description))
    return description


def _must_agree(description: ModelDescription) -> dict[str, object]:
    """Return, by name, what two models must have in common to share crops."""
    training, plan = description.training, description.plan
    grid = (plan.dimensions, plan.spacing_mm, plan.orientation, plan.longest_side, plan.transpose)
    return {
        "the data": (training.get("data"), training.get("held_back_cases")),
        "the channels": description.channels,
        "the labels": description.labels,
        "the preprocessing": (*grid, plan.normalization, plan.conventions),
    }
