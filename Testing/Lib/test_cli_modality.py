"""The command line and images of another modality than a model's: refused unless the model was named."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from UNetSegmentationLib.cli import main
from UNetSegmentationLib.image.dicom_series import modality_of
from UNetSegmentationLib.image.geometry import Volume
from UNetSegmentationLib.image.volume_io import write_volume
from UNetSegmentationLib.inference.predictor import Predictor
from UNetSegmentationLib.models.fit import lowest_value, value_warning, why_unsuited

SHAPE = (1, 8, 9, 10)

pytestmark = pytest.mark.usefixtures("only_our_models")


def run(*words: object) -> int:
    return main([str(word) for word in words])


def write_image(path: Path, *, lowest: int) -> Path:
    values = np.random.default_rng(0).integers(max(lowest, 0), 300, SHAPE).astype(np.int16)
    values[0, 0, 0, 0] = lowest
    write_volume(path, Volume(values, np.eye(4)))
    return path


def write_dicom(folder: Path, modality: str) -> Path:
    folder.mkdir()
    values = np.random.default_rng(0).integers(0, 300, (1, 12, 12)).astype(np.int16)
    for number in range(6):
        image = sitk.GetImageFromArray(values)
        tags = {
            "0008|0060": modality,
            "0020|000d": "1.2.3",
            "0020|000e": "1.2.3.4",
            "0008|0018": f"1.2.3.4.{number + 1}",
            "0020|0032": f"0\\0\\{number}",
            "0020|0037": "1\\0\\0\\0\\1\\0",
            "0020|0013": str(number + 1),
        }
        for tag, value in tags.items():
            image.SetMetaData(tag, value)
        writer = sitk.ImageFileWriter()
        writer.KeepOriginalImageUIDOn()
        writer.SetFileName(str(folder / f"{number}.dcm"))
        writer.Execute(image)
    return folder


def test_ct_is_refused_for_an_mri_model_that_nobody_named(tmp_path, tiny_model, capsys):
    tiny_model("brain")
    image = write_image(tmp_path / "ct.nii.gz", lowest=-1024)
    words = ("segment", image, "-o", tmp_path / "o.nrrd")
    assert run(*words) == 2
    error = capsys.readouterr().err
    assert "ct.nii.gz has values down to -1024, as CT has, but model 'brain' is for MRI" in error
    assert "no installed model is suitable; '--model brain' uses this one anyway" in error
    assert not (tmp_path / "o.nrrd").exists()
    tiny_model("head")
    assert run(*words) == 2
    assert "no installed model is suitable" in capsys.readouterr().err
    tiny_model("chest", preset="ct")
    assert run(*words, "--json") == 0
    assert json.loads(capsys.readouterr().out)["model"] == "chest"


def test_a_model_that_was_named_goes_on_with_one_warning(tmp_path, tiny_model, capsys):
    tiny_model("brain")
    image = write_image(tmp_path / "ct.nii.gz", lowest=-1024)
    assert run("segment", image, "-o", tmp_path / "o.nrrd", "--model", "brain", "--json") == 0
    output = capsys.readouterr()
    assert output.err.count("as CT has, but the model is for MRI: do not rely on the result") == 1
    (warning,) = [text for text in json.loads(output.out)["results"][0]["warnings"] if "rely" in text]
    assert warning in output.err


def test_every_image_is_asked_not_the_first_alone(tmp_path, tiny_model, capsys):
    tiny_model("brain")
    tiny_model("chest", preset="ct")
    tiny_model("other", preset="ct", channels=2)
    scans = [write_image(tmp_path / f"{name}.nrrd", lowest=low) for name, low in (("ct", -1000), ("ct2", -900))]
    assert run("segment", *scans, "-o", tmp_path / "o") == 0
    capsys.readouterr()
    write_dicom(tmp_path / "mr", "MR")
    assert run("segment", scans[0], tmp_path / "mr", "-o", tmp_path / "o") == 2
    assert "mr is MR according to its DICOM header, but model 'chest' is for CT: choose a suitable model" in (
        error := capsys.readouterr().err
    )
    assert "with --model: brain;" in error


def test_dicom_tells_its_modality_whatever_the_values(tmp_path, tiny_model, capsys):
    tiny_model("brain")
    ct, mr = write_dicom(tmp_path / "ct", "CT"), write_dicom(tmp_path / "mr", "MR")
    assert (modality_of(ct), modality_of(mr / "2.dcm")) == ("CT", "MR")
    assert modality_of(write_image(tmp_path / "a.nrrd", lowest=0)) == ""
    assert run("segment", mr, "-o", tmp_path / "o.nrrd") == 0
    capsys.readouterr()
    assert run("segment", ct, "-o", tmp_path / "o.nrrd") == 2
    assert "is CT according to its DICOM header, but model 'brain' is for MRI" in capsys.readouterr().err
    assert run("segment", ct, "-o", tmp_path / "o.nrrd", "--model", "brain") == 0
    assert "the image is CT according to its DICOM header, but the model is for MRI" in capsys.readouterr().err


def test_the_predictor_doubts_values_of_another_modality(tiny_model):
    values = np.random.default_rng(0).normal(0, 100, SHAPE).astype(np.float32)
    hounsfield, positive = values.copy(), np.abs(values)
    hounsfield[0, 0] = -1000
    for name, preset, image, is_doubted in (
        ("a", "mri", hounsfield, True),
        ("b", "mri", values, False),
        ("c", "ct", hounsfield, False),
        ("d", "ct", positive, True),
    ):
        warnings = Predictor(tiny_model(name, preset=preset)).check(Volume(image, np.eye(4)))[1]
        assert any("do not rely on the result" in text for text in warnings) == is_doubted, name


def test_gaps_and_flat_pictures_say_nothing_of_a_modality():
    assert lowest_value(np.array([np.nan, -np.inf, 3.0])) == 3
    assert lowest_value(np.array([-7, 2], dtype=np.int16)) == -7
    assert why_unsuited("xray", lowest=-900, is_flat=True) == ""
    assert why_unsuited("mri", lowest=0, is_flat=False, modality="OT") == ""
    assert why_unsuited("mri", lowest=0, is_flat=False, modality="PT")
    assert value_warning("xray", lowest=-600)
