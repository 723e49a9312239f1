"""Prepared cases are the same from the disk as in memory, and stay there while they are right."""

import os
import sys
from contextlib import nullcontext
from dataclasses import fields, replace

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from safetensors import safe_open

from Testing.Lib.conftest import events_of
from UNetSegmentationLib.cases.dataset import find_cases
from UNetSegmentationLib.core.errors import CancelledError, InputError
from UNetSegmentationLib.core.task import Task
from UNetSegmentationLib.image.geometry import Volume
from UNetSegmentationLib.image.labels import Label
from UNetSegmentationLib.image.volume_io import write_labelmap, write_volume
from UNetSegmentationLib.networks import build_network
from UNetSegmentationLib.networks.parts.weights import save_weights
from UNetSegmentationLib.planning.plan import Normalization, Plan
from UNetSegmentationLib.training import prepared_cases
from UNetSegmentationLib.training.job import TrainingJob
from UNetSegmentationLib.training.options import TrainingOptions
from UNetSegmentationLib.training.prepared_case import prepare_case
from UNetSegmentationLib.training.prepared_cases import PreparedFolder, keep_prepared_cases_until_done
from UNetSegmentationLib.training.run import run_training

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


def file_of(tmp_path, case):
    """Return the only file that holds a case of this name."""
    (path,) = (
        path
        for path in (tmp_path / "prepared").iterdir()
        if safe_open(path, framework="pt").metadata()["case"] == case.id
    )
    return path


def filled(tmp_path, cases, plan=PLAN, **options):
    folder = PreparedFolder(tmp_path, plan, LABELS, ignored=255)
    return folder, events_of(folder.fill, cases, **options)


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
    path = file_of(tmp_path, cases[2])
    path.write_bytes(path.read_bytes()[:-20])
    prepared_names.clear()
    filled(tmp_path, cases[1:])
    assert prepared_names == [cases[2].id]


def test_a_host_without_the_folder_has_the_cases_in_memory(tmp_path, cases):
    folder = PreparedFolder(tmp_path / "elsewhere", PLAN, LABELS, ignored=255)
    assert torch.equal(folder.open(cases[0]).image, prepare_case(cases[0], PLAN, LABELS, ignored=255).image)
    assert not (tmp_path / "elsewhere").exists()


def test_preparing_ends_when_it_is_cancelled_and_keeps_what_is_done(tmp_path, cases):
    folder = PreparedFolder(tmp_path, PLAN, LABELS, ignored=255)
    events = []
    with pytest.raises(CancelledError, match="prepared cases are kept"):
        folder.fill(cases, task=Task(events.append, lambda: len(events) == 1))
    assert len(events) == 1
    assert list((tmp_path / "prepared").iterdir()) == [file_of(tmp_path, cases[0])]


def test_what_is_saved_while_it_is_read_is_read_anew(tmp_path, cases, monkeypatch):
    def saved_meanwhile(case, *arguments, **options):
        prepared = prepare_case(case, *arguments, **options)
        os.utime(case.labels, ns=(1, 1))
        return prepared

    with monkeypatch.context() as patch:
        patch.setattr(prepared_cases, "prepare_case", saved_meanwhile)
        folder, _ = filled(tmp_path, cases[:1])
    assert folder._read(cases[0]) is None
    assert folder.open(cases[0]).image.shape[0] == 2


def test_voxels_beside_a_header_count_too(tmp_path):
    image, labelmap = np.ones((1, 9, 10, 11), np.float32), np.ones((9, 10, 11), np.uint8)
    write_volume(tmp_path / "images" / "a.nii.gz", Volume(image, np.eye(4)))
    (tmp_path / "labels").mkdir()
    sitk.WriteImage(sitk.GetImageFromArray(labelmap), tmp_path / "labels" / "a.mhd")
    cases = find_cases(tmp_path)
    plan = replace(PLAN, normalization=PLAN.normalization[:1])
    folder, _ = filled(tmp_path, cases, plan)
    assert folder._read(cases[0]) is not None
    os.utime(tmp_path / "labels" / "a.raw", ns=(1, 1))
    assert folder._read(cases[0]) is None


def test_long_names_and_names_that_differ_in_case_alone_have_files_of_their_own(tmp_path, cases):
    named = [replace(cases[0], id="x" * 300), replace(cases[0], id="A"), replace(cases[0], id="a")]
    folder, _ = filled(tmp_path, named)
    names = [path.name.lower() for path in (tmp_path / "prepared").iterdir()]
    assert len(set(names)) == 3
    assert all(folder._read(case) is not None for case in named)


def test_a_file_that_the_system_does_not_map_is_kept_in_memory(tmp_path, cases, monkeypatch):
    folder, _ = filled(tmp_path, cases[:1])

    def refuse(*_, **__):
        raise RuntimeError("unable to mmap 100 bytes from file: Cannot allocate memory (12)")

    monkeypatch.setattr(prepared_cases, "safe_open", refuse)
    assert torch.equal(folder.open(cases[0]).image, prepare_case(cases[0], PLAN, LABELS, ignored=255).image)


@pytest.mark.parametrize(
    ("error", "has_checkpoint", "is_kept"),
    [
        (None, False, False),
        (InputError("the loss is nan"), False, False),
        (InputError("the loss is nan"), True, True),
        (CancelledError("cancelled"), False, True),
        (RuntimeError("another process is gone"), False, True),
        (KeyboardInterrupt(), False, True),
    ],
)
def test_what_is_done_or_cannot_go_on_leaves_no_cases(tmp_path, error, has_checkpoint, is_kept):
    is_raised = nullcontext() if error is None else pytest.raises(type(error))
    with is_raised, keep_prepared_cases_until_done(tmp_path):
        (tmp_path / "prepared").mkdir()
        (tmp_path / "prepared" / "a").write_text("voxels")
        if has_checkpoint:
            (tmp_path / "checkpoint.safetensors").write_text("")
        if error is not None:
            raise error
    assert (tmp_path / "prepared").exists() == is_kept


def test_done_is_told_when_the_cases_are_gone(tmp_path, write_balls):
    options = TrainingOptions(steps=1)
    job = TrainingJob(dataset=write_balls(tmp_path / "data"), folder=tmp_path / "m", fold=(0, 2), options=options)
    seen = {}
    run_training(job, task=Task(lambda event: seen.update({event["event"]: (job.folder / "prepared").exists()})))
    assert (seen["start"], seen["done"]) == (True, False)


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
