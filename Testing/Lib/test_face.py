"""The package's face: what a script needs, as its docstrings show it."""

from __future__ import annotations

import ast
import doctest
from pathlib import Path

import numpy as np
import pytest

import UNetSegmentationLib as unetseg
from Testing.Lib.test_finetuning import write_cubes
from UNetSegmentationLib.cases.dataset import find_cases

ROOT = Path(__file__).parents[2]


def test_its_examples_run(monkeypatch):
    monkeypatch.chdir(ROOT)
    found = doctest.testmod(unetseg)
    assert found.attempted >= 8
    assert found.failed == 0


@pytest.mark.parametrize("name", unetseg.__all__)
def test_every_name_is_there_and_listed(name):
    assert getattr(unetseg, name).__doc__
    assert name in dir(unetseg)


def test_what_type_checkers_see_is_what_there_is():
    tree = ast.parse((ROOT / "UNetSegmentationLib/__init__.py").read_text(encoding="utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If))
    seen = {(alias.name, node.module) for node in block.body for alias in node.names if node.level}
    assert seen == {(name, module) for name, module in unetseg._MODULE_OF.items()}
    assert set(unetseg._MODULE_OF) < set(unetseg.__all__)


def test_an_unknown_name_is_no_attribute():
    with pytest.raises(AttributeError, match="'UNetSegmentationLib' has no attribute 'dance'"):
        unetseg.dance  # noqa: B018


def test_a_model_may_be_loaded_or_named_and_an_image_read_or_named(tiny_model, tmp_path):
    array = np.random.default_rng(0).normal(size=(1, 12, 14, 10)).astype(np.float32)
    volume = unetseg.Volume(array, np.diag((1.5, 1.0, 2.0, 1.0)))
    unetseg.write_volume(tmp_path / "image.nii.gz", volume)
    folder = tiny_model("tiny")
    loaded = unetseg.load_model(folder, device="cpu")
    found = unetseg.segment(volume, loaded)
    named = unetseg.segment(tmp_path / "image.nii.gz", str(folder), device="cpu")
    assert np.array_equal(found.labelmap, named.labelmap)
    assert np.array_equal(found.labelmap, loaded.segment(volume).labelmap)
    unetseg.write_segmentation(tmp_path / "found.seg.nrrd", found, volume)
    written = unetseg.read_labelmap(tmp_path / "found.seg.nrrd")
    assert np.array_equal(written.array[0], found.labelmap)
    assert np.allclose(written.affine_ras, volume.affine_ras)


def test_a_model_is_trained_continued_and_measured(tmp_path):
    dataset, events = write_cubes(tmp_path / "data", cases=5), []
    task = unetseg.Task(events.append)
    first = unetseg.train(dataset, tmp_path / "first", steps=2, device="cpu", task=task)
    assert first.figures == unetseg.find_model(str(tmp_path / "first")).description.figures
    assert {event["event"] for event in events} >= {"stage", "start", "step", "done"}
    second = unetseg.finetune(tmp_path / "first", dataset, tmp_path / "second", steps=2, device="cpu")
    assert (second.id, second.parent) == ("second", "first")
    assert second.figures == unetseg.find_model(str(tmp_path / "second")).description.figures
    figures = unetseg.evaluate(tmp_path / "first", dataset, device="cpu")
    assert [entry.case for entry in figures] == [case.id for case in find_cases(dataset)]
    assert all("dice" in entry.labels[1] for entry in figures)


def test_a_time_budget_is_no_number_of_steps(tmp_path):
    described = unetseg.train(write_cubes(tmp_path / "data", cases=5), tmp_path / "model", minutes=0.01, device="cpu")
    assert described.training["minutes"] < 0.2


def test_cancelled_work_is_told(tmp_path):
    dataset = write_cubes(tmp_path / "data", cases=5)
    with pytest.raises(unetseg.CancelledError):
        unetseg.train(dataset, tmp_path / "model", steps=2, device="cpu", task=unetseg.Task(is_cancelled=lambda: True))
