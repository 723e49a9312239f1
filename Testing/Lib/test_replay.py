"""Replay crops come back as they were but for the quantisation, stay small, and stem from the right cases."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from UNetSegmentationLib.core.errors import InputError
from UNetSegmentationLib.models.description import read_description
from UNetSegmentationLib.models.installed import bundled_models_folder
from UNetSegmentationLib.training.prepared_case import PreparedCase
from UNetSegmentationLib.training.replay import (
    MAX_BYTES,
    REHEARSAL_CROPS,
    REPLAY_FILE,
    SENTINEL_CROPS,
    Replay,
    draw_replay,
    find_replay,
    read_replay,
    write_replay,
)


def make_case(name, *, shape=(12, 14, 10), channels=1, seed=0):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.zeros(shape, dtype=torch.int16)
    labels[shape[0] // 4 : shape[0] // 2 + 1, 4:8, 2:7] = 1 + seed % 2
    return PreparedCase(
        id=name,
        image=torch.randn(channels, *shape, generator=generator),
        padding=torch.arange(channels, dtype=torch.float32) - 3,
        labels=labels,
        foreground=labels.nonzero().short(),
    )


def make_cases(number, **options):
    return [make_case(f"c{index}", seed=index, **options) for index in range(number)]


def test_a_crop_comes_back_within_half_a_grey_level(tmp_path):
    cases = make_cases(4, channels=2)
    cases[0].image[1] = float("nan")
    cases[1].labels[0, 0, :3] = -1
    crops = tuple(cases)
    write_replay(
        tmp_path / REPLAY_FILE, Replay(rehearsal=crops[:3], sentinels=crops[3:], licence="CC0", source="drawn")
    )
    back = read_replay(tmp_path / REPLAY_FILE)
    assert (back.licence, back.source, len(back.sentinels)) == ("CC0", "drawn", 1)
    for before, after in zip(crops, (*back.rehearsal, *back.sentinels), strict=True):
        assert after.id == before.id
        assert torch.equal(after.labels, before.labels)
        assert torch.equal(after.padding, before.padding)
        assert (after.labels[tuple(after.foreground.long().T)] > 0).all()
        for old, new in zip(before.image, after.image, strict=True):
            if old.isnan().all():
                assert new.isnan().all()
                continue
            low, high = np.percentile(old.numpy(), (0.05, 99.95))
            assert (old.clamp(low, high) - new).abs().max() <= 0.501 * (high - low) / 255


def test_crops_show_labels_and_sentinels_are_of_other_cases():
    replay = draw_replay(make_cases(9), (8, 8, 8))
    assert (len(replay.rehearsal), len(replay.sentinels)) == (REHEARSAL_CROPS, SENTINEL_CROPS)
    rehearsed, watched = ({crop.id for crop in crops} for crops in (replay.rehearsal, replay.sentinels))
    assert not rehearsed & watched
    assert (len(rehearsed), len(watched)) == (6, 3)
    for crop in (*replay.rehearsal, *replay.sentinels):
        assert crop.labels.shape == (8, 8, 8)
        assert len(crop.foreground)
    again = draw_replay(make_cases(9), (8, 8, 8))
    assert all(torch.equal(a.image, b.image) for a, b in zip(replay.rehearsal, again.rehearsal, strict=True))


def test_crops_are_windows_of_their_case_and_never_beyond_it():
    (case,) = make_cases(1, shape=(5, 40, 30))
    for crop in draw_replay([case], (16, 16, 16)).rehearsal:
        assert crop.labels.shape == (5, 16, 16)
        windows = case.image[0].unfold(1, 16, 1).unfold(2, 16, 1)
        assert (windows == crop.image[0].permute(0, 1, 2)[:, None, None]).all(dim=(0, 3, 4)).sum() == 1


@pytest.mark.parametrize(("channels", "patch"), [(1, (96, 96, 96)), (3, (64, 64, 64)), (1, (1, 256, 256))])
def test_the_file_stays_small_even_where_nothing_can_be_deflated(tmp_path, channels, patch):
    replay = draw_replay(make_cases(3, shape=patch, channels=channels), patch)
    write_replay(tmp_path / REPLAY_FILE, replay)
    assert (tmp_path / REPLAY_FILE).stat().st_size < MAX_BYTES + 30_000
    with safe_open(tmp_path / REPLAY_FILE, framework="pt") as file:
        assert json.loads(file.metadata()["replay"])["levels"] >= 32
    assert read_replay(tmp_path / REPLAY_FILE).rehearsal[0].image.shape == replay.rehearsal[0].image.shape


def test_without_labels_there_is_nothing_to_replay():
    case = make_case("a")
    empty = PreparedCase(
        id="e", image=case.image, padding=case.padding, labels=case.labels * 0, foreground=case.foreground[:0]
    )
    with pytest.raises(InputError, match="nothing to replay"):
        draw_replay([empty], (8, 8, 8))


def rewrite(path, change):
    """Change the metadata of a replay file by a function."""
    with safe_open(path, framework="pt") as file:
        about = json.loads(file.metadata()["replay"])
    change(about)
    save_file(load_file(path), path, metadata={"replay": json.dumps(about)})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda about: about.update(version=2), "has version 2"),
        (lambda about: about["crops"][0].update(shape=[1, 12, 14, 11]), "damaged .*bytes instead of"),
        (lambda about: about["crops"][0].update(shape=[1, 9999, 9999, 9999]), "damaged .*not possible"),
        (lambda about: about["crops"][0].update(kind="other"), "damaged"),
        (lambda about: about.pop("levels"), "damaged"),
    ],
)
def test_damaged_crops_are_refused(tmp_path, change, words):
    path = tmp_path / REPLAY_FILE
    write_replay(path, Replay(rehearsal=tuple(make_cases(1)), sentinels=()))
    rewrite(path, change)
    with pytest.raises(InputError, match=words):
        read_replay(path)


def test_a_file_that_is_none_is_refused(tmp_path):
    (tmp_path / REPLAY_FILE).write_bytes(b"no crops")
    with pytest.raises(InputError, match="damaged"):
        read_replay(tmp_path / REPLAY_FILE)
    with pytest.raises(InputError, match="damaged"):
        read_replay(tmp_path / "gone.safetensors")


@pytest.mark.parametrize(
    "folder", sorted(path.parent for path in bundled_models_folder().glob("*/model.json")), ids=lambda path: path.name
)
def test_every_starter_model_has_crops_that_show_nothing_that_was_held_back(folder):
    description = read_description(folder)
    path = find_replay(folder, description.training)
    assert path is not None
    replay = read_replay(path)
    names = {crop.id for crop in (*replay.rehearsal, *replay.sentinels)}
    assert not names & set(description.training["held_back_cases"])
    assert replay.licence == description.training["data_licence"]
    assert replay.rehearsal[0].image.shape[0] == len(description.channels)
    assert path.stat().st_size < 1.5e6
