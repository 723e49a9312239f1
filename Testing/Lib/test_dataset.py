"""Cases are found, kept whole by subject, and prepared without inventing labels."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from Testing.Lib.conftest import events_of
from UNetSegmentationLib.cases.dataset import (
    find_cases,
    read_case,
    read_fingerprint,
    read_label_values,
    read_labels_of,
    split_by_subject,
)
from UNetSegmentationLib.core.errors import CancelledError, InputError
from UNetSegmentationLib.core.task import Task
from UNetSegmentationLib.image.geometry import Volume
from UNetSegmentationLib.image.volume_io import read_labelmap, read_volume, write_labelmap, write_volume
from UNetSegmentationLib.planning.planner import make_plan
from UNetSegmentationLib.training.prepared_case import prepare_case


def write_case(folder, name, *, channels=1, images="images", labels="labels", shape=(6, 7, 8)):
    rng = np.random.default_rng(len(name))
    for channel in range(channels):
        suffix = f"_{channel:04d}" if channels > 1 else ""
        array = rng.normal(100, 20, (1, *shape)).astype(np.float32)
        write_volume(folder / images / f"{name}{suffix}.nii.gz", Volume(array, np.eye(4)))
    labelmap = np.zeros(shape, np.uint8)
    labelmap[2:4, 2:5, 3:6] = 1
    labelmap[3, 3, 4] = 2
    write_labelmap(folder / labels / f"{name}.nii.gz", labelmap, affine_ras=np.eye(4))


@pytest.mark.parametrize(("images", "labels"), [("images", "labels"), ("imagesTr", "labelsTr")])
def test_both_layouts_are_read(tmp_path, images, labels):
    for name in ("a", "b"):
        write_case(tmp_path, name, channels=2, images=images, labels=labels)
    cases = find_cases(tmp_path)
    assert [case.id for case in cases] == ["a", "b"]
    assert [path.name for path in cases[0].images] == ["a_0000.nii.gz", "a_0001.nii.gz"]
    assert read_label_values(cases) == [1, 2]


def test_a_name_that_ends_in_four_digits_is_no_channel(tmp_path):
    write_case(tmp_path, "scan_2024")
    assert [case.id for case in find_cases(tmp_path)] == ["scan_2024"]


def test_no_subject_is_in_two_folds(tmp_path):
    names = [f"c{index:02d}" for index in range(12)]
    for name in names:
        write_case(tmp_path, name, shape=(5, 6, 7))
    rows = ["case,subject", *(f"{name},S{index // 3}" for index, name in enumerate(names))]
    (tmp_path / "manifest.csv").write_text("\n".join(rows))
    folds = split_by_subject(find_cases(tmp_path), folds=3)
    subjects = [{case.subject for case in fold} for fold in folds]
    assert set.union(*subjects) == {"S0", "S1", "S2", "S3"}
    assert sum(map(len, subjects)) == 4
    assert sorted(case.id for fold in folds for case in fold) == names
    with pytest.raises(InputError, match="4 subject"):
        split_by_subject(find_cases(tmp_path), folds=5)


@pytest.mark.parametrize(
    "text",
    ["case,subject\na,S\nb,S\n", "\ufeffcase,subject\na,S\nb,S\n", "Subject;Age;Case\nS;3;a.nii.gz\nS;4;b.nii.gz\n"],
)
def test_a_manifest_is_read_as_spreadsheets_write_it(tmp_path, text):
    for name in ("a", "b", "c"):
        write_case(tmp_path, name)
    (tmp_path / "manifest.csv").write_text(text, encoding="utf-8")
    assert [case.subject for case in find_cases(tmp_path)] == ["S", "S", "c"]


def test_rows_without_a_subject_name_none(tmp_path):
    for name in ("a", "b"):
        write_case(tmp_path, name)
    (tmp_path / "manifest.csv").write_text("case,subject\na\nb,\n")
    assert [case.subject for case in find_cases(tmp_path)] == ["a", "b"]
    (tmp_path / "manifest.csv").write_bytes("case,subject\na,Müller\n".encode("latin-1"))
    with pytest.raises(InputError, match="save it as UTF-8"):
        find_cases(tmp_path)


@pytest.mark.parametrize("labels", [5, ["Lung"], {"Lung": "one"}])
def test_label_names_of_another_kind_are_refused(tmp_path, labels):
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": labels}))
    with pytest.raises(InputError, match="label names in .* cannot be read"):
        read_labels_of(tmp_path, [1])
    (tmp_path / "labels.json").write_text(json.dumps(labels))
    with pytest.raises(InputError, match="label names in .* cannot be read"):
        read_labels_of(tmp_path, [1])


def test_names_may_stand_by_value(tmp_path):
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": {"0": "background", "1": "Anterior", "2": "2"}}))
    assert [label.name for label in read_labels_of(tmp_path, [1, 2])] == ["Anterior", "2"]


def test_names_come_from_labels_json_or_nnunet_or_numbers(tmp_path):
    assert [label.name for label in read_labels_of(tmp_path, [1, 5])] == ["Label 1", "Label 5"]
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": {"background": 0, "Lung": 1, "Heart": 2}}))
    assert [label.name for label in read_labels_of(tmp_path, [1, 2])] == ["Lung", "Heart"]
    (tmp_path / "labels.json").write_text(json.dumps([{"value": 1, "name": "Left lung", "color": [1, 2, 3]}]))
    assert read_labels_of(tmp_path, [1])[0].color == (1, 2, 3)
    with pytest.raises(InputError, match=r"values \[2\]"):
        read_labels_of(tmp_path, [1, 2])
    (tmp_path / "labels.json").write_text("[{]")
    with pytest.raises(InputError, match="cannot be read"):
        read_labels_of(tmp_path, [1])


def test_a_labelmap_of_another_size_is_named(tmp_path):
    write_case(tmp_path, "a")
    write_labelmap(tmp_path / "labels" / "a.nii.gz", np.ones((9, 9, 9), np.uint8), affine_ras=np.eye(4))
    with pytest.raises(InputError, match="case 'a'.*do not match"):
        read_case(find_cases(tmp_path)[0])


def test_labels_that_lie_outside_the_image_are_refused(tmp_path):
    write_case(tmp_path, "a")
    labels = read_labelmap(tmp_path / "labels" / "a.nii.gz")
    elsewhere = np.eye(4)
    elsewhere[:3, 3] = 500
    write_labelmap(tmp_path / "labels" / "a.nii.gz", labels.array[0], affine_ras=elsewhere)
    with pytest.raises(InputError, match="case 'a': all labelled voxels lie outside"):
        read_case(find_cases(tmp_path)[0])


def test_gaps_in_an_image_do_not_spread(tmp_path):
    write_case(tmp_path, "a")
    path = tmp_path / "images" / "a.nii.gz"
    image = read_volume(path)
    holes = image.array.copy()
    holes[0, 0, 0, :2] = (np.nan, np.inf)
    write_volume(path, Volume(holes, image.affine_ras))
    cases = find_cases(tmp_path)
    fingerprint = read_fingerprint(cases)
    assert all(np.isfinite(list(entry.values())).all() for entry in fingerprint.foreground)
    prepared = prepare_case(cases[0], make_plan(fingerprint, "mri"), read_labels_of(tmp_path, [1, 2]))
    assert prepared.image.isfinite().all()


def test_labels_stay_on_their_image_where_a_plan_crops_it(tmp_path):
    """By nnU-Net's conventions what is zero all round is cut away."""
    write_case(tmp_path, "a", shape=(12, 13, 14))
    labelmap = np.zeros((12, 13, 14), np.uint8)
    labelmap[6:9, 5:10, 7:12] = 1
    image = np.zeros((1, 12, 13, 14), np.float32)
    image[0, 4:, 4:, 5:] = 100
    image[0][labelmap > 0] = 300
    write_volume(tmp_path / "images" / "a.nii.gz", Volume(image, np.eye(4)))
    write_labelmap(tmp_path / "labels" / "a.nii.gz", labelmap, affine_ras=np.eye(4))
    cases = find_cases(tmp_path)
    plan = replace(make_plan(read_fingerprint(cases), "mri"), conventions="nnunet", spacing_mm=(1.0, 1.0, 1.0))
    prepared = prepare_case(cases[0], plan, read_labels_of(tmp_path, [1]))
    assert prepared.image.shape[1:] == (8, 9, 9)
    assert torch.equal(prepared.labels > 0, prepared.image[0] > prepared.image.mean() + 1)


@pytest.mark.parametrize("read", [read_fingerprint, read_label_values])
def test_reading_tells_each_case_and_ends_when_it_is_cancelled(tmp_path, read):
    for name in ("a", "b", "c"):
        write_case(tmp_path, name)
    cases = find_cases(tmp_path)
    seen = events_of(read, cases)
    assert seen == [{"event": "read", "case": name, "number": index + 1, "of": 3} for index, name in enumerate("abc")]
    told = []
    with pytest.raises(CancelledError, match="while reading the data set"):
        read(cases, task=Task(told.append, lambda: len(told) == 1))
    assert told == seen[:1]


@pytest.mark.parametrize("read", [read_fingerprint, read_label_values])
def test_a_case_that_cannot_be_read_ends_the_reading(tmp_path, read):
    for name in ("a", "b", "c"):
        write_case(tmp_path, name)
    (tmp_path / "labels" / "b.nii.gz").write_bytes(b"no image")
    seen = []
    with pytest.raises(InputError, match=r"b\.nii\.gz"):
        read(find_cases(tmp_path), task=Task(seen.append))
    assert [event["case"] for event in seen] == ["a"]


def test_an_incomplete_case_is_named(tmp_path):
    write_case(tmp_path, "a", channels=2)
    write_case(tmp_path, "b", channels=3)
    with pytest.raises(InputError, match="'a' has 2"):
        find_cases(tmp_path)


@pytest.mark.parametrize("made", [(), ("images",), ("images", "labels")])
def test_folders_without_cases_are_refused(tmp_path, made):
    for name in made:
        (tmp_path / name).mkdir()
    with pytest.raises(InputError, match="has no folder|no image in"):
        find_cases(tmp_path)


def test_preparing_a_case_numbers_its_classes(tmp_path):
    write_case(tmp_path, "a")
    cases = find_cases(tmp_path)
    fingerprint = read_fingerprint(cases)
    plan = make_plan(fingerprint, "mri")
    labels = read_labels_of(tmp_path, [1, 2])[::-1]
    prepared = prepare_case(cases[0], plan, labels)
    # Labels stand in the order (2, 1): class 1 is value 2.
    assert prepared.labels[3, 3, 4] == 1
    assert (prepared.labels == 2).sum() == 17
    assert len(prepared.foreground) == 18
    assert fingerprint.shapes == ((6, 7, 8),)
    assert fingerprint.foreground[0]["lower"] < fingerprint.foreground[0]["mean"] < fingerprint.foreground[0]["upper"]
