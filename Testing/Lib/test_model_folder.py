"""A model folder says what it is, or why it cannot be used."""

import json
import sys
from dataclasses import replace

import pytest

from UNetSegmentationLib.core.errors import InputError
from UNetSegmentationLib.core.files import sha256_of
from UNetSegmentationLib.image.labels import Code, Label
from UNetSegmentationLib.models.description import (
    Channel,
    ModelDescription,
    id_from,
    read_description,
    write_description,
)
from UNetSegmentationLib.models.installed import find_model, list_models, user_models_folder
from UNetSegmentationLib.planning.plan import Normalization, Plan

PLAN = Plan(
    dimensions=3,
    spacing_mm=(1.0, 1.0, 1.0),
    patch_size=(8, 8, 8),
    batch_size=2,
    orientation="RAS",
    normalization=(Normalization(scheme="zscore"),),
)
DESCRIPTION = ModelDescription(
    id="a-model",
    title="Größe",
    network="unet",
    network_config={"in_channels": 1, "num_classes": 2},
    plan=PLAN,
    preset="mri",
    channels=(Channel(name="T1", modality="MR"),),
    labels=(Label(value=1, name="Lung", color=(1, 2, 3), term=Code(scheme="SCT", value="39607008", meaning="Lung")),),
    figures={"cases": 2, "labels": {"Lung": {"dice": 0.9}}},
)


def test_a_description_comes_back_as_it_was(tmp_path):
    write_description(tmp_path, DESCRIPTION)
    assert read_description(tmp_path) == DESCRIPTION
    assert DESCRIPTION.mean_dice == 0.9


@pytest.mark.parametrize(
    ("name", "model_id"),
    [("Mein Modell é", "mein-modell-e"), ("v1.2", "v1-2"), ("-_a_b--c", "a_b-c"), ("Größe", "grosse"), ("肺", "model")],
)
def test_any_name_makes_an_id_that_is_allowed(name, model_id):
    assert id_from(name) == model_id == replace(DESCRIPTION, id=model_id).id


@pytest.mark.parametrize(
    ("platform", "variables", "expected"),
    [
        ("linux", {"XDG_DATA_HOME": "/x"}, "/x/UNetSegmentation/models"),
        ("linux", {"XDG_DATA_HOME": ""}, "/h/.local/share/UNetSegmentation/models"),
        ("linux", {}, "/h/.local/share/UNetSegmentation/models"),
        # Not that of XDG: models installed so far lie here.
        ("darwin", {"XDG_DATA_HOME": "/x"}, "/h/Library/Application Support/UNetSegmentation/models"),
        ("win32", {"LOCALAPPDATA": "/l"}, "/l/UNetSegmentation/models"),
        ("win32", {}, "/h/AppData/Local/UNetSegmentation/models"),
    ],
)
def test_the_users_models_lie_where_they_always_did(monkeypatch, platform, variables, expected):
    for name in ("XDG_DATA_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "/h")
    monkeypatch.setattr(sys, "platform", platform)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert user_models_folder().as_posix() == expected


def test_models_are_found_by_id_by_folder_and_in_the_order_of_folders(tmp_path):
    for parent, title in (("mine", "mine"), ("bundled", "theirs")):
        (tmp_path / parent / "m").mkdir(parents=True)
        write_description(tmp_path / parent / "m", replace(DESCRIPTION, title=title))
    (tmp_path / "mine" / "broken").mkdir()
    (tmp_path / "mine" / "broken" / "model.json").write_text("{")
    folders = [tmp_path / "mine", tmp_path / "bundled", tmp_path / "none"]
    assert [model.description.title for model in list_models(folders)] == ["mine"]
    assert find_model("a-model", folders=folders).folder == tmp_path / "mine" / "m"
    assert find_model(str(tmp_path / "bundled" / "m")).description.title == "theirs"
    with pytest.raises(InputError, match="no model 'other'.*a-model"):
        find_model("other", folders=folders)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"schema_version": 99}, "schema_version is 99"),
        ({"id": "../evil"}, "id '../evil' is not allowed"),
        ({"labels": []}, "at least one label"),
        ({"channels": [{"name": 5}]}, "Channel: name is 5: give a string"),
        ({"channels": [{"name": " "}]}, "channel name ' ' is not text"),
        ({"channels": []}, "0 channels but 1 normalizations"),
        (
            {"plan": {"dimensions": 3}},
            "Plan lacks spacing_mm, patch_size, batch_size, orientation, normalization",
        ),
        ({"surprise": 1}, "ModelDescription has no field surprise: choose from id, title"),
    ],
)
def test_what_cannot_be_understood_is_refused_in_words(tmp_path, change, words):
    (tmp_path / "model.json").write_text(json.dumps({**DESCRIPTION.to_dict(), **change}))
    with pytest.raises(InputError, match=words):
        read_description(tmp_path)


@pytest.mark.parametrize("name", [entry for entry in DESCRIPTION.to_dict() if entry != "figures"])
@pytest.mark.parametrize("value", [None, 5, -0.5, "x", [], {}, [5], {"labels": 5}, True])
def test_an_entry_of_another_kind_never_hides_the_other_models(tmp_path, name, value):
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "model.json").write_text(json.dumps({**DESCRIPTION.to_dict(), name: value}))
    (tmp_path / "good").mkdir()
    write_description(tmp_path / "good", replace(DESCRIPTION, id="good"))
    models = list_models([tmp_path])
    assert "good" in [model.description.id for model in models]
    assert all(model.description.mean_dice == 0.9 for model in models)


@pytest.mark.parametrize(
    "figures", [None, 5, [], {"labels": 5}, {"labels": {"Lung": 5}}, {"labels": {"Lung": {"dice": "x"}}}]
)
def test_figures_that_are_no_table_are_refused(tmp_path, figures):
    (tmp_path / "model.json").write_text(json.dumps({**DESCRIPTION.to_dict(), "figures": figures}))
    with pytest.raises(InputError, match="figures is .*give an object|figures of model 'a-model' have no valid labels"):
        read_description(tmp_path)


def test_two_labels_of_one_name_are_refused():
    with pytest.raises(InputError, match="two labels with the same name"):
        replace(DESCRIPTION, labels=(*DESCRIPTION.labels, Label(value=2, name="Lung", color=(1, 2, 3))))


@pytest.mark.parametrize("text", ["[" * 100_000, "", "[]", "{", "\x00\xff"])
def test_damaged_json_is_refused(tmp_path, text):
    (tmp_path / "model.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(InputError, match="cannot be read as a model"):
        read_description(tmp_path)


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(InputError, match="is not a model folder"):
        read_description(tmp_path)


def test_the_checksum_is_sha256(tmp_path):
    (tmp_path / "x").write_bytes(b"abc")
    assert (
        sha256_of(tmp_path / "x") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    )  # FIPS 180-2, B.1
