"""Several trainings: equal shares, the best is the model, folds are an ensemble, and nothing is lost by a break."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from UNetSegmentationLib.cases.dataset import find_cases, split_by_subject
from UNetSegmentationLib.cli import main
from UNetSegmentationLib.core.errors import CancelledError, InputError
from UNetSegmentationLib.core.event_log import TrainingRecord
from UNetSegmentationLib.core.task import UNWATCHED, Task
from UNetSegmentationLib.evaluation.cases import evaluate
from UNetSegmentationLib.image.geometry import Volume
from UNetSegmentationLib.image.volume_io import write_labelmap, write_volume
from UNetSegmentationLib.inference.predictor import Predictor
from UNetSegmentationLib.models.description import read_description
from UNetSegmentationLib.networks.parts.weights import load_network
from UNetSegmentationLib.training.job import STUDY_FILE, TrainingJob
from UNetSegmentationLib.training.options import TrainingOptions
from UNetSegmentationLib.training.run import run_training
from UNetSegmentationLib.training.search import search as study_module
from UNetSegmentationLib.training.search import winner
from UNetSegmentationLib.training.search.search import Study, run_study

SHAPES = ((10, 13, 9), (9, 10, 8), (12, 12, 11))
SLICES_WIN, FULL_WINS = {"full": 0.5, "slices": 0.9}, {"full": 0.9, "slices": 0.5}


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    return write_data(tmp_path / "data")


def write_data(folder: Path, shapes: tuple[tuple[int, int, int], ...] = SHAPES) -> Path:
    """Write noise with a box in it."""
    for name in ("images", "labels"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for index, shape in enumerate(shapes):
        labels = np.zeros(shape, np.uint8)
        labels[2:-2, 3:-3, 2:6] = 1
        image = np.random.default_rng(index).normal(0, 20, shape).astype(np.float32) + 100 * labels
        write_volume(folder / "images" / f"c{index}.nii.gz", Volume(image[None], np.eye(4)))
        write_labelmap(folder / "labels" / f"c{index}.nii.gz", labels, affine_ras=np.eye(4))
    return folder


def begin(study):
    return study_module._start(study, find_cases(study.job.dataset), UNWATCHED)


def study_of(dataset: Path, folder: Path, *, steps: int = 5, **entries: object) -> Study:
    job = TrainingJob(
        dataset=dataset,
        folder=folder,
        id="same",
        fold=(0, 3),
        device="cpu",
        options=TrainingOptions(steps=steps, precision="float32", validate_every=0),
        network_options={"features_per_stage": [4, 6]},
    )
    return Study(**{"job": job, "configurations": ("full", "slices"), **entries})


def let_win(monkeypatch: pytest.MonkeyPatch, means: dict[str, float]) -> None:
    """Make up the figures of the configurations, which are asked for in their order."""
    values = iter(means.values())

    def made_up(found, _labels):
        mean = next(values)
        return {case.subject: mean for case in found}

    monkeypatch.setattr(winner, "scores_by_subject", made_up)


@pytest.mark.parametrize("means", [SLICES_WIN, FULL_WINS])
def test_configurations_get_equal_shares_and_the_better_is_the_model(tmp_path, dataset, monkeypatch, means):
    let_win(monkeypatch, means)
    best = max(means, key=lambda name: means[name])
    study, kept = study_of(dataset, tmp_path / "m"), {}
    share_left, steps = [1.0], []

    def look(event):
        if event["event"] == "step":
            share_left.append(event["share_left"])
            steps.append(event["step"])
        elif event["event"] == "stage" and event["message"].startswith("Comparing"):
            kept.update(load_file(tmp_path / "m" / "trainings" / best / "weights.safetensors"))

    returned = run_study(study, task=Task(look))
    assert steps == [1, 2, 1, 2]
    # One bar for all: it never goes back, and is full at the end.
    assert all(after < before for before, after in pairwise(share_left))
    assert share_left[-1] == pytest.approx(0)

    weights = load_file(tmp_path / "m" / "weights.safetensors")
    assert kept
    assert all(np.array_equal(weights[name], value) for name, value in kept.items())
    description = read_description(tmp_path / "m")
    assert description == returned
    assert (description.id, description.members) == ("same", 1)
    assert description.plan.dimensions == (2 if best == "slices" else 3)
    assert description.training["configuration"] == best
    table = {row["name"]: row for row in description.figures["configurations"]["rows"]}
    assert {name: row["mean_dice"] for name, row in table.items()} == means
    assert [name for name, row in table.items() if row["is_chosen"]] == [best]
    # The figures are those that the model has; the loser stays a model of its own.
    (result,) = evaluate(
        Predictor(tmp_path / "m"), [c for c in find_cases(dataset) if c.id in description.training["held_back_cases"]]
    )
    assert description.figures["labels"]["Label 1"]["dice"] == pytest.approx(result.labels[1]["dice"], abs=1e-4)
    (loser,) = (tmp_path / "m" / "trainings").iterdir()
    assert read_description(loser).training["steps"] == 2
    assert not list(tmp_path.glob("m/**/found.safetensors"))
    assert not (tmp_path / "m" / STUDY_FILE).exists()

    events = TrainingRecord.read(tmp_path / "m" / "training.jsonl")
    kinds = ["start", "validation", "end", "configurations", "postprocess", "evaluation"]
    assert [event["event"] for event in events] == kinds
    card = (tmp_path / "m" / "CARD.md").read_text(encoding="utf-8")
    assert "The configuration was chosen on the same cases, which makes the results above optimistic." in card
    assert f"| {best} | 0.9000 | 0.0000 |" in card
    with pytest.raises(InputError, match="already contains a model: choose another folder"):
        run_study(study)


def test_folds_are_an_ensemble_and_every_case_is_measured_unseen(tmp_path, dataset):
    study = study_of(dataset, tmp_path / "m", steps=6, configurations=("full",), has_all_folds=True)
    study = replace(study, job=replace(study.job, has_replay=True))
    found_by = {}

    def look(event):
        if event["event"] == "stage" and event["message"].startswith("Comparing"):
            for fold in range(3):
                folder = tmp_path / "m" / "trainings" / f"fold{fold}"
                found_by[fold] = [case.case for case in winner.load_predicted(folder / "found.safetensors")]

    run_study(study, task=Task(look))
    cases = find_cases(dataset)
    parts = split_by_subject(cases, folds=3)
    assert found_by == {fold: [case.id for case in part] for fold, part in enumerate(parts)}

    network, description = load_network(tmp_path / "m")
    members = [load_network(tmp_path / "m" / "trainings" / f"fold{fold}") for fold in range(3)]
    assert description.members == 3
    assert "configurations" not in description.figures
    image = torch.randn(1, 1, *description.plan.patch_size)
    with torch.no_grad():
        mean = torch.stack([member(image) for member, _ in members]).mean(dim=0)
        assert torch.allclose(network(image), mean, atol=1e-5)
    # One plan for all, and no network like another.
    assert all(other.plan == description.plan for _, other in members)
    assert len({other.weights_sha256 for _, other in members}) == 3

    dice = {fold: members[fold][1].figures["labels"]["Label 1"]["dice"] for fold in range(3)}
    assert [fold["dice"]["Label 1"] for fold in description.figures["folds"]] == list(dice.values())
    assert description.figures["cases"] == 3
    assert description.figures["labels"]["Label 1"]["dice"] == pytest.approx(np.mean(list(dice.values())), abs=1e-4)
    assert description.training["folds"] == [other.training["held_back_cases"] for _, other in members]
    assert (description.training["cases"], description.training["steps"]) == (3, 6)
    card = (tmp_path / "m" / "CARD.md").read_text(encoding="utf-8")
    mean, deviation = np.mean(list(dice.values())), np.std(list(dice.values()), ddof=1)
    assert f"| Label 1 | {mean:.3f} ± {deviation:.3f} |" in card
    assert "was trained on all folds but one" in card
    assert (tmp_path / "m" / "replay.safetensors").exists()
    assert not list((tmp_path / "m" / "trainings").glob("*/replay.safetensors"))


def test_configurations_of_all_folds_are_compared_on_all_subjects(tmp_path, dataset, monkeypatch):
    let_win(monkeypatch, SLICES_WIN)
    run_study(study_of(dataset, tmp_path / "m", has_all_folds=True, shares_budget=False, steps=1))
    description = read_description(tmp_path / "m")
    assert (description.members, description.plan.dimensions) == (3, 2)
    assert description.figures["configurations"]["subjects"] == 3
    names = {path.name for path in (tmp_path / "m" / "trainings").iterdir()}
    assert names == {f"{name}-fold{fold}" for name in ("full", "slices") for fold in range(3)}


def test_a_study_that_is_broken_off_ends_as_one_without_a_break(tmp_path, dataset, monkeypatch, capsys):
    let_win(monkeypatch, {**SLICES_WIN})
    run_study(study_of(dataset, tmp_path / "whole", steps=8))
    let_win(monkeypatch, {**SLICES_WIN})
    broken = study_of(dataset, tmp_path / "broken", steps=8)
    seen = []

    def look(event):
        seen.extend([event["step"]] if event["event"] == "step" else [])

    with pytest.raises(CancelledError):
        run_study(broken, task=Task(look, lambda: len(seen) == 6))
    assert seen == [1, 2, 3, 4, 1, 2]
    with pytest.raises(InputError, match="contains an unfinished training"):
        run_study(broken)
    with pytest.raises(InputError, match="contains an unfinished training"):
        run_training(broken.job)
    first = (tmp_path / "broken" / "trainings" / "full" / "training.jsonl").read_bytes()

    words = ["train", "-o", str(tmp_path / "broken"), "--resume", "--quiet"]
    assert main([*words, "--steps", "9"]) == 2
    assert "steps is 9, but the trainings began with 8, which is the same for all" in capsys.readouterr().err
    assert main([*words, "--configurations", "full", "low"]) == 2
    assert "but the trainings began with ['full', 'slices']" in capsys.readouterr().err
    assert main([*words, "--fold", "all/3"]) == 2
    assert "has_all_folds is True, but" in capsys.readouterr().err

    # Cut off once more, while the model is made; then the command goes on with what is left.
    def cut(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(study_module, "make_model", cut)
        with pytest.raises(KeyboardInterrupt):
            run_study(broken, is_resumed=True)
    assert main(words) == 0
    said = capsys.readouterr().out
    assert "Training at step" not in said
    assert "slices             0.900  kept" in said
    assert (tmp_path / "broken" / "trainings" / "full" / "training.jsonl").read_bytes() == first
    whole, again = (load_file(tmp_path / name / "weights.safetensors") for name in ("whole", "broken"))
    assert all(np.array_equal(value, again[name]) for name, value in whole.items())
    whole, again = (read_description(tmp_path / name).figures for name in ("whole", "broken"))
    assert whole == again
    assert main(words) == 2
    assert "is complete" in capsys.readouterr().err


def test_a_study_does_not_go_on_with_other_data_or_a_damaged_file(tmp_path, dataset, capsys):
    study = study_of(dataset, tmp_path / "m")
    with pytest.raises(CancelledError):
        run_study(study, task=Task(is_cancelled=(tmp_path / "m" / STUDY_FILE).exists))
    write_data(dataset, (*SHAPES, SHAPES[0]))
    with pytest.raises(InputError, match="has changed since the trainings began"):
        run_study(study, is_resumed=True)
    values = json.loads((tmp_path / "m" / STUDY_FILE).read_text(encoding="utf-8"))
    del values["plans"]
    (tmp_path / "m" / STUDY_FILE).write_text(json.dumps(values))
    assert main(["train", "-o", str(tmp_path / "m"), "--resume"]) == 2
    assert (
        "lacks plans: add every field that has no default): the trainings cannot be resumed" in capsys.readouterr().err
    )


def test_what_was_found_is_found_again_where_its_file_is_lost(tmp_path, dataset, monkeypatch):
    let_win(monkeypatch, FULL_WINS)
    study = study_of(dataset, tmp_path / "m")

    def lose(event):
        if event["event"] == "stage" and event["message"].startswith("Comparing"):
            (tmp_path / "m" / "trainings" / "full" / "found.safetensors").write_bytes(b"\x08")
            (tmp_path / "m" / "trainings" / "slices" / "found.safetensors").unlink()

    run_study(study, task=Task(lose))
    assert read_description(tmp_path / "m").figures["cases"] == 1


def test_one_configuration_that_suits_is_trained_in_the_folder_itself(tmp_path, dataset, capsys):
    words = ("train", dataset, "-o", tmp_path / "m", "--steps", 2, "--fold", "0/3", "--configurations", "auto")
    words += ("--network-option", "features_per_stage=[4,6]", "--device", "cpu", "--no-postprocess-choice")
    assert main([str(word) for word in words]) == 0
    said = capsys.readouterr().out
    assert "Configuration: only full suits this data set" in said
    assert "Post-processing" not in said
    description = read_description(tmp_path / "m")
    assert description.training["steps"] == 2
    assert "configurations" not in description.figures
    assert "postprocess" not in description.figures
    assert not (tmp_path / "m" / "trainings").exists()


def test_the_time_budget_is_shared_as_the_steps_are(tmp_path, dataset):
    study = study_of(dataset, tmp_path / "m", has_all_folds=True, steps=600)
    study = replace(study, job=replace(study.job, options=replace(study.job.options, minutes=3.0)))
    for shares, steps, minutes in ((True, 100, 0.5), (False, 600, 3.0)):
        begun = begin(replace(study, shares_budget=shares))
        options = [training.job.options for training in study_module._trainings_of(begun)]
        assert [(entry.steps, entry.minutes) for entry in options] == [(steps, minutes)] * 6


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ({"configurations": ("full", "half")}, "configuration 'half' is unknown: choose full, low, slices"),
        ({"configurations": ("full", "full")}, "contain a duplicate"),
        ({"configurations": ("full", "low")}, "configuration 'low' is the same as 'full' for this data set"),
        ({"configurations": ("low",)}, "configuration 'low' is the same as 'full' for this data set"),
        ({"steps": 1}, "1 steps are too few for 2 trainings: must be at least 2"),
    ],
)
def test_impossible_studies_are_refused_before_anything_is_written(tmp_path, dataset, entries, words):
    with pytest.raises(InputError, match=words):
        run_study(study_of(dataset, tmp_path / "m", **entries))
    assert not (tmp_path / "m").exists()


def test_a_plan_file_is_that_of_all_folds_and_leaves_no_choice_of_configurations(tmp_path, dataset):
    study = study_of(dataset, tmp_path / "m")
    made = begin(study).plans["slices"]
    (tmp_path / "plan.json").write_text(json.dumps(made.to_dict()))
    job = replace(study.job, plan=tmp_path / "plan.json")
    begun = begin(Study(job=job, has_all_folds=True, shares_budget=False))
    assert begun.plans == {"full": made}
    assert len(study_module._trainings_of(begun)) == 3
    with pytest.raises(InputError, match="a plan file defines a single configuration"):
        replace(study, job=replace(study.job, plan=tmp_path / "plan.json"))


def test_the_command_refuses_what_makes_no_sense(tmp_path, dataset, monkeypatch, capsys):
    words = ["train", str(dataset), "-o", str(tmp_path / "m"), "--configurations"]
    assert main([*words, "auto", "low"]) == 2
    assert "--configurations auto cannot be combined with others" in capsys.readouterr().err
    assert main(["train", str(dataset), "-o", str(tmp_path / "m"), "--fold", "most/3"]) == 2
    assert "'most/3' is not a fold: give K/N, such as 0/5, or all/5" in capsys.readouterr().err
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main([*words, "full", "slices"]) == 2
    assert "start without torchrun" in capsys.readouterr().err
