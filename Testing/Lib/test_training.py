"""Training learns, can be stopped and resumed without a trace, and draws the same patches again."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from Testing.Lib.conftest import events_of
from UNetSegmentationLib.augmentation import AugmentationConfig
from UNetSegmentationLib.core.errors import CancelledError, InputError
from UNetSegmentationLib.core.task import Task
from UNetSegmentationLib.networks import NETWORKS, build_network
from UNetSegmentationLib.planning.plan import Normalization, Plan
from UNetSegmentationLib.training import loop
from UNetSegmentationLib.training.checkpoint import CHECKPOINT_FILE
from UNetSegmentationLib.training.loop import train
from UNetSegmentationLib.training.options import TrainingOptions
from UNetSegmentationLib.training.patches import PatchSource, crop_or_pad
from UNetSegmentationLib.training.prepared_case import PreparedCase
from UNetSegmentationLib.training.setup import augmentation_for

PLAN = Plan(
    dimensions=3,
    spacing_mm=(1.0, 1.0, 1.0),
    patch_size=(8, 8, 8),
    batch_size=2,
    orientation="RAS",
    normalization=(Normalization(scheme="zscore"),),
)
CPU = torch.device("cpu")


def network(**options):
    torch.manual_seed(0)
    return build_network("unet", {"in_channels": 1, "num_classes": 2, "features_per_stage": [4, 8], **options})


def cases(number=3, shape=(10, 11, 12)):
    made = []
    for index in range(number):
        generator = torch.Generator().manual_seed(index)
        labels = torch.zeros(shape, dtype=torch.int16)
        first = torch.randint(1, 5, (3,), generator=generator).tolist()
        labels[tuple(slice(start, start + 5) for start in first)] = 1
        image = labels.float()[None] * 2 + torch.randn(1, *shape, generator=generator) * 0.3
        made.append(
            PreparedCase(
                id=f"c{index}", image=image, padding=torch.zeros(1), labels=labels, foreground=labels.nonzero().short()
            )
        )
    return made


def run(folder, *, steps=6, net=None, stop_at=None, augmentation=None, precision="float32", **options):
    net = net or network()
    seen = []

    def is_cancelled():
        return seen[-1]["event"] == "step" and seen[-1]["step"] == stop_at

    try:
        end = train(
            net,
            cases(),
            cases(1),
            PLAN,
            options=TrainingOptions(steps=steps, precision=precision, validate_every=0, **options),
            augmentation=augmentation or AugmentationConfig(),
            folder=folder,
            device=CPU,
            task=Task(seen.append, is_cancelled),
        )
        assert end == (seen[-1]["step"], seen[-1]["elapsed_s"])
    except CancelledError:
        seen.append({"event": "cancelled"})
    return net, seen


def test_a_network_learns_a_bright_cube(tmp_path):
    _, events = run(tmp_path, steps=80, augmentation=AugmentationConfig.none(), learning_rate=1e-2, ema_decay=0.9)
    assert events[-2]["labels"]["1"]["dice"] > 0.9
    assert events[-2]["labels"]["1"]["hd95_mm"] <= 1
    losses = [event["loss"] for event in events if event["event"] == "step"]
    assert np.mean(losses[-5:]) < 0.5 * np.mean(losses[:5])


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_resumed_equals_uninterrupted(tmp_path, dropout):
    whole, _ = run(tmp_path / "whole", net=network(dropout=dropout))
    _, first = run(tmp_path / "parts", net=network(dropout=dropout), stop_at=3)
    assert first[-1]["event"] == "cancelled"
    resumed, rest = run(tmp_path / "parts", net=network(dropout=dropout))
    assert rest[0]["is_resumed"]
    assert [event["step"] for event in rest if event["event"] == "step"] == [4, 5, 6]
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


@pytest.mark.parametrize("error", [KeyError("full"), CancelledError("enough")])
def test_an_observer_that_raises_ends_the_training(tmp_path, monkeypatch, error):
    closed = []
    monkeypatch.setattr(PatchSource, "close", lambda _source: closed.append(True))

    def refuse(event):
        if event["event"] == "step" and event["step"] == 2:
            raise error

    with pytest.raises(type(error)):
        train(
            network(),
            cases(),
            [],
            PLAN,
            options=TrainingOptions(steps=4, precision="float32"),
            augmentation=AugmentationConfig(),
            folder=tmp_path,
            device=CPU,
            task=Task(refuse),
        )
    assert closed == [True]
    # What asks for an end gets a checkpoint; what fails does not.
    assert (tmp_path / CHECKPOINT_FILE).exists() == isinstance(error, CancelledError)


def test_the_same_seed_trains_the_same_network_and_another_seed_another(tmp_path):
    first, second, third = (run(tmp_path / str(index), seed=seed)[0] for index, seed in enumerate((7, 7, 8)))
    weights = [net.state_dict()["decoder.heads.0.weight"] for net in (first, second, third)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def double_network(name="unet", **options):
    shape = {"in_channels": 1, "num_classes": 2, "features_per_stage": [4, 6], **options}
    torch.manual_seed(0)
    made = build_network(name, shape).double()
    made.register_forward_pre_hook(lambda _module, inputs: (inputs[0].double(),))
    return made


def losses_and_batches(folder, net, made, **options):
    """Train and return the losses, and how many images the network was given at a time."""
    batches = []
    net.register_forward_pre_hook(lambda _module, inputs: batches.append(len(inputs[0])))
    plan = replace(PLAN, batch_size=3)
    settings = TrainingOptions(steps=4, precision="float32", validate_every=0, learning_rate=1e-2, **options)
    events = events_of(
        train, net, made, [], plan, options=settings, augmentation=AugmentationConfig(), folder=folder, device=CPU
    )
    return [event["loss"] for event in events if event["event"] == "step"], batches


@pytest.mark.parametrize("name", sorted(set(NETWORKS) - {"shape_prior"}))
def test_a_batch_that_is_learnt_in_parts_gives_the_same_step(tmp_path, monkeypatch, name):
    channels = {"brain_tumour": 4, "sequence_fusion": 2}.get(name, 1)
    options = {
        "primus_unet": {"embedding": 24, "blocks": 1, "heads": 2},
        "nodule_unet": {"stem_features": 2},
        "sequence_fusion": {"sequence_dropout": 0.0},
        "merging_attention_unet": {"norm": "instance"},
    }.get(name, {})
    made = [replace(case, image=case.image.expand(channels, -1, -1, -1).clone()) for case in cases()]
    made = [replace(case, padding=torch.zeros(channels)) for case in made]
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    found = []
    for voxels in (3 * 512, 2 * 512, 512):
        monkeypatch.setattr(loop, "_VOXELS_PER_THREAD", voxels)
        net = double_network(name, in_channels=channels, deep_supervision=True, **options)
        found.append(losses_and_batches(tmp_path / str(voxels), net, made))
    assert [set(batches) for _, batches in found] == [{3}, {2, 1}, {1}]
    (whole, _), *others = found
    for parts, _ in others:
        assert parts == pytest.approx(whole, rel=1e-9)


@pytest.mark.parametrize(
    ("network_options", "options", "label"),
    [
        ({"norm": "batch"}, {}, 0),
        ({}, {"loss_options": {"is_batch_wise": True}}, 0),
        ({}, {}, -1),
    ],
    ids=["batch norm", "overlap over the batch", "ignored voxels"],
)
def test_what_concerns_a_whole_batch_is_learnt_whole(tmp_path, monkeypatch, network_options, options, label):
    monkeypatch.setattr(loop, "_VOXELS_PER_THREAD", 1)
    made = cases()
    for case in made:
        case.labels[:, :3] = label
    _, batches = losses_and_batches(tmp_path, double_network(**network_options), made, **options)
    assert 3 in batches


def test_a_time_budget_ends_the_training_and_the_rate_falls_with_it(tmp_path):
    _, events = run(tmp_path, steps=100_000, minutes=2 / 60)
    steps = [event for event in events if event["event"] == "step"]
    assert events[-1]["event"] == "end"
    assert 1.5 < events[-1]["elapsed_s"] < 6
    assert steps[-1]["learning_rate"] < 0.2 * steps[0]["learning_rate"]


def test_a_damaged_or_foreign_checkpoint_is_refused(tmp_path):
    run(tmp_path, stop_at=2)
    with pytest.raises(InputError, match="damaged or belongs to another network"):
        run(tmp_path, net=network(features_per_stage=[4, 8, 16]))
    (tmp_path / CHECKPOINT_FILE).write_bytes(b"\x08\x00\x00\x00")
    with pytest.raises(InputError, match="damaged or belongs to another network"):
        run(tmp_path)


def test_without_a_labelled_voxel_there_is_nothing_to_learn(tmp_path):
    empty = [
        PreparedCase(
            id="e",
            image=torch.zeros(1, 8, 8, 8),
            padding=torch.zeros(1),
            labels=torch.zeros(8, 8, 8),
            foreground=torch.zeros(0, 3),
        )
    ]
    with pytest.raises(InputError, match="no training case contains a labelled voxel"):
        train(
            network(),
            empty,
            [],
            PLAN,
            options=TrainingOptions(),
            augmentation=AugmentationConfig(),
            folder=tmp_path,
            device=CPU,
        )


@pytest.mark.parametrize(
    ("can", "ratio", "expected"), [(False, 0.5, "float32"), (True, 0.5, "bfloat16"), (True, 1.5, "float32")]
)
def test_bfloat16_is_taken_where_there_are_instructions_for_it_and_it_is_faster(
    tmp_path, monkeypatch, can, ratio, expected
):
    measured = []
    monkeypatch.setattr(loop, "computes_in_bfloat16", lambda _device: can)
    monkeypatch.setattr(loop, "_ratio", lambda *_: measured.append(1) or ratio)
    _, events = run(tmp_path, steps=1, precision="auto")
    assert events[0]["precision"] == expected
    assert len(measured) == can, "nothing is measured where it would be emulated"


def test_a_loss_that_is_not_finite_ends_the_training_and_leaves_the_checkpoint(tmp_path):
    run(tmp_path, steps=2)
    before = (tmp_path / CHECKPOINT_FILE).read_bytes()
    broken = network()
    with pytest.raises(InputError, match="the loss of step 3 is nan: check the images"):
        train(
            broken,
            [replace(case, image=case.image * float("nan")) for case in cases()],
            [],
            PLAN,
            options=TrainingOptions(steps=4, precision="float32"),
            augmentation=AugmentationConfig.none(),
            folder=tmp_path,
            device=CPU,
        )
    assert (tmp_path / CHECKPOINT_FILE).read_bytes() == before
    assert all(value.isfinite().all() for value in broken.state_dict().values())


def test_patches_hold_the_foreground_as_often_as_asked():
    big = cases(1, shape=(40, 40, 40))
    for share, low, high in ((0.0, 0.0, 0.3), (1.0, 1.0, 1.0)):
        source = PatchSource(big, PLAN, TrainingOptions(foreground_share=share), AugmentationConfig.none())
        hits = [bool((labels > 0).any()) for step in range(20) for labels in source.batch(step)[1]]
        source.close()
        assert low <= np.mean(hits) <= high


def test_a_2d_plan_gives_2d_batches():
    flat = [
        PreparedCase(
            id="f",
            image=torch.randn(1, 1, 20, 20),
            padding=torch.zeros(1),
            labels=torch.zeros(1, 20, 20, dtype=torch.int16),
            foreground=torch.zeros(0, 3),
        )
    ]
    plan = Plan(
        dimensions=2,
        spacing_mm=(0.0, 0.0, 0.0),
        patch_size=(1, 16, 12),
        batch_size=3,
        orientation="stored",
        normalization=(Normalization(scheme="percentile"),),
    )
    source = PatchSource(flat, plan, TrainingOptions(), AugmentationConfig(mirror_axes=(2,)))
    image, labels = source.batch(0)
    source.close()
    assert image.shape == (3, 1, 16, 12)
    assert labels.shape == (3, 16, 12)


def test_a_window_beyond_the_border_is_filled_with_zeros():
    array = torch.arange(27).reshape(1, 3, 3, 3) + 1
    window = crop_or_pad(array, (-1, 1, 2), (3, 2, 4))
    assert window[0, 0].eq(0).all()
    assert window[0, 1:, :, 0].tolist() == array[0, :2, 1:3, 2].tolist()
    assert window[0, :, :, 1:].eq(0).all()
    assert crop_or_pad(array, (9, 9, 9), (2, 2, 2)).eq(0).all()
    assert crop_or_pad(array, (9, 9, 9), (2, 2, 2), padding=torch.tensor([-1000])).eq(-1000).all()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"steps": 0}, "steps is 0"),
        ({"minutes": 0.0}, "minutes is 0"),
        ({"learning_rate": 0.0}, "learning_rate"),
        ({"foreground_share": 2.0}, "foreground_share"),
        ({"ema_decay": 1.0}, "ema_decay"),
        ({"precision": "int4"}, "precision is 'int4'"),
    ],
)
def test_impossible_options_are_refused(options, words):
    with pytest.raises(InputError, match=words):
        TrainingOptions(**options)


def test_channels_left_as_stored_keep_their_values_in_augmentation():
    schemes = (Normalization(scheme="none"), Normalization(scheme="zscore"), Normalization(scheme="none"))
    plan = replace(PLAN, normalization=schemes)
    assert augmentation_for(plan, []).raw_channels == (0, 2)
    assert augmentation_for(PLAN, []).raw_channels == ()
