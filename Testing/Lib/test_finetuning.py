"""Fine-tuning learns the local cases, keeps what was known, can be resumed, and says how the two models compare."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from Testing.Lib.conftest import events_of
from Testing.StarterModels.shared_replay import share_replay
from UNetSegmentationLib.cases.dataset import Case, find_cases
from UNetSegmentationLib.cli import main
from UNetSegmentationLib.core.errors import CancelledError, InputError
from UNetSegmentationLib.core.files import hold_alone, sha256_of
from UNetSegmentationLib.core.task import Task
from UNetSegmentationLib.finetuning.forgetting import distillation_loss, squared_distance
from UNetSegmentationLib.finetuning.gate import GateRow, compare_models, hold_back, judge
from UNetSegmentationLib.finetuning.job import LEARNING_RATE_WITHOUT_REPLAY, FinetuningJob
from UNetSegmentationLib.finetuning.run import run_finetuning
from UNetSegmentationLib.image.geometry import Volume
from UNetSegmentationLib.image.volume_io import write_labelmap, write_volume
from UNetSegmentationLib.models.description import WEIGHTS_FILE, read_description, write_description
from UNetSegmentationLib.networks import build_network
from UNetSegmentationLib.networks.parts.ensemble import Ensemble
from UNetSegmentationLib.networks.parts.weights import load_network, save_weights
from UNetSegmentationLib.training.job import RECORD_FILE, TrainingJob
from UNetSegmentationLib.training.options import TrainingOptions
from UNetSegmentationLib.training.prepared_case import PreparedCase, prepare_case
from UNetSegmentationLib.training.replay import REPLAY_FILE, find_replay, read_replay
from UNetSegmentationLib.training.replay_packing import pack_replay
from UNetSegmentationLib.training.run import run_training

SHAPE = (12, 12, 12)


CHECKERS = (np.indices(SHAPE).sum(axis=0) % 2) * 2.0 - 1


def write_cubes(
    folder: Path, *, cases: int, is_chequered: bool = False, first: int = 0, unlabelled: bool = False
) -> Path:
    """Write cubes that are brighter than their noisy surroundings, or as bright on average but chequered."""
    for case in range(first, first + cases):
        rng = np.random.default_rng(case)
        labels = np.zeros(SHAPE, np.uint8)
        labels[tuple(slice(start, start + 5) for start in rng.integers(1, 6, 3))] = 1
        image = 2 * labels * (CHECKERS if is_chequered else 1) + rng.normal(0, 0.3, SHAPE)
        if unlabelled:
            labels[:, :, 9:] = 255
        write_volume(folder / "images" / f"c{case}.nii.gz", Volume(image.astype(np.float32)[None], np.eye(4)))
        write_labelmap(folder / "labels" / f"c{case}.nii.gz", labels, affine_ras=np.eye(4))
    return folder


@pytest.fixture(scope="module")
def parent(tmp_path_factory) -> Path:
    """A small model that finds bright cubes, with its replay crops."""
    folder = tmp_path_factory.mktemp("parent")
    job = TrainingJob(
        dataset=write_cubes(folder / "data", cases=8),
        folder=folder / "bright",
        fold=(0, 4),
        network_options={"features_per_stage": [6, 12]},
        options=TrainingOptions(steps=70, learning_rate=1e-2, ema_decay=0.9, validate_every=0, precision="float32"),
        device="cpu",
        data_licence="CC0",
        has_replay=True,
    )
    run_training(job)
    return job.folder


def job_of(parent: Path, tmp_path: Path, **options: object) -> FinetuningJob:
    values = {"folder": tmp_path / "new", "device": "cpu", "precision": "float32", "steps": 4, **options}
    return FinetuningJob(model=str(parent), **values)


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    return load_network(folder)[0].state_dict()


def test_training_leaves_crops_of_training_cases_with_the_model(parent):
    description = read_description(parent)
    replay = read_replay(parent / REPLAY_FILE)
    assert not {crop.id for crop in (*replay.rehearsal, *replay.sentinels)} & set(
        description.training["held_back_cases"]
    )
    assert description.training["replay"] == {"rehearsal": 20, "sentinels": 10, "licence": "CC0"}
    assert "contains 30 small crops" in (parent / "CARD.md").read_text()


def test_the_other_scanner_is_learnt_and_the_first_is_not_forgotten(parent, tmp_path):
    before = {path.name: path.read_bytes() for path in parent.iterdir()}
    data = write_cubes(tmp_path / "local", cases=4, is_chequered=True, first=20)
    job = job_of(parent, tmp_path, dataset=data, steps=60, learning_rate=1e-2)
    events = events_of(run_finetuning, job)
    gate = next(event for event in events if event["event"] == "gate")
    assert gate["local"]["cases"] == 1
    assert gate["local"]["new"] > gate["local"]["old"] + 0.1
    assert gate["sentinel"]["new"] > gate["sentinel"]["old"] - 0.02
    assert gate["verdict"] == "better"
    description = read_description(job.folder)
    assert (description.parent, description.id) == (read_description(parent).id, "new")
    assert description.figures["gate"]["verdict"] == gate["verdict"]
    assert description.figures["labels"]["Label 1"]["dice"] == pytest.approx(gate["local"]["new"], abs=1e-3)
    assert description.weights_sha256 == sha256_of(job.folder / WEIGHTS_FILE)
    assert (job.folder / REPLAY_FILE).read_bytes() == before[REPLAY_FILE]
    assert "Fine-tuned from `bright`" in (job.folder / "CARD.md").read_text()
    assert {path.name: path.read_bytes() for path in parent.iterdir()} == before
    left = {path.name for path in job.folder.iterdir()}
    assert left == {"model.json", WEIGHTS_FILE, "CARD.md", REPLAY_FILE, "training.jsonl"}


@pytest.mark.parametrize("uses_replay", [True, False])
def test_resumed_equals_uninterrupted(parent, tmp_path, uses_replay):
    data = write_cubes(tmp_path / "local", cases=1, is_chequered=True)
    whole, parts = (
        job_of(parent, tmp_path, dataset=data, folder=tmp_path / name, uses_replay=uses_replay) for name in "ab"
    )
    run_finetuning(whole)
    told = []
    with pytest.raises(CancelledError):
        run_finetuning(parts, task=Task(told.append, lambda: told[-1].get("step") == 2))
    with pytest.raises(InputError, match="seed changed since fine-tuning began"):
        run_finetuning(replace(parts, seed=9), is_resumed=True)
    resumed = events_of(run_finetuning, parts, is_resumed=True)
    steps = [event["step"] for event in resumed if event["event"] == "step"]
    assert steps == [3, 4]
    assert all(torch.equal(a, b) for a, b in zip(*(weights_of(j.folder).values() for j in (whole, parts)), strict=True))
    parent_weights = weights_of(parent)
    assert any(not torch.equal(value, parent_weights[name]) for name, value in weights_of(whole.folder).items())


def test_without_crops_the_rate_is_small_and_nothing_is_validated(parent, tmp_path):
    data = write_cubes(tmp_path / "local", cases=1, is_chequered=True)
    events = events_of(run_finetuning, job_of(parent, tmp_path, dataset=data, uses_replay=False))
    first = next(event for event in events if event["event"] == "step")
    assert first["learning_rate"] == LEARNING_RATE_WITHOUT_REPLAY
    gate = events[-1]["description"]["figures"]["gate"]
    assert gate["verdict"] == "not validated"
    assert (gate["sentinel"], gate["local"], len(gate["reasons"])) == (None, None, 2)
    assert not (tmp_path / "new" / REPLAY_FILE).exists()


def test_a_strong_pull_holds_the_weights(parent, tmp_path):
    data = write_cubes(tmp_path / "local", cases=1, is_chequered=True)
    start, _ = load_network(parent)
    reference = {name: value.detach() for name, value in start.named_parameters()}
    assert squared_distance(start, reference) == 0
    distances = []
    for pull in (0.0, 1.0, 100.0):
        job = job_of(parent, tmp_path, dataset=data, folder=tmp_path / f"p{pull:.0f}", pull=pull, steps=12)
        run_finetuning(job)
        distances.append(squared_distance(load_network(job.folder)[0], reference).item())
    assert distances[0] > distances[1] > distances[2]


def test_voxels_that_nobody_labelled_teach_nothing(parent, tmp_path):
    data = write_cubes(tmp_path / "partial", cases=1, unlabelled=True)
    description = read_description(parent)
    (case,) = find_cases(data)
    prepared = prepare_case(case, description.plan, description.labels, ignored=255)
    assert (prepared.labels[:, :, 9:] == -1).all()
    assert (prepared.labels[:, :, :9] >= 0).all()
    assert (prepared.labels[tuple(prepared.foreground.long().T)] == 1).all()
    run_finetuning(job_of(parent, tmp_path, dataset=data, steps=2))


def test_distillation_counts_where_the_labels_do_not_contradict():
    generator = torch.Generator().manual_seed(0)
    parent_logits = torch.randn(1, 3, 4, 4, generator=generator)
    agreed = parent_logits.argmax(dim=1)
    labels = agreed.clone()
    labels[0, 0] = -1
    labels[0, 1] = (agreed[0, 1] + 1) % 3
    logits = torch.randn(1, 3, 4, 4, generator=generator, requires_grad=True)
    distillation_loss(logits, parent_logits, labels).backward()
    is_touched = logits.grad.abs().sum(dim=1)[0] > 0
    assert is_touched.tolist() == [[True] * 4, [False] * 4, [True] * 4, [True] * 4]
    # The parent's own answer is the best one.
    least = distillation_loss(parent_logits, parent_logits, labels)
    assert least <= distillation_loss(logits, parent_logits, labels)
    assert distillation_loss(logits, parent_logits, (agreed + 1) % 3) == 0


def test_batch_norm_keeps_its_statistics(tmp_path, tiny_model):
    folder = tiny_model("normed", labels=1)
    description = read_description(folder)
    config = {**description.network_config, "norm": "batch"}
    network = build_network("unet", config)
    for name, value in network.state_dict().items():
        if "running" in name:
            value.uniform_(0.5, 1.5, generator=torch.Generator().manual_seed(len(name)))
    save_weights(folder / WEIGHTS_FILE, network)
    write_description(
        folder, replace(description, network_config=config, weights_sha256=sha256_of(folder / WEIGHTS_FILE))
    )
    run_finetuning(job_of(folder, tmp_path, dataset=write_cubes(tmp_path / "d", cases=1)))
    old, new = weights_of(folder), weights_of(tmp_path / "new")
    statistics = [name for name in old if "running" in name or "tracked" in name]
    assert statistics
    assert all(torch.equal(old[name], new[name]) for name in statistics)
    assert any(not torch.equal(old[name], new[name]) for name in old if name not in statistics)


def cases_of(*subjects: str) -> list[Case]:
    return [Case(id=f"{s}-{n}", images=(), labels=Path("x"), subject=s) for s in subjects for n in range(2)]


def with_record(description, **training):
    return replace(description, training=training)


def test_a_third_of_the_subjects_is_held_back_and_no_case_changes_sides(parent):
    fresh = with_record(read_description(parent))
    assert hold_back(cases_of("a", "b"), fresh) == []
    names = [f"s{index}" for index in range(9)]
    for count in range(3, 10):
        held = hold_back(cases_of(*names[:count]), fresh)
        assert len({case.subject for case in held}) == count // 3
        assert len(held) == 2 * (count // 3)
    first = hold_back(cases_of(*names[:6]), fresh)
    trained = [case for case in cases_of(*names[:6]) if case not in first]
    child = with_record(
        fresh, local_cases=[case.id for case in trained], held_back_local_cases=[case.id for case in first]
    )
    later = hold_back(cases_of(*names), child)
    assert {case.id for case in first} <= {case.id for case in later}
    assert not {case.id for case in later} & {case.id for case in trained}
    everything = with_record(fresh, local_cases=[case.id for case in cases_of(*names)])
    assert hold_back(cases_of(*names), everything) == []


def row(group, case, old, new, **options):
    return GateRow(group=group, case=case, old={1: old}, new={1: new}, **options)


@pytest.mark.parametrize(
    ("rows", "verdict", "words"),
    [
        ([row("sentinel", "s", 0.9, 0.88), row("local", "a", 0.5, 0.8)], "better", []),
        ([row("sentinel", "s", 0.9, 0.86), row("local", "a", 0.5, 0.8)], "worse", ["drops by 0.040"]),
        ([row("sentinel", "s", 0.9, 0.9), row("local", "a", 0.5, 0.502)], "worse", ["changes by +0.002"]),
        (
            [row("sentinel", "s", 0.9, 0.9), row("local", "a", 0.2, 0.9), row("local", "b", 0.9, 0.8)],
            "worse",
            ["only 50%", "drops by 0.100 on b"],
        ),
        ([row("sentinel", "s", 0.9, 0.9)], "not validated", ["no held-back local case"]),
        ([row("local", "a", 0.5, 0.9)], "not validated", ["no crop"]),
        ([row("sentinel", "s", 0.9, float("nan")), row("local", "a", 0.5, 0.9)], "not validated", ["no crop"]),
        (
            [row("sentinel", "s", 0.9, 0.9), row("local", "a", 0.5, 0.9, is_newly_empty=True)],
            "worse",
            ["nothing is segmented any more in a"],
        ),
    ],
)
def test_the_gate_judges_by_its_rules(rows, verdict, words):
    result = judge(rows)
    assert result["verdict"] == verdict
    assert len(result["reasons"]) == len(words)
    assert all(word in reason for word, reason in zip(words, result["reasons"], strict=True))
    json.dumps(result, allow_nan=False)


def test_the_gate_does_not_count_unlabelled_voxels(parent):
    network, description = load_network(parent)
    truth = torch.zeros(SHAPE, dtype=torch.int16)
    truth[2:7, 2:7, 2:7] = 1
    image = 2 * truth.float()[None] + torch.randn(1, *SHAPE, generator=torch.Generator().manual_seed(1)) * 0.3
    image = (image - image.mean()) / image.std()
    partial = truth.clone()
    partial[:, 5:] = -1
    cases = [
        PreparedCase(id=name, image=image, padding=torch.zeros(1), labels=labels, foreground=truth.nonzero().short())
        for name, labels in (("whole", truth), ("partial", partial))
    ]
    whole, half = compare_models(network, network, {"local": cases}, description.plan, device=torch.device("cpu"))
    assert whole.change == half.change == 0
    # The cube's cut half is judged alone: as good as the whole, not half as good.
    assert half.old_mean > whole.old_mean - 0.1
    assert whole.old_mean > 0.8


def test_an_older_model_gets_crops_of_the_cases_it_was_trained_on(parent, tmp_path):
    folder = tmp_path / "older"
    shutil.copytree(parent, folder)
    (folder / REPLAY_FILE).unlink()
    description = pack_replay(folder, parent.parent / "data")
    held_back = set(description.training["held_back_cases"])
    replay = read_replay(folder / REPLAY_FILE)
    assert not {crop.id for crop in (*replay.rehearsal, *replay.sentinels)} & held_back
    assert read_description(folder) == description
    with pytest.raises(InputError, match="has no case c"):
        pack_replay(folder, write_cubes(tmp_path / "other", cases=1, first=50))


def test_a_model_without_room_for_crops_is_continued_with_those_of_its_neighbour(parent, tmp_path):
    models = tmp_path / "models"
    folder, other = models / "small", models / "other"
    for copy in (folder, other):
        shutil.copytree(parent, copy)
    (folder / REPLAY_FILE).unlink()
    description = share_replay(folder, other)
    assert "of `other`, in the folder beside this one, contains 30 small crops" in (folder / "CARD.md").read_text()
    data = write_cubes(tmp_path / "local", cases=1, is_chequered=True)
    child = job_of(folder, tmp_path, dataset=data)
    run_finetuning(child)
    assert (child.folder / REPLAY_FILE).read_bytes() == (other / REPLAY_FILE).read_bytes()
    assert "shared" not in read_description(child.folder).training["replay"]
    # Alone, or beside other crops or a path out of the folder, it has none.
    alone = tmp_path / "alone" / "small"
    shutil.copytree(folder, alone)
    assert find_replay(alone, description.training) is None
    crops = sha256_of(other / REPLAY_FILE)
    shutil.copy(other / REPLAY_FILE, models)
    for name in ("../other", "", ".", "..", None, 3):
        assert find_replay(folder, {"replay": {"shared": {"model": name, "sha256": crops}}}) is None
    for damaged in (None, [], {"shared": "other"}, {"shared": {"model": "other"}}):
        assert find_replay(folder, {"replay": damaged}) is None
    with (other / REPLAY_FILE).open("ab") as file:
        file.write(b"0")
    assert find_replay(folder, description.training) is None


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"plan": {"spacing_mm": (2.0, 2.0, 2.0)}}, "the preprocessing"),
        ({"training": {"data": "Another hospital"}}, "the data"),
        ({"training": {"held_back_cases": []}}, "the data"),
        ({"channels": "T2"}, "the channels"),
    ],
)
def test_crops_that_do_not_suit_a_model_are_not_shared(parent, tmp_path, change, what):
    folder = tmp_path / "small"
    shutil.copytree(parent, folder)
    description = read_description(folder)
    if "plan" in change:
        description = replace(description, plan=replace(description.plan, **change["plan"]))
    if "training" in change:
        description = replace(description, training={**description.training, **change["training"]})
    if "channels" in change:
        description = replace(description, channels=(replace(description.channels[0], name=change["channels"]),))
    write_description(folder, description)
    with pytest.raises(InputError, match="has its own crops"):
        share_replay(folder, parent)
    (folder / REPLAY_FILE).unlink()
    with pytest.raises(InputError, match=f"do not suit .*: {what} are not the same"):
        share_replay(folder, parent)


def test_a_finetuning_does_not_go_on_with_other_crops(parent, tmp_path):
    data = write_cubes(tmp_path / "local", cases=1, is_chequered=True)
    folder = tmp_path / "small"
    shutil.copytree(parent, folder)
    job = job_of(folder, tmp_path, dataset=data)
    told = []
    with pytest.raises(CancelledError):
        run_finetuning(job, task=Task(told.append, lambda: told[-1]["event"] == "step"))
    (folder / REPLAY_FILE).unlink()
    with pytest.raises(InputError, match="crops_sha256 changed since fine-tuning began"):
        run_finetuning(job, is_resumed=True)


def test_what_cannot_be_continued_is_refused(parent, tmp_path, tiny_model):
    data = write_cubes(tmp_path / "d", cases=1)
    with pytest.raises(InputError, match="no checkpoint to resume from"):
        run_finetuning(job_of(parent, tmp_path, dataset=data), is_resumed=True)
    with pytest.raises(InputError, match="already contains a model: choose another folder"):
        run_finetuning(job_of(parent, tmp_path, dataset=data, folder=parent))
    taken = job_of(parent, tmp_path, dataset=data)
    with (
        hold_alone(taken.folder / RECORD_FILE, task="training"),
        pytest.raises(InputError, match="another training is running in"),
    ):
        run_finetuning(taken)
    labels = np.full(SHAPE, 7, np.uint8)
    write_labelmap(data / "labels" / "c0.nii.gz", labels, affine_ras=np.eye(4))
    with pytest.raises(InputError, match=r"values \[7\], but the model knows \[1\] and 255"):
        run_finetuning(job_of(parent, tmp_path, dataset=data))
    with pytest.raises(InputError, match="model id 'V1' is not allowed"):
        run_finetuning(job_of(parent, tmp_path, dataset=data, id="V1"))
    regions = tiny_model("regions", labels=1)
    write_description(regions, replace(read_description(regions), output="regions"))
    with pytest.raises(InputError, match="predicts overlapping regions"):
        run_finetuning(job_of(regions, tmp_path, dataset=data))


def test_a_case_without_the_organ_teaches_too(parent, tmp_path):
    data = write_cubes(tmp_path / "local", cases=1)
    write_labelmap(data / "labels" / "c0.nii.gz", np.zeros(SHAPE, np.uint8), affine_ras=np.eye(4))
    run_finetuning(job_of(parent, tmp_path, dataset=data, steps=1))
    with pytest.raises(InputError, match="no training case contains a labelled voxel"):
        run_finetuning(job_of(parent, tmp_path, dataset=data, folder=tmp_path / "b", uses_replay=False))


def test_of_several_members_one_is_continued_and_all_are_the_measure(tmp_path, tiny_model):
    folder = tiny_model("folds", labels=1)
    description = read_description(folder)
    members = [build_network(description.network, description.network_config) for _ in range(2)]
    save_weights(folder / WEIGHTS_FILE, Ensemble(members))
    write_description(folder, replace(description, members=2, weights_sha256=sha256_of(folder / WEIGHTS_FILE)))
    job = job_of(folder, tmp_path, dataset=write_cubes(tmp_path / "d", cases=1), learning_rate=1e-9, pull=0.0)
    run_finetuning(job)
    network, continued = load_network(job.folder)
    assert (continued.members, continued.parent) == (1, "folds")
    for value, start in zip(network.state_dict().values(), members[0].state_dict().values(), strict=True):
        assert torch.allclose(value, start, atol=1e-6)


def run(*words: object) -> int:
    return main([str(word) for word in words])


def test_the_command_tells_how_the_two_compare(parent, tmp_path, capsys):
    data = write_cubes(tmp_path / "local", cases=3, is_chequered=True)
    new = tmp_path / "new"
    assert run("finetune", parent, data, "-o", new, "--steps", 2, "--device", "cpu", "--title", "Chequered cubes") == 0
    said = capsys.readouterr().out
    assert "Continuing 'bright' on 2 local case(s), 1 held back, rehearsing 20 crops" in said
    assert "local cases, held back" in said
    assert "Gate: " in said
    assert run("finetune", parent, data, "-o", tmp_path / "j", "--steps", 1, "--device", "cpu", "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert document["model"]["parent"] == "bright"
    assert document["model"]["figures"]["gate"]["local"]["cases"] == 1
    assert run("finetune", parent, "-o", tmp_path / "k") == 2
    assert "a model and a data set are required" in capsys.readouterr().err
    assert run("finetune", new, data, "-o", new) == 2
    assert "already contains a model" in capsys.readouterr().err
