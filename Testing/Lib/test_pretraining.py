"""Pretraining hides blocks and counts them alone, never sees who is held back, carries all but the heads, resumes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from UNetSegmentationLib.augmentation import AugmentationConfig
from UNetSegmentationLib.checkpoint import load_weights, save_weights
from UNetSegmentationLib.cli import main
from UNetSegmentationLib.dataset import PreparedCase, find_cases
from UNetSegmentationLib.errors import CancelledError, InputError
from UNetSegmentationLib.geometry import Volume
from UNetSegmentationLib.initialisation import begin_with_model, total_steps
from UNetSegmentationLib.model_folder import read_description, write_description
from UNetSegmentationLib.networks import NETWORKS, build_network
from UNetSegmentationLib.networks.ensemble import Ensemble
from UNetSegmentationLib.planning import Normalization, Plan
from UNetSegmentationLib.pretraining import (
    ReconstructionLoss,
    build_reconstructing,
    carry_over,
    draw_mask,
    heads_of,
    hide,
    pretrain,
)
from UNetSegmentationLib.training_folder import TrainingJob
from UNetSegmentationLib.training_job import run_training
from UNetSegmentationLib.training_options import TrainingOptions
from UNetSegmentationLib.training_record import TrainingRecord, follow_resumes
from UNetSegmentationLib.training_state import CHECKPOINT_FILE, phase_of
from UNetSegmentationLib.unlabelled import find_unlabelled, prepare_unlabelled
from UNetSegmentationLib.volume_io import write_labelmap, write_volume

PLAN = Plan(
    dimensions=3,
    spacing_mm=(1.0, 1.0, 1.0),
    patch_size=(8, 8, 8),
    batch_size=2,
    orientation="RAS",
    normalization=(Normalization(scheme="zscore"),),
)
CPU = torch.device("cpu")
STEPS = 3
PRETRAINABLE = sorted(set(NETWORKS) - {"hu_prior"})


pytestmark = pytest.mark.usefixtures("one_thread")


def write_image(path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    write_volume(path, Volume(rng.normal(0, 1, (1, 10, 10, 10)).astype(np.float32), np.eye(4)))


@pytest.fixture
def dataset(tmp_path) -> Path:
    """Six images of two subjects, one of whom a fold of two holds back; the last two have no labelmap."""
    folder = tmp_path / "data"
    for number in range(6):
        write_image(folder / "images" / f"case{number}.nii.gz", number)
        inside = np.zeros((10, 10, 10), np.uint8)
        inside[2:6, 3:7, 1 + number : 5 + number] = 1
        if number < 4:
            write_labelmap(folder / "labels" / f"case{number}.nii.gz", inside, affine_ras=np.eye(4))
    rows = ["case0,a", "case1,b", "case2,b", "case3,a", "case4,a", "case5,b"]
    (folder / "manifest.csv").write_text("\n".join(["case,subject", *rows]))
    return folder


def job_of(dataset: Path, folder: Path, **changes) -> TrainingJob:
    plan = dataset.parent / "plan.json"
    plan.write_text(json.dumps(PLAN.to_dict()), encoding="utf-8")
    values = {"init": "pretrained", "pretraining_steps": STEPS, **changes}
    options = TrainingOptions(steps=STEPS, precision="float32", validate_every=0)
    network = {"features_per_stage": [4, 6], "norm": "batch"}
    return TrainingJob(
        dataset=dataset,
        folder=folder,
        plan=plan,
        fold=(0, 2),
        device="cpu",
        options=options,
        network_options=network,
        **values,
    )


def images(channels: int = 1, dimensions: int = 3) -> list[PreparedCase]:
    """Return cases whose voxels follow from their neighbours."""
    shape = (12, 12, 12) if dimensions == 3 else (1, 24, 24)
    made = []
    for index in range(3):
        grid = torch.meshgrid(*(torch.arange(size) for size in shape), indexing="ij")
        image = torch.sin(sum(axis * 0.4 for axis in grid) + index).expand(channels, *shape).clone()
        labels = torch.zeros((), dtype=torch.int16).expand(shape)
        empty = torch.zeros((0, 3), dtype=torch.int16)
        made.append(
            PreparedCase(id=f"i{index}", image=image, padding=torch.zeros(channels), labels=labels, foreground=empty)
        )
    return made


def run_pretraining(network, folder: Path, *, steps: int = 1, plan: Plan = PLAN, channels: int = 1):
    return list(
        pretrain(
            network,
            images(channels, plan.dimensions),
            plan,
            options=TrainingOptions(steps=steps, precision="float32", learning_rate=5e-3, ema_decay=0.9),
            augmentation=AugmentationConfig.none(),
            folder=folder,
            device=CPU,
        )
    )


def network_of(name: str = "unet", **options):
    return build_network(name, {"in_channels": 1, "num_classes": 3, "features_per_stage": [4, 6], **options})


def test_the_loss_counts_hidden_voxels_alone():
    nan = torch.nan
    target = torch.tensor([[[[1.0, nan, 3.0]]]])
    outputs = torch.tensor([[[[2.0, 99.0, 6.0]], [[50.0, 50.0, 50.0]]]], requires_grad=True)
    loss = ReconstructionLoss()(outputs, target)
    assert loss.item() == pytest.approx((1**2 + 3**2) / 2)
    loss.backward()
    assert outputs.grad.flatten().tolist() == pytest.approx([1, 0, 3, 0, 0, 0])
    nothing = ReconstructionLoss()(outputs, torch.full_like(target, nan))
    assert nothing.item() == 0


@pytest.mark.parametrize("size", [(16, 24, 17), (1, 64, 40), (5, 3, 4), (32, 32)])
@pytest.mark.parametrize("share", [0.25, 0.6])
def test_a_mask_hides_whole_blocks_in_the_share_asked_for(size, share):
    mask = draw_mask(size, torch.Generator().manual_seed(0), share=share)
    assert tuple(mask.shape) == size
    blocks = [max(1, min(8, extent // 2)) for extent in size]
    firsts = mask[tuple(slice(None, None, block) for block in blocks)]
    rebuilt = firsts
    for axis, block in enumerate(blocks):
        rebuilt = rebuilt.repeat_interleave(block, dim=axis).narrow(axis, 0, size[axis])
    assert torch.equal(rebuilt, mask)
    assert int(firsts.sum()) == round(share * firsts.numel())
    assert not torch.equal(mask, draw_mask(size, torch.Generator().manual_seed(1), share=share))


def test_what_is_hidden_cannot_be_seen_and_what_is_seen_is_not_asked_for():
    image = torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    image[1, 2] = torch.nan
    masks = torch.zeros(2, 6, 6, dtype=torch.bool)
    masks[0, :3], masks[1, :, 2:] = True, True
    shown, target = hide(image, masks)
    assert torch.equal(shown[0, :, 3:], image[0, :, 3:])
    assert torch.equal(target[0, :, :3], image[0, :, :3])
    assert target[0, :, 3:].isnan().all()
    for channel in range(3):
        assert torch.allclose(shown[0, channel, :3], image[0, channel, 3:].mean())
    # A missing channel stays missing, and nobody can fill it in.
    assert shown[1, 2].isnan().all()
    assert target[1, 2].isnan().all()
    changed = torch.where(masks[:, None], image + 7, image)
    assert torch.equal(hide(changed, masks)[0].nan_to_num(), shown.nan_to_num())


def test_a_network_learns_to_fill_in_what_follows_from_the_rest(tmp_path):
    events = run_pretraining(network_of(), tmp_path, steps=60)
    losses = [event["loss"] for event in events]
    assert np.mean(losses[-10:]) < 0.5 * np.mean(losses[:5])
    assert [event["pretraining_step"] for event in events] == list(range(1, 61))


@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize("name", PRETRAINABLE)
def test_every_network_but_its_heads_begins_as_it_was_pretrained(tmp_path, name, dimensions):
    channels = {"brain_tumour": 4, "sequence_fusion": 2}.get(name, 1)
    options = {
        "primus_unet": {"embedding": 24, "blocks": 1, "heads": 2},
        "shape_prior": {"prior_size": 8, "prior_latent": 4},
        "nodule_unet": {"stem_features": 2},
    }.get(name, {})
    network = network_of(name, in_channels=channels, dimensions=dimensions, deep_supervision=True, **options)
    plan = replace(
        PLAN,
        dimensions=dimensions,
        patch_size=(8, 8, 8) if dimensions == 3 else (1, 16, 16),
        normalization=PLAN.normalization * channels,
    )
    before = {entry: value.clone() for entry, value in network.state_dict().items()}
    run_pretraining(network, tmp_path, steps=2, plan=plan, channels=channels)
    learnt = load_file(tmp_path / CHECKPOINT_FILE)
    heads, after = heads_of(network), network.state_dict()
    assert heads
    for entry, value in after.items():
        expected = before[entry] if entry in heads else learnt[f"average.network.{entry}"]
        assert torch.equal(value, expected), entry
    trained = {entry for entry, weight in network.named_parameters() if weight.requires_grad} - heads
    # Some have no gradient in the first steps, such as those behind a sequence that was left out.
    assert sum(not torch.equal(after[entry], before[entry]) for entry in trained) > len(trained) / 2


@pytest.mark.parametrize("channels", [1, 2])
def test_precision_is_chosen_for_pretraining_too(tmp_path, monkeypatch, channels):
    ratios = []

    def time_it(_state, image, target, _loss):
        ratios.append((tuple(image.shape), tuple(target.shape)))
        return 2.0

    monkeypatch.setattr("UNetSegmentationLib.training._ratio", time_it)
    monkeypatch.setattr("UNetSegmentationLib.training.computes_in_bfloat16", lambda _device: True)
    plan = replace(PLAN, normalization=PLAN.normalization * channels)
    list(
        pretrain(
            network_of(in_channels=channels),
            images(channels),
            plan,
            options=TrainingOptions(steps=1),
            augmentation=AugmentationConfig.none(),
            folder=tmp_path,
            device=CPU,
        )
    )
    assert ratios == [((1, channels, 8, 8, 8),) * 2]


def test_heads_are_what_depends_on_the_number_of_classes():
    assert heads_of(network_of(deep_supervision=True)) == {"decoder.heads.0.weight", "decoder.heads.0.bias"}
    assert heads_of(network_of("unet_plus_plus", features_per_stage=[4, 6, 8], deep_supervision=True)) == {
        f"heads.{column}.{kind}" for column in (1, 2) for kind in ("weight", "bias")
    }


def test_nobody_who_is_held_back_is_found(dataset, tmp_path):
    held_back = [case for case in find_cases(dataset) if case.subject == "a"]
    found, left_out = find_unlabelled(dataset, dataset=dataset, channels=1, held_back=held_back)
    assert [case.id for case in found] == ["case1", "case2", "case5"]
    assert left_out == ["case0", "case3", "case4"]
    # Elsewhere: the same file under another name, the same name, and a subject that only the data set's manifest tells.
    other = tmp_path / "other"
    other.mkdir()
    (other / "alias.nii.gz").symlink_to(held_back[0].images[0])
    for name in ("case3", "case4", "new"):
        write_image(other / f"{name}.nii.gz", 9)
    found, left_out = find_unlabelled(other, dataset=dataset, channels=1, held_back=held_back)
    assert ([case.id for case in found], left_out) == (["new"], ["alias", "case3", "case4"])
    (other / "manifest.csv").write_text("case,subject\nnew,a\n")
    with pytest.raises(InputError, match="all 4 are of subjects that are held back"):
        find_unlabelled(other, dataset=dataset, channels=1, held_back=held_back)


def test_pretraining_reads_no_image_of_who_is_held_back_and_no_label(dataset, tmp_path, monkeypatch):
    drawn, read = [], []

    def spy(_network, cases, *_, **__):
        drawn.extend(case.id for case in cases)
        assert not any(case.labels.any() or len(case.foreground) for case in cases)
        yield from ()

    monkeypatch.setattr("UNetSegmentationLib.initialisation.pretrain", spy)
    genuine = prepare_unlabelled.__globals__["read_image"]
    monkeypatch.setattr("UNetSegmentationLib.unlabelled.read_image", lambda paths: read.extend(paths) or genuine(paths))
    list(run_training(job_of(dataset, tmp_path / "m")))
    held_back = read_description(tmp_path / "m").training["held_back_cases"]
    subjects = {case.id: case.subject for case in find_cases(dataset)} | {"case4": "a", "case5": "b"}
    assert drawn
    assert not {subjects[name] for name in drawn} & {subjects[name] for name in held_back}
    # What is prepared for the training is not read a second time.
    assert [path.name for path in read] == [f"{name}.nii.gz" for name in drawn if name in ("case4", "case5")]


def test_channels_belong_together_by_their_numbers(tmp_path):
    for name in ("a_0000", "a_0001", "b_0000", "b_0001"):
        write_image(tmp_path / "images" / f"{name}.nii.gz", 0)
    found, _ = find_unlabelled(tmp_path, dataset=tmp_path, channels=2, held_back=[])
    assert [(case.id, len(case.images)) for case in found] == [("a", 2), ("b", 2)]
    (tmp_path / "images" / "b_0001.nii.gz").unlink()
    with pytest.raises(InputError, match="image 'b_0000' in .* does not have the 2 channels"):
        find_unlabelled(tmp_path, dataset=tmp_path, channels=2, held_back=[])
    # Of single channels four digits are a number like any other, such as a year.
    (tmp_path / "years").mkdir()
    for name in ("a_2020", "a_2021", "b_0000"):
        write_image(tmp_path / "years" / f"{name}.nii.gz", 0)
    found, _ = find_unlabelled(tmp_path / "years", dataset=tmp_path, channels=1, held_back=[])
    assert [case.id for case in found] == ["a_2020", "a_2021", "b"]


def run_until(job: TrainingJob, *, kind: str, number: int, is_resumed: bool = False) -> None:
    seen: list[str] = []
    with pytest.raises(CancelledError):
        for event in run_training(job, is_resumed=is_resumed, is_cancelled=lambda: seen.count(kind) == number):
            seen.append(event["event"])


def test_resumed_in_either_phase_equals_uninterrupted(dataset, tmp_path):
    list(run_training(job_of(dataset, tmp_path / "whole")))
    job = job_of(dataset, tmp_path / "broken")
    run_until(job, kind="pretraining", number=2)
    assert phase_of(job.folder / CHECKPOINT_FILE) == "pretraining"
    run_until(job, kind="step", number=1, is_resumed=True)
    assert phase_of(job.folder / CHECKPOINT_FILE) == "training"
    rest = [event["event"] for event in run_training(job, is_resumed=True)]
    assert "pretraining" not in rest
    whole, broken = (load_file(tmp_path / name / "weights.safetensors") for name in ("whole", "broken"))
    assert all(torch.equal(value, broken[name]) for name, value in whole.items())
    init = [read_description(tmp_path / name).training["init"] for name in ("whole", "broken")]
    assert init[0] == init[1] == {"pretraining_steps": STEPS, "images": 3, "left_out": 3}
    plain = job_of(dataset, tmp_path / "plain", init="", pretraining_steps=None)
    list(run_training(plain))
    drawn = load_file(plain.folder / "weights.safetensors")
    assert not any(torch.equal(value, drawn[name]) for name, value in whole.items() if name.endswith("conv.weight"))


def test_a_checkpoint_that_is_damaged_is_named_whatever_its_phase(tmp_path):
    assert phase_of(tmp_path / "none") is None
    (tmp_path / "c").write_bytes(b"\x08\x00\x00\x00")
    with pytest.raises(InputError, match="is damaged"):
        phase_of(tmp_path / "c")


def test_repeated_steps_of_a_pretraining_count_once():
    def steps(first, last):
        return [{"event": "pretraining", "step": 0, "pretraining_step": step} for step in range(first, last + 1)]

    start = {"event": "start", "step": 0}
    assert follow_resumes([*steps(1, 5), *steps(3, 6), start]) == [*steps(1, 6), start]


def test_from_the_command_line_record_model_and_card_tell_of_it(dataset, tmp_path, capsys):
    model = tmp_path / "m"
    words = ["train", str(dataset), "-o", str(model), "--fold", "0/2", "--steps", "1", "--device", "cpu"]
    options = ["--init", "pretrained", "--pretraining-steps", "10", "--network-option", "features_per_stage=[4,6]"]
    assert main([*words, *options]) == 0
    assert "Pretraining on 3 images without their labels (3 of subjects that are held back" in capsys.readouterr().out
    record = TrainingRecord.read(model / "training.jsonl")
    assert [event["event"] for event in record[:3]] == ["pretraining", "initialised", "start"]
    assert "learnt in 10 steps to fill in hidden parts of 3 images" in (model / "CARD.md").read_text()


def test_another_models_weights_begin_a_training_but_for_the_heads(dataset, tmp_path):
    first = job_of(dataset, tmp_path / "first", init="", pretraining_steps=None)
    list(run_training(first))
    second = replace(first, folder=tmp_path / "second", init=str(first.folder))
    events = list(run_training(replace(second, options=replace(first.options, steps=1, learning_rate=1e-12))))
    parent, child = (load_weights(folder / "weights.safetensors") for folder in (first.folder, second.folder))
    for name, value in parent.items():
        if value.is_floating_point() and "running" not in name:
            is_head = name.startswith("decoder.heads")
            assert torch.allclose(value, child[name], atol=1e-3) != is_head or name.endswith("bias"), name
    steps = first.options.steps
    assert {"event": "initialised", "step": 0, "model": "first", "earlier_steps": steps} in events
    assert total_steps(read_description(second.folder).training) == steps + 1
    assert read_description(second.folder).parent == "first"
    assert f"Began with the weights of `first`, after {steps} steps" in (second.folder / "CARD.md").read_text()


def test_weights_that_cannot_begin_a_training_are_refused(dataset, tmp_path, tiny_model):
    tiny = tiny_model()
    with pytest.raises(InputError, match="model 'tiny' is a unet, this training a vnet: give --variant unet"):
        begin_with_model(network_of("vnet"), str(tiny))
    with pytest.raises(InputError, match=r"do not fit this network \(at encoder.*train with the plan"):
        begin_with_model(network_of(features_per_stage=[6, 8]), str(tiny))
    with pytest.raises(InputError, match="do not fit"):
        carry_over(network_of(), {})
    description = read_description(tiny)
    (tiny / "weights.safetensors").rename(tiny / "one.safetensors")
    networks = [build_network("unet", description.network_config) for _ in range(2)]
    save_weights(tiny / "weights.safetensors", Ensemble(networks))
    write_description(tiny, replace(description, members=2, weights_sha256=""))
    with pytest.raises(InputError, match="'tiny' has 2 members: begin with a model of one"):
        begin_with_model(network_of(), str(tiny))
    with pytest.raises(InputError, match="there is no model 'nothing'"):
        list(run_training(job_of(dataset, tmp_path / "m", init="nothing", pretraining_steps=None)))


def test_what_cannot_be_pretrained_is_refused(dataset, tmp_path):
    with pytest.raises(InputError, match="HUPriorNetwork takes channels as they are stored.*choose another network"):
        build_reconstructing(network_of("hu_prior"), seed=0)
    with pytest.raises(InputError, match="pretraining_steps is 0: give at least 1"):
        job_of(dataset, tmp_path / "m", pretraining_steps=0)
    for changes in ({"pretraining_images": tmp_path, "pretraining_steps": None}, {}):
        with pytest.raises(InputError, match="add --init pretrained"):
            job_of(dataset, tmp_path / "m", init="", **changes)
    with pytest.raises(InputError, match="there is no folder .*nowhere to pretrain on"):
        find_unlabelled(tmp_path / "nowhere", dataset=dataset, channels=1, held_back=[])
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"no image to pretrain on \(it holds none\)"):
        find_unlabelled(tmp_path / "empty", dataset=dataset, channels=1, held_back=[])
