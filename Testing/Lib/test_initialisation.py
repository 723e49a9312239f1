"""A training that begins with another model's weights takes all but the heads, once, and says so."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from Testing.Lib.conftest import events_of
from UNetSegmentationLib.core.errors import CancelledError, InputError
from UNetSegmentationLib.core.event_log import TrainingRecord
from UNetSegmentationLib.core.task import Task
from UNetSegmentationLib.image.geometry import Volume
from UNetSegmentationLib.image.volume_io import write_labelmap, write_volume
from UNetSegmentationLib.models.description import read_description, write_description
from UNetSegmentationLib.networks import NETWORKS, build_network
from UNetSegmentationLib.networks.parts.ensemble import Ensemble
from UNetSegmentationLib.networks.parts.weights import load_weights, save_weights
from UNetSegmentationLib.planning.plan import Normalization, Plan
from UNetSegmentationLib.training.job import TrainingJob
from UNetSegmentationLib.training.options import TrainingOptions
from UNetSegmentationLib.training.run import run_training
from UNetSegmentationLib.training.start_weights import carry_over, heads_of, start_from_model, total_steps

PLAN = Plan(
    dimensions=3,
    spacing_mm=(1.0, 1.0, 1.0),
    patch_size=(8, 8, 8),
    batch_size=2,
    orientation="RAS",
    normalization=(Normalization(scheme="zscore"),),
)
STEPS = 3


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def dataset(tmp_path) -> Path:
    """Four cases of two subjects, one of whom a fold of two holds back."""
    folder = tmp_path / "data"
    for number in range(4):
        image = np.random.default_rng(number).normal(0, 1, (1, 10, 10, 10)).astype(np.float32)
        write_volume(folder / "images" / f"case{number}.nii.gz", Volume(image, np.eye(4)))
        inside = np.zeros((10, 10, 10), np.uint8)
        inside[2:6, 3:7, 1 + number : 5 + number] = 1
        write_labelmap(folder / "labels" / f"case{number}.nii.gz", inside, affine_ras=np.eye(4))
    rows = ["case0,a", "case1,b", "case2,b", "case3,a"]
    (folder / "manifest.csv").write_text("\n".join(["case,subject", *rows]))
    return folder


def job_of(dataset: Path, folder: Path, **changes) -> TrainingJob:
    plan = dataset.parent / "plan.json"
    plan.write_text(json.dumps(PLAN.to_dict()), encoding="utf-8")
    return TrainingJob(
        dataset=dataset,
        folder=folder,
        plan=plan,
        fold=(0, 2),
        device="cpu",
        options=TrainingOptions(steps=STEPS, precision="float32", validate_every=0),
        network_options={"features_per_stage": [4, 6], "norm": "batch"},
        **changes,
    )


def network_of(name: str = "unet", **options):
    return build_network(name, {"in_channels": 1, "num_classes": 3, "features_per_stage": [4, 6], **options})


@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_every_network_takes_all_but_its_heads(name, dimensions):
    channels = {"brain_tumour": 4, "sequence_fusion": 2}.get(name, 1)
    options = {
        "primus_unet": {"embedding": 24, "blocks": 1, "heads": 2},
        "shape_prior": {"prior_size": 8, "prior_latent": 4},
        "nodule_unet": {"stem_features": 2},
    }.get(name, {})
    network, other = (
        network_of(name, in_channels=channels, dimensions=dimensions, deep_supervision=True, **options) for _ in "ab"
    )
    weights = {entry: torch.full_like(value, 2) for entry, value in other.state_dict().items()}
    before = {entry: value.clone() for entry, value in network.state_dict().items()}
    carry_over(network, weights)
    heads = heads_of(network)
    assert 0 < len(heads) < len(before)
    for entry, value in network.state_dict().items():
        assert torch.equal(value, before[entry] if entry in heads else weights[entry]), entry


def test_heads_are_what_depends_on_the_number_of_classes():
    assert heads_of(network_of(deep_supervision=True)) == {"decoder.heads.0.weight", "decoder.heads.0.bias"}
    assert heads_of(network_of("unet_plus_plus", features_per_stage=[4, 6, 8], deep_supervision=True)) == {
        f"heads.{column}.{kind}" for column in (1, 2) for kind in ("weight", "bias")
    }


def run_until(job: TrainingJob, *, kind: str, number: int) -> None:
    seen: list[str] = []
    with pytest.raises(CancelledError):
        run_training(job, task=Task(lambda event: seen.append(event["event"]), lambda: seen.count(kind) == number))


def test_resumed_equals_uninterrupted(dataset, tmp_path):
    first = job_of(dataset, tmp_path / "first")
    run_training(first)
    begins = {"init": str(first.folder)}
    run_training(job_of(dataset, tmp_path / "whole", **begins))
    job = job_of(dataset, tmp_path / "broken", **begins)
    run_until(job, kind="step", number=1)
    kinds = [event["event"] for event in events_of(run_training, job, is_resumed=True)]
    assert "initialised" not in kinds
    record = [event["event"] for event in TrainingRecord.read(job.folder / "training.jsonl")]
    assert record.count("initialised") == 1
    whole, broken, drawn = (load_file(tmp_path / name / "weights.safetensors") for name in ("whole", "broken", "first"))
    assert all(torch.equal(value, broken[name]) for name, value in whole.items())
    init = [read_description(tmp_path / name).training["init"] for name in ("whole", "broken")]
    assert init[0] == init[1] == {"model": "first", "earlier_steps": STEPS}
    assert not any(torch.equal(value, drawn[name]) for name, value in whole.items() if name.endswith("conv.weight"))


def test_another_models_weights_begin_a_training_but_for_the_heads(dataset, tmp_path):
    first = job_of(dataset, tmp_path / "first")
    run_training(first)
    second = replace(first, folder=tmp_path / "second", init=str(first.folder))
    third = replace(second, options=replace(first.options, steps=1, learning_rate=1e-12))
    events = events_of(run_training, third)
    parent, child = (load_weights(folder / "weights.safetensors") for folder in (first.folder, second.folder))
    for name, value in parent.items():
        if value.is_floating_point() and "running" not in name:
            is_head = name.startswith("decoder.heads")
            assert torch.allclose(value, child[name], atol=1e-3) != is_head or name.endswith("bias"), name
    steps = first.options.steps
    assert {"event": "initialised", "step": 0, "model": "first", "earlier_steps": steps} in events
    assert total_steps(read_description(second.folder).training) == steps + 1
    assert read_description(second.folder).parent == "first"
    assert f"Initialised with the weights of `first`, after {steps} steps" in (second.folder / "CARD.md").read_text()


def test_weights_that_cannot_begin_a_training_are_refused(dataset, tmp_path, tiny_model):
    tiny = tiny_model()
    with pytest.raises(InputError, match="model 'tiny' is a unet, but this training needs a vnet: use --variant unet"):
        start_from_model(network_of("vnet"), str(tiny))
    with pytest.raises(InputError, match=r"do not fit this network \(at encoder.*train with the plan"):
        start_from_model(network_of(features_per_stage=[6, 8]), str(tiny))
    with pytest.raises(InputError, match="do not fit"):
        carry_over(network_of(), {})
    description = read_description(tiny)
    (tiny / "weights.safetensors").rename(tiny / "one.safetensors")
    networks = [build_network("unet", description.network_config) for _ in range(2)]
    save_weights(tiny / "weights.safetensors", Ensemble(networks))
    write_description(tiny, replace(description, members=2, weights_sha256=""))
    with pytest.raises(InputError, match="'tiny' has 2 members: start from a model with one"):
        start_from_model(network_of(), str(tiny))
    with pytest.raises(InputError, match="there is no model 'nothing'"):
        run_training(job_of(dataset, tmp_path / "m", init="nothing"))
