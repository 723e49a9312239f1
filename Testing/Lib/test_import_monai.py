"""MONAI bundles come in and give what MONAI itself gives."""

import io
import json
import os
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from UNetSegmentationLib.cli import main
from UNetSegmentationLib.errors import InputError
from UNetSegmentationLib.geometry import Volume
from UNetSegmentationLib.importers import ImportOptions, import_model
from UNetSegmentationLib.model_folder import read_description
from UNetSegmentationLib.prediction import Predictor

FIXTURES = Path(__file__).parents[1] / "Fixtures" / "monai"
NAMES = sorted(path.name for path in FIXTURES.iterdir())
AGREEMENT = 0.9999


def case_in(name: str) -> tuple[Volume, np.ndarray]:
    with np.load(FIXTURES / name / "images.npz") as arrays:
        return Volume(arrays["image"], arrays["affine_ras"]), arrays["labels"]


@pytest.mark.parametrize("name", NAMES)
def test_labels_equal_those_of_monai(name: str, tmp_path: Path) -> None:
    import_model(FIXTURES / name, tmp_path / "model")
    volume, expected = case_in(name)
    labelmap = Predictor(tmp_path / "model", device="cpu").segment(volume).labelmap
    assert labelmap.shape == expected.shape
    assert np.mean(labelmap == expected) >= AGREEMENT
    assert len(np.unique(expected)) > 1
