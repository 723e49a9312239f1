"""Prepared cases are the same from the disk as in memory, and stay there while they are right."""

import os
import sys
from dataclasses import fields, replace

import numpy as np
import pytest
import torch

from UNetSegmentationLib import prepared_cases
from UNetSegmentationLib.checkpoint import save_weights
from UNetSegmentationLib.dataset import find_cases, prepare_case
from UNetSegmentationLib.errors import CancelledError, InputError
from UNetSegmentationLib.geometry import Volume
from UNetSegmentationLib.labels import Label
from UNetSegmentationLib.networks import build_network
from UNetSegmentationLib.planning import Normalization, Plan
from UNetSegmentationLib.prepared_cases import PreparedFolder
from UNetSegmentationLib.volume_io import write_labelmap, write_volume

LABELS = tuple(Label(value=value, name=f"label {value}", color=(230, 159, 0)) for value in (1, 2))
PLAN = Plan(
    dimensions=3,
    spacing_mm=(1.5, 1.0, 1.0),
    patch_size=(8, 8, 8),
    batch_size=1,
    orientation="RAS",
    normalization=(Normalization(scheme="zscore"),) * 2,
)


@pytest.fixture
def cases(tmp_path):
    """Three cases of two channels; the last has no labelled voxel."""
    rng = np.random.default_rng(0)
    for index, name in enumerate(("été 1", "b", "empty")):
        for channel in range(2):
            image = rng.normal(100, 20, (1, 9, 10, 11 + index)).astype(np.float32)
            write_volume(tmp_path / "images" / f"{name}_{channel:04d}.nii.gz", Volume(image, np.eye(4)))
        labelmap = np.zeros((9, 10, 11 + index), np.uint8)
        if name != "empty":
            labelmap[2:5, 3:6, 4:8] = 1
            labelmap[3, 4, 5] = 255
        write_labelmap(tmp_path / "labels" / f"{name}.nii.gz", labelmap, affine_ras=np.eye(4))
    return find_cases(tmp_path)


def filled(tmp_path, cases, plan=PLAN, **options):
    folder = PreparedFolder(tmp_path / "prepared", plan, LABELS, ignored=255)
    return folder, list(folder.fill(cases, **options))


@pytest.fixture
def prepared_names(monkeypatch):
    """The cases that were prepared, as that happens."""
    names = []

    def watched(case, *arguments, **options):
        names.append(case.id)
        return prepare_case(case, *arguments, **options)

    monkeypatch.setattr(prepared_cases, "prepare_case", watched)
    return names


def test_a_case_from_the_disk_is_the_case_itself(tmp_path, cases, prepared_names):
    folder, events = filled(tmp_path, cases)
    assert events == [
        {"event": "prepared", "case": case.id, "number": number, "of": 3} for number, case in enumerate(cases, start=1)
    ]
    assert sorted(prepared_names) == sorted(case.id for case in cases)
    for case in cases:
        expected, found = prepare_case(case, PLAN, LABELS, ignored=255), folder.open(case)
        assert found.id == case.id
        for field in fields(expected):
            if field.name != "id":
                tensor = getattr(expected, field.name)
                assert getattr(found, field.name).dtype == tensor.dtype
                assert torch.equal(getattr(found, field.name), tensor)
    assert len(prepared_names) == 3


def test_what_is_there_is_kept_and_what_has_changed_is_made_anew(tmp_path, cases, prepared_names):
    filled(tmp_path, cases)
    prepared_names.clear()
    filled(tmp_path, cases)
    assert prepared_names == []
    os.utime(cases[1].labels, ns=(1, 1))
    filled(tmp_path, cases)
    assert prepared_names == [cases[1].id]
    filled(tmp_path, cases[:1], replace(PLAN, spacing_mm=(1.0, 1.0, 1.0)))
    assert prepared_names == [cases[1].id, cases[0].id]
    path = tmp_path / "prepared" / f"{cases[2].id}.safetensors"
    path.write_bytes(path.read_bytes()[:-20])
    prepared_names.clear()
    filled(tmp_path, cases[1:])
    assert prepared_names == [cases[2].id]


def test_a_host_without_the_folder_has_the_cases_in_memory(tmp_path, cases):
    folder = PreparedFolder(tmp_path / "elsewhere", PLAN, LABELS, ignored=255)
    assert torch.equal(folder.open(cases[0]).image, prepare_case(cases[0], PLAN, LABELS, ignored=255).image)
    assert not (tmp_path / "elsewhere").exists()


def test_preparing_ends_when_it_is_cancelled_and_keeps_what_is_done(tmp_path, cases):
    folder = PreparedFolder(tmp_path / "prepared", PLAN, LABELS, ignored=255)
    asked = False
    events = folder.fill(cases * 20, is_cancelled=lambda: asked)
    next(events)
    asked = True
    with pytest.raises(CancelledError):
        list(events)
    assert (tmp_path / "prepared" / f"{cases[0].id}.safetensors").is_file()


def test_a_case_that_cannot_be_read_ends_the_preparing_with_its_sentence(tmp_path, cases):
    cases[0].images[0].write_bytes(b"not an image")
    with pytest.raises(InputError, match=r"b_0000\.nii\.gz"):
        filled(tmp_path, cases)


@pytest.mark.skipif(sys.platform == "win32", reason="limits the size of files as POSIX systems do")
def test_a_disk_that_takes_no_more_gives_one_sentence(tmp_path, cases):
    import resource

    network = build_network("unet", {"in_channels": 1, "num_classes": 2, "features_per_stage": [4, 8]})
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, before[1]))
    try:
        with pytest.raises(InputError, match=r"cannot write .*\.safetensors: file too large"):
            filled(tmp_path, cases)
        with pytest.raises(InputError, match=r"cannot write .*weights: file too large"):
            save_weights(tmp_path / "weights", network)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not (tmp_path / "weights").exists()
    assert list((tmp_path / "prepared").iterdir()) == []
