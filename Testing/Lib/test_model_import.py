"""A model comes into the user's folder whole or not at all, and leaves it the same way."""

from __future__ import annotations

import os
import shutil
import time
import zipfile
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest

from UNetSegmentationLib.core.errors import CancelledError, InputError
from UNetSegmentationLib.core.task import Task
from UNetSegmentationLib.importers.parts.add_model import add_model
from UNetSegmentationLib.models.description import read_description, write_description
from UNetSegmentationLib.models.installed import InstalledModel, list_models
from UNetSegmentationLib.models.user_folder import (
    INCOMING_PREFIX,
    LEAVING_PREFIX,
    delete_model,
    hold_incoming,
    is_users_own,
    new_incoming_folder,
    place_model,
)
from UNetSegmentationLib.training.replay import REPLAY_FILE, find_replay

FIXTURES = Path(__file__).parents[1] / "Fixtures" / "nnunet"


@pytest.fixture
def users(tmp_path, only_our_models, monkeypatch):  # noqa: ARG001
    """The user's folder of models; other models lie in `tmp_path/models`."""
    folder = tmp_path / "users"
    monkeypatch.setattr("UNetSegmentationLib.models.user_folder.user_models_folder", lambda: folder)
    monkeypatch.setattr("UNetSegmentationLib.models.installed.user_models_folder", lambda: folder)
    return folder


@pytest.fixture
def foreign(tmp_path, tiny_model):
    """A model of ours that lies where no models are looked for."""
    (tmp_path / "elsewhere").mkdir()
    return Path(shutil.move(tiny_model("own"), tmp_path / "elsewhere" / "own"))


def add(source, users, *, is_cancelled=None, stages=None):
    stages = [] if stages is None else stages
    task = Task(lambda event: stages.append(event["stage"]), is_cancelled)
    return add_model(source, models_folder=users, incoming=new_incoming_folder(users), task=task)


def zipped(folder: Path, archive: Path, *, prefix: str = "", names: tuple[str, ...] | None = None) -> Path:
    with zipfile.ZipFile(archive, "w") as opened:
        for path in sorted(folder.rglob("*")):
            if path.is_file() and (names is None or path.name in names):
                opened.write(path, prefix + path.relative_to(folder).as_posix())
    return archive


def content(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("is_zip", [False, True])
@pytest.mark.parametrize("name", ["nnunet/two_folds_ignore", "monai/attention_whole"])
def test_a_model_of_another_tool_becomes_one_that_is_listed(users, tmp_path, name, is_zip):
    source = FIXTURES.parent / name
    stages = []
    model, warnings = add(zipped(source, tmp_path / "a.zip") if is_zip else source, users, stages=stages)
    assert model.folder.parent == users
    assert list_models([users]) == [model]
    assert [path.name for path in users.iterdir()] == [model.description.id]
    assert not any("installed already" in warning for warning in warnings)
    assert stages == ["Reading the model", "Checking the model"]


@pytest.mark.parametrize("is_zip", [False, True])
def test_a_cascade_of_ours_is_copied_with_its_first_stage(users, tmp_path, is_zip):
    original, _warnings = add(FIXTURES / "cascade", users)
    assert (original.folder / "previous" / "model.json").is_file()
    elsewhere = Path(shutil.move(original.folder, tmp_path / "elsewhere"))
    expected = content(elsewhere)
    model, _warnings = add(zipped(elsewhere, tmp_path / "a.zip", prefix="x/") if is_zip else elsewhere, users)
    assert content(model.folder) == expected
    shutil.rmtree(elsewhere / "previous")
    with pytest.raises(InputError, match="lacks its first stage"):
        add(elsewhere, users)


@pytest.mark.parametrize("prefix", [None, "", "own/"])
def test_a_model_of_ours_is_copied_as_it_is(users, foreign, tmp_path, prefix):
    (foreign / "CARD.md").write_text("Größe, id `own`.", encoding="utf-8")
    expected = content(foreign)
    (foreign / "job.json").write_text("{}")
    source = foreign if prefix is None else zipped(foreign, tmp_path / "own.zip", prefix=prefix)
    model, _warnings = add(source, users)
    assert content(model.folder) == expected


@pytest.mark.parametrize("is_beside", [True, False])
def test_a_copy_takes_along_the_crops_that_the_model_shares(users, foreign, is_beside):
    content = b"crops"
    if is_beside:
        (foreign.parent / "other").mkdir()
        (foreign.parent / "other" / REPLAY_FILE).write_bytes(content)
    description = read_description(foreign)
    shared = {"model": "other", "sha256": sha256(content).hexdigest()}
    entry = {"rehearsal": 20, "sentinels": 10, "licence": "CC0"}
    write_description(
        foreign, replace(description, training={**description.training, "replay": {**entry, "shared": shared}})
    )
    model, _ = add(foreign, users)
    assert model.description.training.get("replay") == (entry if is_beside else None)
    assert find_replay(model.folder, model.description.training) == (model.folder / REPLAY_FILE if is_beside else None)
    assert ("small crops" in (model.folder / "CARD.md").read_text(encoding="utf-8")) == is_beside


def test_the_folder_above_a_model_will_do_unless_it_holds_several(users, foreign):
    assert add(foreign.parent, users)[0].description.id == "own"
    shutil.copytree(foreign, foreign.parent / "other")
    with pytest.raises(InputError, match=r"elsewhere holds 2 models \(other, own\): choose one of them"):
        add(foreign.parent, users)


def test_a_second_import_gets_a_number_and_the_first_stays_as_it_is(users, foreign):
    (foreign / "CARD.md").write_text("Of `own`.")
    first, _warnings = add(foreign, users)
    before = content(first.folder)
    second, warnings = add(foreign, users)
    assert content(first.folder) == before
    assert (second.description.id, second.description.title) == ("own-2", "Tiny own (2)")
    assert (second.folder.name, (second.folder / "CARD.md").read_text()) == ("own-2", "Of `own-2`.")
    assert read_description(second.folder) == second.description
    assert warnings == (
        "the same weights are already installed as 'Tiny own'",
        "another model is already called 'own': this one becomes 'own-2'",
    )
    assert add(foreign, users)[0].description.id == "own-3"


def test_an_id_that_a_model_elsewhere_has_is_taken(users, foreign, tiny_model):
    tiny_model("own", seed=1)
    model, warnings = add(foreign, users)
    assert model.description.id == "own-2"
    assert len(warnings) == 1


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda folder: folder / "nowhere", "does not exist"),
        (lambda folder: folder, "contains no model that can be imported"),
        (lambda folder: _file(folder / "a.zip", b"PK"), "neither a folder nor a zip archive"),
        (lambda folder: _file(folder / "model.json", b"{}").parent, "schema_version is None"),
    ],
)
def test_what_is_no_model_is_refused_and_leaves_nothing(users, tmp_path, make, reason):
    (tmp_path / "given").mkdir()
    with pytest.raises(InputError, match=reason):
        add(make(tmp_path / "given"), users)
    assert list(users.iterdir()) == []


def _file(path, data):
    path.write_bytes(data)
    return path


def test_a_damaged_model_of_ours_is_refused_and_named_as_it_was_given(users, foreign, tmp_path):
    weights = foreign / "weights.safetensors"
    write_description(foreign, replace(read_description(foreign), weights_sha256="0" * 64))
    with pytest.raises(InputError, match=f"weights in {foreign} do not match its model.json"):
        add(foreign, users)
    weights.unlink()
    with pytest.raises(InputError, match="has no weights"):
        add(zipped(foreign, tmp_path / "own.zip"), users)
    assert list(users.iterdir()) == []


def test_a_damaged_or_swollen_archive_of_ours_is_refused(users, foreign, tmp_path):
    archive = zipped(foreign, tmp_path / "own.zip")
    data = bytearray(archive.read_bytes())
    data[60:90] = bytes(30)
    with pytest.raises(InputError, match="cannot be unpacked"):
        add(_file(tmp_path / "damaged.zip", bytes(data)), users)
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as opened:
        opened.writestr("model.json", bytes(300 * 2**20))
    with pytest.raises(InputError, match=r"holds a file of 0.3 GB: unpack it yourself"):
        add(tmp_path / "bomb.zip", users)
    assert list(users.iterdir()) == []


def test_paths_of_an_archive_that_lead_out_of_it_are_not_followed(users, foreign, tmp_path):
    archive = zipped(foreign, tmp_path / "own.zip", prefix="../../own/")
    assert add(archive, users)[0].folder == users / "own"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["elsewhere", "models", "own.zip", "users"]


def test_a_model_that_is_installed_is_not_imported_into_itself(users, foreign):
    model, _warnings = add(foreign, users)
    with pytest.raises(InputError, match="is already installed: choose it in the model menu"):
        add(model.folder, users)


def test_a_model_that_cannot_be_copied_is_told(users, foreign, monkeypatch):
    def full(_source, _target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copyfile", full)
    with pytest.raises(InputError, match=r"cannot be copied \(No space left on device\)"):
        add(foreign, users)


@pytest.mark.parametrize("after", [1, 2])
def test_a_cancelled_import_leaves_nothing(users, foreign, after):
    stages = []
    with pytest.raises(CancelledError):
        add(foreign, users, stages=stages, is_cancelled=lambda: len(stages) == after)
    assert list(users.iterdir()) == []


def test_a_model_on_its_way_is_not_listed(users, foreign):
    incoming = new_incoming_folder(users)
    with hold_incoming(incoming) as folder:
        shutil.copytree(foreign, folder)
        assert list_models([users]) == []
    assert not incoming.exists()


def test_what_killed_imports_left_is_removed_after_a_day(users):
    users.mkdir()
    for prefix in (INCOMING_PREFIX, LEAVING_PREFIX):
        (users / f"{prefix}old").mkdir()
        (users / f"{prefix}new").mkdir()
        os.utime(users / f"{prefix}old", (time.time() - 90_000,) * 2)
    with hold_incoming(users / "x"):
        pass
    assert sorted(path.name for path in users.iterdir()) == [f"{INCOMING_PREFIX}new", f"{LEAVING_PREFIX}new"]


def test_a_folder_that_cannot_be_made_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(InputError, match="cannot write to the models folder"),
        hold_incoming(tmp_path / "file" / "in"),
    ):
        pass


def test_a_place_that_is_taken_in_the_last_moment_is_left_alone(users, foreign, monkeypatch):
    rename = Path.rename

    def taken_first(path, target):
        if target.name == "own":
            target.mkdir()
            (target / "theirs").write_text("")
        return rename(path, target)

    users.mkdir()
    monkeypatch.setattr(Path, "rename", taken_first)
    model, original = place_model(foreign, users, taken_ids=())
    assert (model.folder.name, original.id) == ("own-2", "own")
    assert content(users / "own") == {"theirs": b""}


def test_a_place_that_cannot_be_written_is_told(users, foreign, monkeypatch):
    def refused(_path, _target):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "rename", refused)
    with pytest.raises(InputError, match=r"cannot write to the models folder .* \(Permission denied\)"):
        place_model(foreign, users, taken_ids=())


def test_a_model_of_the_users_own_can_be_deleted(users, foreign):
    model, _warnings = add(foreign, users)
    assert is_users_own(model)
    delete_model(model)
    assert list(users.iterdir()) == []


def test_a_link_to_a_model_is_deleted_and_the_model_is_not(users, foreign):
    users.mkdir()
    (users / "own").symlink_to(foreign)
    before = content(foreign)
    delete_model(list_models([users])[0])
    assert list(users.iterdir()) == []
    assert content(foreign) == before


def test_other_models_cannot_be_deleted(users, foreign):  # noqa: ARG001
    model = InstalledModel(foreign, read_description(foreign))
    assert not is_users_own(model)
    with pytest.raises(InputError, match="'own' is not one of your own"):
        delete_model(model)
    assert foreign.is_dir()


def test_a_model_that_cannot_be_deleted_stays_whole(users, foreign, monkeypatch):
    model, _warnings = add(foreign, users)

    def refused(_path, _target):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "rename", refused)
    with pytest.raises(InputError, match=r"cannot be deleted \(Permission denied\): close programs that use it"):
        delete_model(model)
    assert [path.name for path in users.iterdir()] == ["own"]
