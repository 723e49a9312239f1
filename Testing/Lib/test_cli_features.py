"""`unetseg features`, and missing channels on the command line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from UNetSegmentationLib.cli import main
from UNetSegmentationLib.core.files import sha256_of
from UNetSegmentationLib.image.geometry import Volume, same_grid
from UNetSegmentationLib.image.labels import Label
from UNetSegmentationLib.image.volume_io import read_labelmap, read_volume, write_volume
from UNetSegmentationLib.inference.feature_maps import view_features
from UNetSegmentationLib.inference.predictor import Predictor
from UNetSegmentationLib.models.description import WEIGHTS_FILE, Channel, ModelDescription, write_description
from UNetSegmentationLib.networks import build_network
from UNetSegmentationLib.networks.parts.weights import save_weights
from UNetSegmentationLib.planning.plan import Normalization, Plan

OBLIQUE = np.array([[0.0, -1.1, 0.3, 10.0], [-1.0, 0.0, 0.0, 20.0], [0.0, 0.3, 1.2, -30.0], [0.0, 0.0, 0.0, 1.0]])
SEQUENCES = ("T1", "T2", "FLAIR")

pytestmark = pytest.mark.usefixtures("only_our_models")


def make_model(folder: Path, network: str, *, channels: tuple[str, ...] = SEQUENCES) -> Path:
    config = {"in_channels": len(channels), "num_classes": 2, "dimensions": 3, "features_per_stage": [4, 6]}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        built = build_network(network, config)
    folder.mkdir(parents=True)
    save_weights(folder / WEIGHTS_FILE, built)
    description = ModelDescription(
        id=folder.name,
        title=folder.name,
        network=network,
        network_config=config,
        plan=Plan(
            dimensions=3,
            spacing_mm=(1.0, 1.0, 1.0),
            patch_size=(8, 8, 8),
            batch_size=1,
            orientation="RAS",
            normalization=(Normalization(scheme="zscore"),) * len(channels),
        ),
        preset="mri",
        channels=tuple(Channel(name=name, is_optional=built.accepts_missing_channels) for name in channels),
        labels=(Label(value=1, name="Structure", color=(230, 159, 0)),),
        weights_sha256=sha256_of(folder / WEIGHTS_FILE),
    )
    write_description(folder, description)
    return folder


def write_image(path: Path, *, shape=(1, 9, 11, 10), seed=0) -> Path:
    write_volume(path, Volume(np.random.default_rng(seed).integers(0, 200, shape).astype(np.int16), OBLIQUE))
    return path


def run(*words: object) -> int:
    return main([str(word) for word in words])


def one_line(text: str) -> str:
    assert text.startswith("unetseg: "), text
    assert text.count("\n") == 1, text
    return text


@pytest.fixture
def fusion(tmp_path: Path) -> Path:
    return make_model(tmp_path / "models" / "fusion", "sequence_fusion")


def with_missing(paths: list[Path | None]) -> Volume:
    first = next(read_volume(path) for path in paths if path is not None)
    gap = np.full_like(first.array, np.nan, dtype=np.float32)
    arrays = [gap if path is None else read_volume(path).array.astype(np.float32) for path in paths]
    return Volume(np.concatenate(arrays), first.affine_ras)


@pytest.mark.parametrize("given", [(0, 1), (1, 2), (2,), (0,)])
@pytest.mark.parametrize("is_named", [True, False])
def test_a_missing_channel_reaches_the_predictor_as_nan_with_a_warning(tmp_path, fusion, capsys, given, is_named):
    paths = [
        write_image(tmp_path / f"p_{index:04d}.nii.gz", seed=index) if index in given else None for index in range(3)
    ]
    named = ",".join("-" if path is None else str(path) for path in paths)
    assert run("segment", named if is_named else paths[given[0]], "-o", tmp_path / "o.nii.gz", "--json") == 0
    output = capsys.readouterr()
    lines = output.err.splitlines()
    assert len(lines) == 3 - len(given)
    for line, name in zip(lines, [name for index, name in enumerate(SEQUENCES) if index not in given], strict=True):
        assert f"{name} is missing: the result is less certain" in line
    expected = Predictor(fusion, device="cpu").segment(with_missing(paths))
    assert np.array_equal(read_labelmap(tmp_path / "o.nii.gz").array[0], expected.labelmap)
    assert len(np.unique(expected.labelmap)) == 2


def test_a_lone_numbered_file_may_also_hold_all_channels(tmp_path, fusion, capsys):
    image = write_image(tmp_path / "p_0001.nrrd", shape=(3, 9, 11, 10))
    assert run("segment", image, "-o", tmp_path / "o") == 0
    assert capsys.readouterr().err == ""
    found = read_labelmap(tmp_path / "o" / "p_0001.seg.nrrd").array[0]
    assert np.array_equal(found, Predictor(fusion, device="cpu").segment(read_volume(image)).labelmap)


@pytest.mark.usefixtures("fusion")
def test_what_may_not_be_missing_is_told_in_one_line(tmp_path, capsys):
    make_model(tmp_path / "models" / "strict", "unet")
    first, third = (write_image(tmp_path / f"p_{number:04d}.nii.gz", seed=number) for number in (0, 2))
    both = write_image(tmp_path / "both.nrrd", shape=(2, 9, 11, 10))
    lone = write_image(tmp_path / "scan.nii.gz")
    cases = [
        ("strict", first, "T2 is missing for"),
        ("strict", f"{first},-,{third}", "T2 is missing for"),
        ("fusion", f"{first},-", "lists 2 channels, but model 'fusion' needs 3 (T1, T2, FLAIR)"),
        ("fusion", "-,-,-", "an image without files does not exist"),
        ("fusion", f"-,-,{tmp_path}/gone.nii", "gone.nii does not exist"),
        ("fusion", f"{both},-,-", "has 2 channels: with '-', give one single-channel file for each of the others"),
        ("fusion", lone, "1 channel(s), but model 'fusion' needs 3"),
    ]
    for model, image, text in cases:
        assert run("segment", image, "-o", tmp_path / "o.nrrd", "--model", model) == 2
        assert text in one_line(capsys.readouterr().err)


@pytest.mark.usefixtures("fusion")
def test_a_model_is_chosen_by_what_may_be_missing(tmp_path, capsys):
    make_model(tmp_path / "models" / "strict", "unet")
    image = write_image(tmp_path / "p_0000.nii.gz")
    assert run("segment", f"{image},-,-", "-o", tmp_path / "o.nrrd", "--json") == 0
    assert json.loads(capsys.readouterr().out)["model"] == "fusion"
    assert run("segment", image, "-o", tmp_path / "o.nrrd", "--json") == 0
    assert json.loads(capsys.readouterr().out)["model"] == "fusion"


@pytest.mark.parametrize("suffix", ["nii.gz", "nrrd"])
def test_features_are_the_librarys_on_the_images_grid(tmp_path, capsys, suffix):
    model = make_model(tmp_path / "models" / "gated", "attention_unet", channels=("T1",))
    image = write_image(tmp_path / "scan é.nii.gz")
    assert run("features", image, "-o", tmp_path / "maps here", "--model", model, "--format", suffix, "--json") == 0
    output = capsys.readouterr()
    assert output.err == ""
    entries = json.loads(output.out)["maps"]
    expected = view_features(Predictor(model, device="cpu"), read_volume(image))
    assert [entry["name"] for entry in entries] == list(expected) == ["skip 0", "gate 0"]
    for entry in entries:
        found = read_volume(entry["file"])
        assert entry["file"].endswith(f"scan é_{entry['name'].replace(' ', '-')}.{suffix}")
        assert same_grid(found, read_volume(image))
        assert np.array_equal(found.array, expected[entry["name"]].array)


def test_features_can_be_listed_chosen_and_read_by_channel(tmp_path, fusion, capsys):
    assert run("features", "--model", fusion, "--list") == 0
    assert capsys.readouterr().out.splitlines() == ["map     stride", "skip 0  1 x 1 x 1"]
    image = write_image(tmp_path / "p_0000.nii.gz")
    words = ("features", f"{image},-,-", "-o", tmp_path / "o", "--names", "skip 0", "--channel", 1)
    assert run(*words) == 0
    output = capsys.readouterr()
    assert output.err.count("is missing") == 2
    assert [path.name for path in (tmp_path / "o").iterdir()] == ["p_0000_skip-0.nii.gz"]
    (expected,) = view_features(
        Predictor(fusion, device="cpu"), with_missing([image, None, None]), names=["skip 0"], channel=1
    ).values()
    assert np.array_equal(read_volume(tmp_path / "o" / "p_0000_skip-0.nii.gz").array, expected.array)


@pytest.mark.usefixtures("fusion")
def test_wrong_usage_of_features_is_one_line_and_writes_nothing(tmp_path, capsys):
    image = write_image(tmp_path / "p_0000.nii.gz")
    (tmp_path / "file").write_text("")
    cases = [
        ((), "an image and an output folder are required"),
        ((image, "-o", tmp_path / "o", "--names", "gate 0"), "no feature map gate 0: it has skip 0"),
        ((image, "-o", tmp_path / "o", "--channel", 99), "has channels 0 to "),
        ((image, "-o", tmp_path / "file"), "is a file: choose a folder"),
        ((image, "-o", tmp_path / "file" / "o"), "is a file; choose another folder"),
        ((tmp_path / "gone.nii", "-o", tmp_path / "o"), "gone.nii does not exist"),
        (("--list",), "no model is given"),
    ]
    for words, text in cases:
        assert run("features", *words) == 2
        assert text in (error := capsys.readouterr().err).splitlines()[-1]
        assert "Traceback" not in error
    assert not (tmp_path / "o").exists()
