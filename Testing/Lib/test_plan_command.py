"""`unetseg plan`: what it reads, writes and says, and that training takes its file."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from UNetSegmentationLib.cases.dataset import find_cases, read_channel_names, read_fingerprint
from UNetSegmentationLib.cli import main
from UNetSegmentationLib.core.errors import InputError
from UNetSegmentationLib.image.geometry import Volume
from UNetSegmentationLib.image.volume_io import write_labelmap, write_volume
from UNetSegmentationLib.planning.plan import read_plan
from UNetSegmentationLib.presets import PRESETS
from UNetSegmentationLib.presets.contract import NORMALIZATIONS, Preset


def write_data(folder: Path, *, cases: int = 3, channels: int = 1) -> Path:
    """Write cases of 12 x 14 x 16 voxels (D, H, W) at 2 x 1 x 1 mm whose content and label are boxes of known size."""
    affine = np.diag([1.0, 1.0, 2.0, 1.0])
    (folder / "images").mkdir(parents=True)
    (folder / "labels").mkdir()
    for case in range(cases):
        image = np.zeros((channels, 12, 14, 16), np.int16)
        image[:, 2:10, 1:14, 3:12] = 50 + np.arange(9) + case
        for channel in range(channels):
            write_volume(
                folder / "images" / f"c{case}_{channel:04d}.nii.gz", Volume(image[channel : channel + 1], affine)
            )
        labels = np.zeros((12, 14, 16), np.uint8)
        labels[4:7, 4:8, 4:8] = 2
        write_labelmap(folder / "labels" / f"c{case}.nii.gz", labels, affine_ras=affine)
    return folder


def run(*words: object) -> int:
    return main([str(word) for word in words])


def test_a_fingerprint_is_what_was_written(tmp_path):
    cases = find_cases(write_data(tmp_path / "d", channels=2))
    fingerprint = read_fingerprint(cases, channel_names=("CT", "PET"))
    assert fingerprint.shapes == ((12, 14, 16),) * 3
    assert fingerprint.cropped_shapes == ((8, 13, 9),) * 3
    assert fingerprint.spacings_mm == ((2.0, 1.0, 1.0),) * 3
    assert fingerprint.class_shares == {2: pytest.approx(48 / (12 * 14 * 16))}
    assert (fingerprint.subjects, fingerprint.channel_names) == (3, ("CT", "PET"))
    # Labelled columns 4 to 7 hold 51 to 54, plus the number of the case.
    assert fingerprint.foreground[0]["mean"] == pytest.approx(53.5)


def test_the_plan_is_explained_and_train_takes_it(tmp_path, capsys):
    data, file = write_data(tmp_path / "d", cases=4), tmp_path / "plan.json"
    assert run("plan", data, "-o", file, "--channels", "CT", "--variant", "vnet") == 0
    said = capsys.readouterr().out
    assert "Patch: 8 x 14 x 10, the median image (8 x 13 x 9)" in said
    assert "V-Net with 2 stages" in said
    assert "Intensity: CT is clipped to" in said
    assert run("plan", data, "-o", file, "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert document == json.loads(file.read_text())
    assert document["fingerprint"]["label_names"] == ["Label 2"]
    values = {**document, "plan": {**document["plan"], "patch_size": [8, 16, 16]}}
    file.write_text(json.dumps(values))
    model = tmp_path / "m"
    assert run("train", data, "-o", model, "--plan", file, "--steps", "1", "--fold", "0/2", "--device", "cpu") == 0
    trained = json.loads((model / "model.json").read_text())["plan"]
    assert trained["patch_size"] == [8, 16, 16]
    assert read_plan(file).to_dict()["patch_size"] == [8, 16, 16]


@pytest.mark.parametrize("scheme", NORMALIZATIONS)
def test_every_scaling_is_explained_in_words_of_its_own(tmp_path, capsys, monkeypatch, scheme):
    PRESETS["ct"]
    monkeypatch.setitem(PRESETS._entries, "own", Preset(title="Own", modalities=("OT",), normalization=scheme))
    data, file = write_data(tmp_path / "d"), tmp_path / "plan.json"
    # A channel called CT is scaled as CT whatever the preset.
    assert run("plan", data, "-o", file, "--preset", "own", "--channels", "CT" if scheme == "ct" else "scan") == 0
    document = json.loads(file.read_text())
    assert [entry["scheme"] for entry in document["plan"]["normalization"]] == [scheme]
    (sentence,) = [entry for entry in document["explanation"] if entry.startswith("Intensity:")]
    assert sentence in capsys.readouterr().out
    words = {
        "zscore": "mean 0 and standard deviation 1",
        "ct": "clipped to",
        "percentile": "from its 1st to its 99th percentile",
        "rescale": "from its minimum to its maximum",
        "rgb": "divided by 255",
        "none": "kept as stored",
    }
    assert words[scheme] in sentence


def test_names_of_channels_are_those_of_nnunets_dataset_json(tmp_path):
    assert read_channel_names(tmp_path) == ()
    (tmp_path / "dataset.json").write_text(json.dumps({"channel_names": {"1": "PET", "0": "CT"}}))
    assert read_channel_names(tmp_path) == ("CT", "PET")
    (tmp_path / "dataset.json").write_text(json.dumps({"channel_names": ["CT"]}))
    with pytest.raises(InputError, match="channel names in .* cannot be read"):
        read_channel_names(tmp_path)


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("--variant", "wnet"), "unknown network 'wnet'"),
        (("--preset", "sonography"), "unknown preset 'sonography'"),
        (("--channels", "CT", "PET"), "2 channel names are given, but the images have 1 channel"),
        (("--variant", "brain_tumour"), "in_channels is 1"),
    ],
)
def test_what_cannot_be_planned_is_one_line(tmp_path, capsys, words, text):
    assert run("plan", write_data(tmp_path / "d", cases=1), "-o", tmp_path / "p.json", *words) == 2
    error = capsys.readouterr().err
    assert text in error
    assert error.count("\n") == 1
    assert not (tmp_path / "p.json").exists()


def test_channels_that_train_is_told_stand_in_the_plan_and_the_model(tmp_path, capsys):
    data, model = write_data(tmp_path / "d", cases=2, channels=2), tmp_path / "m"
    words = ("train", data, "-o", model, "--steps", "1", "--fold", "0/2", "--device", "cpu")
    assert run(*words, "--channels", "CT") == 2
    assert (
        "1 channel names are given, but the images have 2 channels: give one name per channel"
        in capsys.readouterr().err
    )
    assert run(*words, "--channels", "CT", "PET") == 0
    written = json.loads((model / "model.json").read_text())
    assert [(channel["name"], channel["modality"]) for channel in written["channels"]] == [("CT", "CT"), ("PET", "PT")]
    assert [scheme["scheme"] for scheme in written["plan"]["normalization"]] == ["ct", "zscore"]
