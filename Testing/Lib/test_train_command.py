"""`unetseg train`: the model that it makes, and what it goes on from."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from Testing.Lib.conftest import events_of
from UNetSegmentationLib.cli import main
from UNetSegmentationLib.core.errors import CancelledError
from UNetSegmentationLib.core.task import Task
from UNetSegmentationLib.training.checkpoint import CHECKPOINT_FILE
from UNetSegmentationLib.training.job import TrainingJob
from UNetSegmentationLib.training.options import TrainingOptions
from UNetSegmentationLib.training.run import run_training

pytestmark = pytest.mark.usefixtures("only_our_models")


def run(*words: object) -> int:
    return main([str(word) for word in words])


def one_line(text: str) -> str:
    """Return the only line of what was written to standard error."""
    assert text.startswith("unetseg: "), text
    assert text.count("\n") == 1, text
    return text


def test_training_makes_a_model_that_is_listed_segments_and_is_measured(write_balls, tmp_path, capsys):
    dataset, model = write_balls(tmp_path / "data"), tmp_path / "models" / "balls"
    words = (
        "train",
        dataset,
        "-o",
        model,
        "--steps",
        30,
        "--fold",
        "1/4",
        "--data-licence",
        "CC0",
        "--title",
        "Balls",
        "--quiet",
    )
    assert run(*words) == 0
    output = capsys.readouterr()
    assert "Model 'balls' was saved in" in output.out
    assert output.err == ""
    assert {"model.json", "weights.safetensors", "CARD.md"} <= {path.name for path in model.iterdir()}
    assert not (model / CHECKPOINT_FILE).exists()
    assert run("models", "--json") == 0
    (entry,) = json.loads(capsys.readouterr().out)["models"]
    assert (entry["title"], entry["licence"]) == ("Balls", "CC0")
    assert entry["mean_dice"] > 0.5

    assert run("evaluate", model, dataset, "--held-back", "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert len(document["cases"]) == 1
    (figures,) = document["cases"][0]["labels"].values()
    assert figures["dice"] == pytest.approx(entry["mean_dice"], abs=1e-4)
    (dataset / "images" / "case0.nii.gz").write_bytes(b"")
    assert run("evaluate", "balls", dataset) == 2
    output = capsys.readouterr()
    assert "case0" in one_line(output.err)
    assert len(output.out.splitlines()) == 1 + 3 + 1

    assert run(*words) == 2
    assert "already contains a model" in one_line(capsys.readouterr().err)
    assert run("train", "-o", model, "--resume") == 2
    assert "is complete: use the model, or choose another folder" in one_line(capsys.readouterr().err)
    assert run("train", "-o", tmp_path / "nothing", "--resume") == 2
    assert "no checkpoint to resume from" in one_line(capsys.readouterr().err)


def test_training_images_travel_only_where_that_is_asked_for_and_the_card_tells_what_is_known(
    write_balls, tmp_path, capsys
):
    dataset = write_balls(tmp_path / "data", count=3)
    for name, words in (("plain", ()), ("rehearsed", ("--replay", "--demonstration"))):
        assert run("train", dataset, "-o", tmp_path / f"{name} é", "--steps", 2, "--fold", "0/2", *words) == 0
        is_there = (tmp_path / f"{name} é" / "replay.safetensors").exists()
        said = capsys.readouterr().out.splitlines()[-1]
        assert is_there == bool(words) == ("30 crops of the training images" in said)
        card = (tmp_path / f"{name} é" / "CARD.md").read_text()
        assert ("replay" in card) == ("**Demonstration only:" in card) == is_there
        has_subjects = (dataset / "manifest.csv").exists()
        assert ("No subject is in both sets" in card) == has_subjects
        assert ("every case was counted as a separate subject" in card) != has_subjects
        (dataset / "manifest.csv").write_text("case,subject\ncase0,a\ncase1,a\ncase2,b\n")


def has_begun(folder: Path) -> bool:
    """Return whether the first line of a training's record is written."""
    record = folder / "training.jsonl"
    return record.exists() and record.stat().st_size > 0


def test_a_training_that_was_cancelled_before_it_began_begins_with_the_cases_that_are_ready(write_balls, tmp_path):
    dataset = write_balls(tmp_path / "data")
    job = TrainingJob(dataset=dataset, folder=tmp_path / "m", fold=(0, 2), options=TrainingOptions(steps=2))
    seen = []
    task = Task(seen.append, lambda: any((job.folder / "prepared").glob("*.safetensors")))
    with pytest.raises(CancelledError, match="prepared cases are kept"):
        run_training(job, task=task)
    assert "start" not in [event["event"] for event in seen]
    ready = {path.name: path.stat().st_mtime_ns for path in (job.folder / "prepared").iterdir()}
    now = {}

    def look(event):
        if event["event"] == "start":
            now.update({path.name: path.stat().st_mtime_ns for path in (job.folder / "prepared").iterdir()})

    run_training(job, task=Task(look))
    assert ready.items() <= now.items()
    assert not (job.folder / "prepared").exists()
    assert (job.folder / "model.json").is_file()


def test_a_resumed_training_equals_one_without_a_break(write_balls, tmp_path, capsys):
    dataset = write_balls(tmp_path / "data")
    options = TrainingOptions(steps=6, validate_every=2, precision="float32", seed=3)
    jobs = [
        TrainingJob(dataset=dataset, folder=tmp_path / name, fold=(0, 2), options=options, id="same")
        for name in ("whole", "broken")
    ]
    run_training(jobs[0])
    steps = iter(range(100))
    with pytest.raises(CancelledError):
        run_training(jobs[1], task=Task(is_cancelled=lambda: has_begun(jobs[1].folder) and next(steps) == 3))
    assert not (jobs[1].folder / "model.json").exists()
    assert run("train", "-o", tmp_path / "broken", "--resume", "--seed", 4) == 2
    assert "seed is 4, but the training began with 3" in one_line(capsys.readouterr().err)
    assert run("train", "-o", tmp_path / "broken", "--resume", "--fold", "0/2") == 0
    whole, broken = (load_file(tmp_path / name / "weights.safetensors") for name in ("whole", "broken"))
    assert whole.keys() == broken.keys()
    assert all(np.array_equal(whole[name], broken[name]) for name in whole)


@pytest.mark.parametrize("stage", ["segmented", "compared", "measured"])
def test_a_training_that_was_cancelled_while_it_was_measured_goes_on_with_that(write_balls, tmp_path, stage):
    dataset = write_balls(tmp_path / "data", count=16)
    job = TrainingJob(dataset=dataset, folder=tmp_path / "m", fold=(0, 2), options=TrainingOptions(steps=2))
    seen = []
    with pytest.raises(CancelledError, match="while evaluating the model; continue with --resume"):
        run_training(job, task=Task(lambda event: seen.append(event["event"]), lambda: stage in seen))
    weights = (job.folder / "weights.safetensors").read_bytes()
    events = [event["event"] for event in events_of(run_training, job, is_resumed=True)]
    assert "step" not in events
    assert events.count("segmented") == events.count("measured") == 8
    assert (job.folder / "weights.safetensors").read_bytes() == weights
    assert json.loads((job.folder / "model.json").read_text())["figures"]["cases"] == 8
    recorded = [json.loads(line)["event"] for line in (job.folder / "training.jsonl").read_text().splitlines()]
    assert (recorded.count("postprocess"), recorded.count("evaluation")) == (1, 8)
    assert not (job.folder / CHECKPOINT_FILE).exists()


def test_a_training_does_not_go_on_with_other_data(write_balls, tmp_path, capsys):
    dataset = write_balls(tmp_path / "data")
    job = TrainingJob(dataset=dataset, folder=tmp_path / "m", fold=(0, 2), options=TrainingOptions(steps=5))
    with pytest.raises(CancelledError):
        run_training(job, task=Task(is_cancelled=lambda: has_begun(job.folder)))
    write_balls(tmp_path / "more", count=7)
    assert run("train", tmp_path / "more", "-o", tmp_path / "m", "--resume") == 2
    assert "has changed since the training began" in one_line(capsys.readouterr().err)
