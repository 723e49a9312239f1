"""Every network and every loss from a data set on disk to a model that segments, in 2D and 3D."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from Testing.Lib.conftest import events_of
from UNetSegmentationLib.cli import main
from UNetSegmentationLib.core.errors import CancelledError, InputError
from UNetSegmentationLib.core.task import Task
from UNetSegmentationLib.image.geometry import Volume
from UNetSegmentationLib.image.volume_io import read_labelmap, read_volume, write_labelmap, write_volume
from UNetSegmentationLib.inference.predictor import Predictor
from UNetSegmentationLib.losses import LOSSES
from UNetSegmentationLib.models.description import read_description
from UNetSegmentationLib.networks import NETWORKS
from UNetSegmentationLib.networks.parts.planned_config import planned_config
from UNetSegmentationLib.planning.plan import Normalization, Plan
from UNetSegmentationLib.training.job import TrainingJob
from UNetSegmentationLib.training.options import TrainingOptions
from UNetSegmentationLib.training.run import run_training

# Odd sizes; the patch is of about the median size, so that the smallest do not fill it.
SHAPES = {2: ((1, 21, 18), (1, 17, 15), (1, 24, 19)), 3: ((11, 13, 9), (9, 10, 7), (13, 12, 11))}
OTHERS = {2: (1, 33, 27), 3: (19, 8, 15)}
CHANNELS = {"brain_tumour": 4, "sequence_fusion": 3, "unet": 2}
# As small as they can be: this is about the way, not about the figures.
OPTIONS = {
    "primus_unet": {"embedding": 24, "blocks": 1, "heads": 2},
    "shape_prior": {"prior_size": 8, "prior_latent": 4, "prior_steps": 3},
    "nodule_unet": {"stem_features": 2},
}
PLAN_2D = {
    "dimensions": 2,
    "spacing_mm": (0.0, 0.0, 0.0),
    "patch_size": (1, 128, 128),
    "batch_size": 1,
    "orientation": "stored",
    "normalization": (Normalization(scheme="zscore"),),
}
STEPS = partial(TrainingOptions, precision="float32", validate_every=0)


pytestmark = pytest.mark.usefixtures("one_thread")


def write_data_set(folder: Path, *, dimensions: int, channels: int = 1, labels: int = 2) -> Path:
    """Write noise with a box of each label in it."""
    (folder / "imagesTr").mkdir(parents=True)
    (folder / "labelsTr").mkdir()
    for case, shape in enumerate(SHAPES[dimensions]):
        image, labelmap = draw(shape, channels=channels, labels=labels, seed=case)
        for number, channel in enumerate(image):
            write_volume(folder / "imagesTr" / f"c{case}_{number:04d}.nii.gz", Volume(channel[None], np.eye(4)))
        write_labelmap(folder / "labelsTr" / f"c{case}.nii.gz", labelmap, affine_ras=np.eye(4))
    return folder


def draw(shape: tuple[int, ...], *, channels: int, labels: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labelmap = np.zeros(shape, dtype=np.uint8)
    edges = np.linspace(1, shape[2] - 1, labels + 1).astype(int)
    for value, (first, last) in enumerate(pairwise(edges), start=1):
        labelmap[:, 3:-3, first:last] = value
    return rng.normal(0, 20, (channels, *shape)).astype(np.float32) + 100 * labelmap, labelmap


def job_of(dataset: Path, folder: Path, network: str, *, steps: int = 2, **options: object) -> TrainingJob:
    return TrainingJob(
        dataset=dataset,
        folder=folder,
        network=network,
        preset="ct" if network == "hu_prior" else "mri",
        fold=(0, 3),
        device="cpu",
        options=STEPS(steps=steps, **options),
        network_options={"features_per_stage": [4, 6], **OPTIONS.get(network, {})},
    )


@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_is_trained_saved_and_segments_images_of_another_size(tmp_path, name, dimensions):
    channels = CHANNELS.get(name, 1)
    labels = 3 if name == "brain_tumour" else 2
    dataset = write_data_set(tmp_path / "data", dimensions=dimensions, channels=channels, labels=labels)
    events = events_of(run_training, job_of(dataset, tmp_path / "m", name))
    losses = [event["loss"] for event in events if event["event"] == "step"]
    assert len(losses) == 2
    assert np.isfinite(losses).all()
    description = read_description(tmp_path / "m")
    assert (description.network, description.plan.dimensions) == (name, dimensions)
    assert len(description.channels) == channels

    predictor = Predictor(tmp_path / "m", device="cpu")
    for shape in (OTHERS[dimensions], SHAPES[dimensions][1]):
        image, _ = draw(shape, channels=channels, labels=labels, seed=9)
        found = predictor.segment(Volume(image, np.eye(4)), with_probabilities=True)
        assert found.labelmap.shape == shape
        assert found.probabilities.shape == (labels + 1, *shape)
        assert np.isfinite(found.probabilities).all()
        assert np.allclose(found.probabilities.astype(np.float32).sum(axis=0), 1, atol=5e-3)
    assert [channel.is_optional for channel in description.channels] == (
        [predictor.network.accepts_missing_channels] * channels
    )


@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize("name", ["shape_prior", "sequence_fusion"])
def test_networks_with_a_state_or_dropout_of_their_own_resume_as_if_uninterrupted(tmp_path, name, dimensions):
    dataset = write_data_set(tmp_path / "data", dimensions=dimensions, channels=CHANNELS.get(name, 1))
    run_training(job_of(dataset, tmp_path / "whole", name, steps=4))
    broken = job_of(dataset, tmp_path / "broken", name, steps=4)
    steps = []

    def look(event):
        steps.extend([event["step"]] if event["event"] == "step" else [])

    with pytest.raises(CancelledError):
        run_training(broken, task=Task(look, lambda: len(steps) == 2))
    rest = events_of(run_training, broken, is_resumed=True)
    assert [event["step"] for event in rest if event["event"] == "step"] == [3, 4]
    whole, resumed = (load_file(tmp_path / folder / "weights.safetensors") for folder in ("whole", "broken"))
    assert whole.keys() == resumed.keys()
    for entry, value in whole.items():
        assert np.array_equal(value, resumed[entry]), entry


def test_the_prior_can_be_cancelled_while_it_learns_and_says_what_it_does(tmp_path):
    dataset = write_data_set(tmp_path / "data", dimensions=2)
    job = job_of(dataset, tmp_path / "m", "shape_prior")
    job = replace(job, network_options={**job.network_options, "prior_steps": 1_000_000})
    asked, stages, learning_message = iter(range(100)), [], "Learning the shapes of the labels"
    with pytest.raises(CancelledError, match="shape prior"):
        run_training(
            job,
            task=Task(
                lambda event: stages.append(event.get("message")),
                lambda: stages[-1] == learning_message and next(asked) == 2,
            ),
        )
    assert stages[-1] == learning_message


@pytest.fixture(scope="module")
def data_sets(tmp_path_factory) -> dict[int, Path]:
    folder = tmp_path_factory.mktemp("data")
    return {dimensions: write_data_set(folder / str(dimensions), dimensions=dimensions) for dimensions in (2, 3)}


@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_trains(tmp_path, data_sets, name, dimensions):
    events = events_of(run_training, job_of(data_sets[dimensions], tmp_path / "m", "nnunet_plain", loss=name))
    losses = [event["loss"] for event in events if event["event"] == "step"]
    assert np.isfinite(losses).all()
    weights = load_file(tmp_path / "m" / "weights.safetensors")
    assert all(np.isfinite(value).all() for value in weights.values())
    assert read_description(tmp_path / "m").training["options"]["loss"] == name


def test_a_loss_has_its_options_and_another_loss_trains_another_network(tmp_path, data_sets):
    terms = [{"loss": "dice"}, {"loss": "boundary", "weight": 0.5, "options": {"spacing_mm": [3, 1, 1]}}]
    folders = {}
    for name, options in (("plain", {}), ("summed", {"terms": terms}), ("again", {"terms": terms})):
        folders[name] = tmp_path / name
        run_training(job_of(data_sets[3], folders[name], "unet", loss="weighted_sum", loss_options=options))
    plain, summed, again = (load_file(folders[name] / "weights.safetensors") for name in folders)
    assert not all(np.array_equal(plain[entry], summed[entry]) for entry in plain)
    assert all(np.array_equal(again[entry], summed[entry]) for entry in summed)


def run(*words: object) -> int:
    return main([str(word) for word in words])


def test_the_command_line_chooses_network_and_loss_with_their_options(tmp_path, data_sets, capsys):
    model = tmp_path / "m"
    words = ("train", data_sets[3], "-o", model, "--steps", 2, "--fold", "0/3", "--device", "cpu")
    words += ("--variant", "attention_unet", "--network-option", "features_per_stage=[4,6]")
    words += ("--network-option", "norm=batch", "--network-option", "dropout=0.25", "--network-option", "residual=true")
    words += ("--loss", "tversky", "--loss-option", "class_weights=[1,2,2]")
    assert run(*words) == 0, capsys.readouterr().err
    description = read_description(model)
    config = description.network_config
    assert description.network == "attention_unet"
    assert (config["norm"], config["dropout"], config["residual"]) == ("batch", 0.25, True)
    assert description.training["options"]["loss"] == "tversky"
    assert description.training["options"]["loss_options"] == {"class_weights": [1, 2, 2]}
    capsys.readouterr()
    assert run("features", "--model", model, "--list", "--json") == 0
    assert [entry["name"] for entry in json.loads(capsys.readouterr().out)["maps"]] == ["skip 0", "gate 0"]


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("--variant", "wnet"), "invalid choice: 'wnet'"),
        (("--loss", "luck"), "invalid choice: 'luck'"),
        (("--preset", "pet"), "invalid choice: 'pet'"),
        (("--network-option", "dropout"), "'dropout' is not a valid option: give KEY=VALUE"),
        (("--network-option", "dropout=0,2"), "'0,2' is not a JSON value for dropout"),
        (("--network-option", "dropout=NaN"), "'NaN' is not a JSON value for dropout"),
        (("--network-option", "residual=yes"), "residual is 'yes': give true or false"),
        (("--network-option", "features_per_stage=8"), "features_per_stage is 8: give a list of whole numbers"),
        (
            ("--network-option", "features_per_stage=[8,1.5]"),
            "is [8, 1.5]: give a list of whole numbers",
        ),
        (("--network-option", "convs_per_stage=true"), "convs_per_stage is True: give a whole number"),
        (("--network-option", "depth=4"), "has no field depth: choose from"),
        (("--loss-option", "power=4"), "has no field power: choose from"),
    ],
)
def test_wrong_options_are_told_in_one_line(tmp_path, data_sets, capsys, words, text):
    assert run("train", data_sets[3], "-o", tmp_path / "m", "--fold", "0/3", *words) == 2
    error = capsys.readouterr().err
    assert text in error
    assert error.count("\n") == 1
    assert not (tmp_path / "m").exists()


def test_what_is_misspelt_is_told_before_the_data_set_is_read(tmp_path):
    for fields in ({"network": "wnet"}, {"preset": "pet"}, {"options": TrainingOptions(loss="luck")}):
        with pytest.raises(InputError, match="unknown (network|preset|loss)"):
            TrainingJob(dataset=tmp_path / "gone", folder=tmp_path / "m", **fields)


def test_help_lists_every_network_loss_and_step(capsys):
    from UNetSegmentationLib.postprocess import STEPS as LATE
    from UNetSegmentationLib.postprocess.probabilities import PROBABILITY_STEPS

    for command, names in (("train", [*NETWORKS, *LOSSES]), ("segment", [*LATE, *PROBABILITY_STEPS])):
        with pytest.raises(SystemExit):
            run(command, "--help")
        text = capsys.readouterr().out
        for name in names:
            (line,) = [line for line in text.splitlines() if line.split()[:1] == [name]]
            assert len(line.split()) > 1, f"{name} has no line of its own"


def test_the_transformers_tokens_stay_small_under_a_deep_plan(tmp_path):
    dataset = write_data_set(tmp_path / "data", dimensions=2)
    (tmp_path / "plan.json").write_text(json.dumps(Plan(**PLAN_2D).to_dict()))
    for name, stages in (("unet", 6), ("primus_unet", 4)):
        job = job_of(dataset, tmp_path / name, name, steps=1)
        network = {**OPTIONS.get(name, {}), "convs_per_stage": 1}
        run_training(replace(job, plan=tmp_path / "plan.json", network_options=network))
        assert len(read_description(tmp_path / name).network_config["features_per_stage"]) == stages


def test_v_net_keeps_the_kernels_of_its_paper_where_slices_are_thin():
    thick = Plan(**{**PLAN_2D, "dimensions": 3, "spacing_mm": (5.0, 1.0, 1.0), "patch_size": (16, 64, 64)})
    unet, vnet = (planned_config(name, thick, channels=1, num_classes=2)["kernel_sizes"] for name in ("unet", "vnet"))
    assert unet[0] == [1, 3, 3]
    assert vnet == [[5 if size == 3 else 1 for size in sizes] for sizes in unet]


def test_the_curve_grows_while_the_network_learns(tmp_path, data_sets, monkeypatch):
    pytest.importorskip("matplotlib")
    from UNetSegmentationLib.training import curve

    drawn = []

    def note(record, _picture, *, label_names):
        drawn.append((len(Path(record).read_text().splitlines()), dict(label_names)))

    monkeypatch.setattr(curve, "draw_curve", note)
    monkeypatch.setattr(curve, "monotonic", iter(range(0, 10_000, 100)).__next__)
    words = ("train", data_sets[2], "-o", tmp_path / "m", "--steps", 30, "--fold", "0/3", "--device", "cpu")
    assert run(*words, "--network-option", "features_per_stage=[4,6]") == 0
    # A start, three tenth steps and the validation.
    assert [lines for lines, _ in drawn] == [2, 3, 4, 5]
    assert drawn[0][1] == {1: "Label 1", 2: "Label 2"}


def test_what_is_segmented_on_the_command_line_is_what_was_trained(tmp_path, data_sets):
    run_training(job_of(data_sets[2], tmp_path / "m", "vnet"))
    image = data_sets[2] / "imagesTr" / "c1_0000.nii.gz"
    assert run("segment", image, "-o", tmp_path / "o.seg.nrrd", "--model", tmp_path / "m", "--device", "cpu") == 0
    expected = Predictor(tmp_path / "m", device="cpu").segment(read_volume(image)).labelmap
    assert np.array_equal(read_labelmap(tmp_path / "o.seg.nrrd").array[0], expected)
