"""MONAI bundles come in and give what MONAI itself gives."""

import json
import os
import shutil
import sys
import warnings
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from monai.data import MetaTensor
from monai.data.utils import compute_importance_map, dense_patch_slices
from monai.networks import nets
from monai.transforms import CropForeground as MonaiCropForeground
from monai.transforms import Orientation, Spacing

from UNetSegmentationLib import monai_conventions
from UNetSegmentationLib.cli import main
from UNetSegmentationLib.errors import InputError
from UNetSegmentationLib.feature_view import view_features
from UNetSegmentationLib.geometry import Volume, order_for, reorder
from UNetSegmentationLib.importers import ImportOptions, import_model
from UNetSegmentationLib.importers.monai_networks import network_of
from UNetSegmentationLib.importers.monai_references import BundleConfiguration, Code
from UNetSegmentationLib.importers.monai_transforms import preparation_of
from UNetSegmentationLib.importers.monai_weights import select_outputs
from UNetSegmentationLib.model_folder import read_description
from UNetSegmentationLib.monai_conventions import (
    SteppedGrid,
    foreground_box,
    grid_for,
    linear_at,
    linear_in_double_precision,
    nearest_at,
    scale,
    spacing_for,
)
from UNetSegmentationLib.monai_recipe import CropForeground, MonaiRecipe, Resample, ScaleRange, Tiling
from UNetSegmentationLib.networks import build_network
from UNetSegmentationLib.planning import Normalization, Plan
from UNetSegmentationLib.prediction import Predictor
from UNetSegmentationLib.preprocessing import prepare

FIXTURES = Path(__file__).parents[1] / "Fixtures" / "monai"
NAMES = sorted(path.name for path in FIXTURES.iterdir())
AGREEMENT = 0.9999


def case_in(name: str) -> tuple[Volume, np.ndarray]:
    with np.load(FIXTURES / name / "images.npz") as arrays:
        return Volume(arrays["image"], arrays["affine_ras"]), arrays["labels"]


@pytest.mark.parametrize("name", NAMES)
def test_labels_equal_those_of_monai(name: str, tmp_path: Path) -> None:
    import_model(FIXTURES / name, tmp_path / "model")
    volume, expected = case_in(name)
    labelmap = Predictor(tmp_path / "model", device="cpu").segment(volume).labelmap
    assert labelmap.shape == expected.shape
    assert np.mean(labelmap == expected) >= AGREEMENT
    assert len(np.unique(expected)) > 1


# Networks: theirs, ours and the same weights give the same logits.
GROUPS = ["group", {"num_groups": 8}]
SLOPE = ["leakyrelu", {"negative_slope": 0.2}]
SMALL = {"spatial_dims": 3, "in_channels": 2, "out_channels": 3}
FLAT = {**SMALL, "spatial_dims": 2}
NARROW = {"channels": [4, 6, 8], "strides": [2, 2]}
EIGHTS = {"channels": [8, 16, 24], "strides": [2, [1, 2, 2]]}
DYNAMIC = {
    "kernel_size": [[1, 3, 3], [1, 3, 3], 3],
    "strides": [1, [1, 2, 2], 2],
    "upsample_kernel_size": [[1, 2, 2], 2],
    "filters": [4, 8, 16],
}
NETWORK_CASES = [
    ("UNet", {**SMALL, **NARROW}),
    ("UNet", {**SMALL, **NARROW, "num_res_units": 1, "norm": "batch", "dropout": 0.2}),
    ("UNet", {**SMALL, **NARROW, "num_res_units": 3, "norm": ["instance", {"affine": True}], "act": SLOPE}),
    ("UNet", {**SMALL, **EIGHTS, "out_channels": 8, "num_res_units": 2, "norm": GROUPS}),
    ("UNet", {**SMALL, **EIGHTS, "norm": GROUPS, "bias": False, "act": "relu"}),
    ("UNet", {**FLAT, **NARROW, "num_res_units": 2, "kernel_size": 5, "up_kernel_size": 5, "adn_ordering": "NA"}),
    ("UNet", {**SMALL, **NARROW, "num_res_units": 2, "norm": None, "act": ["elu", {"alpha": 1.0}]}),
    ("SegResNet", {**SMALL, "init_filters": 8, "blocks_down": [1, 2], "blocks_up": [2], "dropout_prob": 0.2}),
    ("SegResNet", {**SMALL, "init_filters": 8, "blocks_down": [1, 1], "blocks_up": [1], "upsample_mode": "deconv"}),
    ("SegResNet", {**FLAT, "norm": "batch", "act": "PRELU"}),
    ("BasicUNet", {**SMALL, "features": [4, 4, 8, 16, 32, 4], "bias": False}),
    ("BasicUNet", {**FLAT, "features": [8, 8, 16, 32, 64, 8], "norm": GROUPS, "act": "relu"}),
    ("BasicUNetPlusPlus", {**SMALL, "features": [2, 2, 4, 8, 16, 2], "norm": "batch"}),
    ("DynUNet", {**SMALL, **DYNAMIC, "deep_supervision": True}),
    ("DynUNet", {**SMALL, **DYNAMIC, "norm_name": "batch", "trans_bias": True, "act_name": "relu"}),
    ("AttentionUnet", {**SMALL, **NARROW}),
    ("AttentionUnet", {**FLAT, "channels": [4, 8], "strides": [2], "up_kernel_size": 5}),
    ("VNet", {**FLAT, "act": "prelu", "bias": True}),
]


def shaken(network: torch.nn.Module) -> torch.nn.Module:
    """Move weights and running statistics off the values that they start with."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, value in network.state_dict().items():
            if value.is_floating_point():
                drawn = torch.rand(value.shape, generator=generator) * value.abs().mean().clamp(min=0.02)
                value.add_(drawn if name.endswith("running_var") else 0.5 * drawn)
    return network.eval()


@pytest.mark.parametrize(("name", "options"), NETWORK_CASES, ids=[name for name, _ in NETWORK_CASES])
def test_logits_equal_those_of_the_network_of_monai(name: str, options: dict) -> None:
    torch.manual_seed(0)
    # Double: shaken norms make some logits huge, in which float32 leaves the last digits to the order of sums.
    theirs = shaken(getattr(nets, name)(**options)).double()
    plan = network_of({"_target_": f"monai.networks.nets.{name}", **options})
    ours = build_network(plan.network, plan.config).eval().double()
    ours.load_state_dict(plan.translate(theirs.state_dict()))
    image = torch.randn(
        1, 2, *(32, 32, 16)[: options["spatial_dims"]], generator=torch.Generator().manual_seed(2)
    ).double()
    with torch.no_grad():
        expected = theirs(image)
        expected = expected[0] if isinstance(expected, list) else expected
        torch.testing.assert_close(ours(image), expected, atol=1e-4, rtol=1e-4)
        assert expected.std() > 1e-3


ORDER_CASES = [NETWORK_CASES[index] for index in (0, 1, 2, 6, 7, 10, 12, 13, 15, 17)]


@pytest.mark.parametrize(("name", "options"), ORDER_CASES, ids=[name for name, _ in ORDER_CASES])
def test_logits_can_be_put_in_another_order_beside_one_that_is_zero(name: str, options: dict) -> None:
    theirs = shaken(getattr(nets, name)(**options))
    plan = network_of({"_target_": name, **options})
    state = plan.translate(theirs.state_dict())
    image = torch.randn(1, 2, *(16, 16, 16)[: options["spatial_dims"]], generator=torch.Generator().manual_seed(2))
    ours, turned = (build_network(plan.network, {**plan.config, "num_classes": k}).eval() for k in (3, 4))
    ours.load_state_dict(state)
    turned.load_state_dict(select_outputs(state, plan.class_axes, (None, 2, 0, 1)))
    with torch.no_grad():
        logits = ours(image)
        expected = torch.cat([torch.zeros_like(logits[:, :1]), logits[:, [2, 0, 1]]], dim=1)
        torch.testing.assert_close(turned(image), expected, atol=1e-4, rtol=1e-4)


# Steps: theirs and ours change an image alike.
SCALINGS = [
    {"_target_": "ScaleIntensityRanged", "a_min": -1, "a_max": 2, "b_min": 0.5, "b_max": 3, "clip": True},
    {"_target_": "ScaleIntensityRanged", "a_min": -1, "a_max": 2},
    {"_target_": "ScaleIntensityd"},
    {"_target_": "ScaleIntensityd", "minv": -1.0, "maxv": 1.0, "channel_wise": True},
    {"_target_": "ScaleIntensityd", "minv": None, "maxv": None, "factor": 0.5},
    {"_target_": "NormalizeIntensityd"},
    {"_target_": "NormalizeIntensityd", "nonzero": True, "channel_wise": True},
    {"_target_": "NormalizeIntensityd", "subtrahend": [1.0, 2.0], "divisor": [0.5, 4.0], "channel_wise": True},
    {"_target_": "NormalizeIntensityd", "subtrahend": 1.5, "divisor": 0.5, "nonzero": True},
    {"_target_": "ScaleIntensityRangePercentilesd", "lower": 5, "upper": 90, "b_min": 0, "b_max": 1, "clip": True},
    {"_target_": "ScaleIntensityRangePercentilesd", "lower": 0, "upper": 99, "b_min": None, "b_max": None},
    {
        "_target_": "ScaleIntensityRangePercentilesd",
        **{"lower": 5, "upper": 90, "b_min": -1, "b_max": 4, "relative": True, "channel_wise": True},
    },
]


@pytest.mark.parametrize("entry", SCALINGS, ids=[entry["_target_"] for entry in SCALINGS])
def test_intensities_are_scaled_as_monai_does_it(entry: dict) -> None:
    image = torch.randn(2, 9, 8, 7, generator=torch.Generator().manual_seed(0)) * 3 + 1
    image[:, :3] = 0
    (step,) = preparation_of([{"keys": "image", **entry}], axes=(0, 1, 2)).steps
    theirs = ConfigParser({"step": {"keys": "image", **entry}}).get_parsed_content("step")
    torch.testing.assert_close(scale(image.clone(), step), theirs({"image": image.clone()})["image"].as_tensor())


@pytest.mark.parametrize("values", [torch.full((1, 2, 2, 2), 3.0), torch.zeros(1, 2, 2, 2)])
@pytest.mark.parametrize("name", ["ScaleIntensityd", "NormalizeIntensityd", "ScaleIntensityRangePercentilesd"])
def test_an_image_of_one_value_is_scaled_as_monai_does_it(name: str, values: torch.Tensor) -> None:
    entry = {"_target_": name, "keys": "image"}
    if "Percentiles" in name:
        entry |= {"lower": 1, "upper": 99, "b_min": 2, "b_max": 3}
    (step,) = preparation_of([entry], axes=(0, 1, 2)).steps
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = ConfigParser({"step": entry}).get_parsed_content("step")({"image": values.clone()})["image"]
    torch.testing.assert_close(scale(values.clone(), step), expected.as_tensor())


@pytest.mark.parametrize("noise", [0.0, -1e-7])
@pytest.mark.parametrize("pixdim", [(1.5, 0.7, 2.0), (1.0, 1.2, 3.0)])
def test_an_image_is_resampled_as_monai_does_it_there_and_back(noise: float, pixdim: tuple) -> None:
    """Perpendicular axes keep voxel 0 in place; axes as a header of few digits gives them, the middle."""
    angle = np.deg2rad(25)
    affine = np.eye(4)
    affine[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    affine[:3, :3] = (affine[:3, :3] + noise * np.eye(3)[[1, 0, 2]]) @ np.diag((1.0, 1.2, 3.0))
    image = MetaTensor(torch.randn(1, 11, 9, 8, generator=torch.Generator().manual_seed(0)), affine=affine)
    spacing = Spacing(pixdim=pixdim)
    theirs = spacing(image)
    wanted = spacing_for(np.linalg.norm(affine[:3, :3], axis=0), pixdim)
    grid = grid_for((11, 9, 8), affine[:3, :3], wanted)
    assert grid.size == theirs.shape[1:]
    ours = linear_at(image.as_tensor(), grid.positions)
    torch.testing.assert_close(ours, theirs.as_tensor(), atol=1e-5, rtol=1e-5)
    back = spacing.inverse(theirs).as_tensor()
    torch.testing.assert_close(linear_at(ours, grid.back_positions), back, atol=1e-5, rtol=1e-5)
    assert (max(map(abs, grid.origin)) > 0) == (noise < 0 and pixdim[0] == 1.5)


@pytest.mark.parametrize("step", [0.37, 1.0, 2.6, -0.8])
def test_a_few_planes_at_a_time_give_what_all_at_once_do(step: float) -> None:
    image = torch.randn(2, 21, 9, 8, generator=torch.Generator().manual_seed(0))
    ends = torch.tensor([-1.5, 19.9]).sort(descending=step < 0).values.double()
    positions = tuple(torch.arange(ends[0] / extent, ends[1] / extent, step).double() for extent in (1, 2, 2))
    expected = linear_at(image.double(), positions).float()
    assert torch.equal(linear_in_double_precision(image, positions), expected)


@pytest.mark.parametrize("code", ["RAS", "LPS", "SRA", "PIR", "LAI"])
def test_axes_are_turned_as_monai_does_it(code: str) -> None:
    volume, _ = case_in("residual_oblique")
    array = volume.array.transpose(0, 3, 2, 1).astype(np.float32)
    theirs = Orientation(axcodes=code, labels=(("L", "R"), ("P", "A"), ("I", "S")))(
        MetaTensor(torch.from_numpy(array), affine=volume.affine_ras)
    )
    ours = reorder(volume, order_for(volume.affine_ras, code))
    np.testing.assert_array_equal(ours.array.transpose(0, 3, 2, 1), theirs.as_tensor().numpy())
    np.testing.assert_allclose(ours.affine_ras, theirs.affine.numpy(), atol=1e-9)


@pytest.mark.parametrize(
    "options",
    [{}, {"margin": [1, 0, 2]}, {"margin": 3, "allow_smaller": True}, {"k_divisible": [4, 1, 8]}, {"margin": 9}],
)
def test_the_foreground_is_cut_out_and_put_back_as_monai_does_it(options: dict) -> None:
    image = torch.zeros(2, 12, 9, 10)
    image[0, 3:7, 2:6, 4:5] = 1
    image[1, 5, 5:8, 2:4] = 2
    cropper = MonaiCropForeground(**options)
    theirs = cropper(MetaTensor(image))
    values = {"_target_": "CropForegroundd", "keys": "image", **options}
    (step,) = preparation_of([values], axes=(0, 1, 2)).steps
    grid = SteppedGrid.of((12, 9, 10)).seeing(*foreground_box(image, step))
    ours = grid.cut(image)
    torch.testing.assert_close(ours, theirs.as_tensor())
    torch.testing.assert_close(grid.whole(ours + 1), cropper.inverse(theirs + 1).as_tensor())


@pytest.mark.parametrize(("size", "patch", "overlap"), [(50, 16, 0.25), (33, 16, 0.5), (16, 16, 0.6), (40, 7, 0.9)])
def test_tiles_lie_where_monai_puts_them(size: int, patch: int, overlap: float) -> None:
    interval = int(patch) if size == patch else max(1, int(patch * (1 - overlap)))
    expected = [entry[0].start for entry in dense_patch_slices((size,), (patch,), (interval,))]
    assert monai_conventions.tile_starts(size, patch, overlap) == expected


@pytest.mark.parametrize("patch", [(8, 9, 16), (1, 5, 4)])
def test_tiles_are_weighted_as_monai_does_it(patch: tuple) -> None:
    for kind in ("constant", "gaussian"):
        ours = monai_conventions.tile_weights(patch, kind=kind, sigma_ratio=0.125)
        torch.testing.assert_close(ours, compute_importance_map(patch, mode=kind, sigma_scale=0.125))


def test_references_of_the_training_images_are_brought_to_the_grid_of_the_network(tmp_path: Path) -> None:
    description = import_model(FIXTURES / "cropped", tmp_path / "model").description
    volume, _ = case_in("cropped")
    prepared = prepare(volume, description.plan)
    turned = prepared.order.apply(volume.array[0].astype(np.int32))
    labels = prepared.labels_on_grid(torch.from_numpy(np.ascontiguousarray(turned)))
    assert labels.shape == prepared.image.shape[1:]
    nearest = nearest_at(torch.from_numpy(np.ascontiguousarray(turned)), prepared.grid.positions)
    torch.testing.assert_close(labels, prepared.grid.cut(nearest[None])[0])
    # The image itself, interpolated and scaled from 0..300 to 0..1, is near to what lies nearest.
    assert np.corrcoef(labels.flatten(), prepared.image[0].flatten())[0, 1] > 0.95


def test_probabilities_add_up_to_one_and_agree_with_the_labels(tmp_path: Path) -> None:
    for name in ("residual_oblique", "cropped", "nearest_back", "nested_regions"):
        import_model(FIXTURES / name, tmp_path / name)
        volume, _ = case_in(name)
        result = Predictor(tmp_path / name, device="cpu").segment(volume, with_probabilities=True)
        assert result.probabilities is not None
        values = [0, *(label.value for label in result.labels)]
        if name != "nested_regions":
            np.testing.assert_allclose(result.probabilities.astype(np.float32).sum(axis=0), 1, atol=4e-3)
            likeliest = np.array(values)[result.probabilities.argmax(axis=0)]
            assert np.mean(likeliest == result.labelmap) > (0.9 if name == "nearest_back" else 0.998)
        else:
            active = result.probabilities[1:].astype(np.float32) > 0.5
            assert np.mean(active.any(axis=0) == (result.labelmap > 0)) > 0.998


def test_feature_maps_lie_on_the_grid_of_the_image(tmp_path: Path) -> None:
    import_model(FIXTURES / "residual_oblique", tmp_path / "model")
    volume, _ = case_in("residual_oblique")
    maps = view_features(Predictor(tmp_path / "model", device="cpu"), volume)
    assert maps
    assert all(view.shape == volume.shape for view in maps.values())


# The bundle: what is read, and what is refused by name.
@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return Path(shutil.copytree(FIXTURES / "slices", tmp_path / "bundle"))


def change(bundle: Path, key: str, value: object, *, file: str = "inference.json") -> None:
    path = bundle / "configs" / file
    values = json.loads(path.read_text())
    *parents, last = key.split(".")
    place = values
    for part in parents:
        place = place[int(part) if part.isdigit() else part]
    place[int(last) if last.isdigit() else last] = value
    path.write_text(json.dumps(values))


def transforms(bundle: Path, *entries: dict, kind: str = "preprocessing") -> None:
    keys = "image" if kind == "preprocessing" else "pred"
    change(bundle, f"{kind}.transforms", [{"keys": keys, **entry} for entry in entries])


def refuse(bundle: Path, message: str, *, options: ImportOptions | None = None) -> None:
    output = bundle.parent / "model"
    with pytest.raises(InputError, match=message) as caught:
        import_model(bundle, output, options=options)
    assert "\n" not in str(caught.value)
    assert not output.exists()


def test_what_the_metadata_say_comes_along(tmp_path: Path) -> None:
    model = import_model(FIXTURES / "nested_regions", tmp_path / "model")
    description = read_description(tmp_path / "model")
    assert json.dumps(description.to_dict()) == json.dumps(model.description.to_dict())
    assert [channel.name for channel in description.channels] == ["T1c", "T1", "T2", "FLAIR"]
    assert [(label.name, label.value) for label in description.labels] == [
        ("Whole tumor", 2),
        ("Tumor core", 1),
        ("Enhancing tumor", 4),
    ]
    assert (description.output, description.preset, description.network) == ("regions", "mri", "segresnet")
    assert description.licence.startswith("CC0 1.0 Universal")
    card = (tmp_path / "model" / "CARD.md").read_text(encoding="utf-8")
    for words in ("version 0.1.0", "Authors: Made by a script", "Copyright: None", "Cite: Nobody", "CC0 1.0 Universal"):
        assert words in card
    assert model.warnings == ()


def test_regions_without_a_rule_are_painted_from_the_outermost_or_warned_of(tmp_path: Path, bundle: Path) -> None:
    nested = Path(shutil.copytree(FIXTURES / "nested_regions", tmp_path / "nested"))
    path = nested / "configs" / "inference.json"
    values = json.loads(path.read_text())
    values["postprocessing"]["transforms"] = values["postprocessing"]["transforms"][:2]
    path.write_text(json.dumps(values))
    model = import_model(nested, tmp_path / "first")
    assert [label.name for label in model.description.labels] == ["Whole tumor", "Tumor core", "Enhancing tumor"]
    assert [label.value for label in model.description.labels] == [1, 2, 3]
    assert any("a region is taken where its own is above 0.5" in sentence for sentence in model.warnings)
    transforms(bundle, {"_target_": "Activationsd", "sigmoid": True}, kind="postprocessing")
    model = import_model(bundle, tmp_path / "second")
    assert any("painted in this order, background, front, back" in sentence for sentence in model.warnings)


def test_the_command_imports_folder_and_archive_and_segments_alike(tmp_path: Path, capsys) -> None:
    archive = tmp_path / "bundle.zip"
    with zipfile.ZipFile(archive, "w") as opened:
        for path in (FIXTURES / "slices").rglob("*"):
            opened.write(path, path.relative_to(FIXTURES))
    for source, name in ((archive, "zip"), (FIXTURES / "slices", "folder")):
        assert main(["import", str(source), "-o", str(tmp_path / name), "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["model"]["licence"].startswith("CC0")
    first, second = (read_description(tmp_path / name) for name in ("zip", "folder"))
    assert first == second
    assert (first.id, first.network, first.plan.dimensions) == ("monai-fixture-slices", "residual_unet", 2)
    assert (tmp_path / "zip" / "weights.safetensors").read_bytes() == (
        tmp_path / "folder" / "weights.safetensors"
    ).read_bytes()


def test_weights_lie_under_the_key_of_a_training_or_of_a_wrapper(bundle: Path, tmp_path: Path) -> None:
    path = bundle / "models" / "model.pt"
    state = torch.load(path, weights_only=True)
    torch.save({"network": {f"module.{name}": value for name, value in state.items()}, "epoch": 3}, path)
    wrapped = import_model(bundle, tmp_path / "model").network.state_dict()
    plain = import_model(FIXTURES / "slices", tmp_path / "plain").network.state_dict()
    assert all(torch.equal(value, plain[name]) for name, value in wrapped.items())


def test_the_file_that_the_bundle_loads_is_taken(bundle: Path, tmp_path: Path) -> None:
    (bundle / "models" / "model.pt").rename(bundle / "models" / "best.pt")
    refuse(bundle, r"model\.pt is missing")
    change(bundle, "checkpointloader.load_path", "$@bundle_root + '/models/' + @name")
    change(bundle, "name", "best.pt")
    import_model(bundle, tmp_path / "model")


class Bomb:
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.folder),)


def test_code_in_the_weights_is_refused_and_never_runs(bundle: Path, tmp_path: Path) -> None:
    torch.save({"model": Bomb(tmp_path / "ran")}, bundle / "models" / "model.pt")
    refuse(bundle, r"(posix|nt)\.mkdir.*save the state dictionary")
    assert not (tmp_path / "ran").exists()


def test_code_in_the_configuration_never_runs(bundle: Path, tmp_path: Path) -> None:
    code = f"$__import__('os').mkdir({str(tmp_path / 'ran')!r})"
    change(bundle, "imports", [code])
    change(bundle, "initialize", [code])
    import_model(bundle, tmp_path / "model")
    shutil.rmtree(tmp_path / "model")
    for key in (
        "network_def.in_channels",
        "preprocessing.transforms.0",
        "inferer.roi_size",
        "inferer",
        "preprocessing",
    ):
        change(bundle, key, code)
        refuse(bundle, "which is code and not run|no whole number")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.99])
def test_weights_that_were_cut_off_are_refused(bundle: Path, share: float) -> None:
    path = bundle / "models" / "model.pt"
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    refuse(bundle, "damaged")


def test_weights_of_another_network_are_refused(bundle: Path) -> None:
    path = bundle / "models" / "model.pt"
    state = torch.load(path, weights_only=True)
    torch.save({**state, "extra.weight": torch.ones(2)}, path)
    refuse(bundle, r"more than the bundle's UNet \(extra\.weight\)")
    torch.save({name: value for name, value in state.items() if "residual" not in name}, path)
    refuse(bundle, "do not fit the bundle's UNet|lack")
    torch.save(state, path)
    change(bundle, "network_def.channels", [4, 8, 6])
    refuse(bundle, "do not fit the bundle's UNet")
    torch.save({}, path)
    refuse(bundle, "no weights")


@pytest.mark.parametrize("name", ["configs/inference.json", "models/model.pt"])
def test_missing_files_are_named(bundle: Path, name: str) -> None:
    (bundle / name).unlink()
    refuse(bundle, Path(name).name.replace(".", r"\."))


@pytest.mark.parametrize("text", ["", "[]", "{", "[" * 100_000])
def test_files_that_are_no_object_are_refused(bundle: Path, text: str) -> None:
    for name in ("inference.json", "metadata.json"):
        kept = (bundle / "configs" / name).read_text()
        (bundle / "configs" / name).write_text(text)
        refuse(bundle, name.replace(".", r"\."))
        (bundle / "configs" / name).write_text(kept)


def test_torchscript_is_loaded_only_where_the_user_allows_code(bundle: Path, tmp_path: Path) -> None:
    path = bundle / "models" / "model.pt"
    state = torch.load(path, weights_only=True)
    values = json.loads((bundle / "configs" / "inference.json").read_text())["network_def"]
    network = nets.UNet(**{key: value for key, value in values.items() if key != "_target_"})
    network.load_state_dict(state)
    script = bundle / "models" / "model.ts"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.trace(network.eval(), torch.zeros(1, 1, 16, 16)).save(script)
    import_model(bundle, tmp_path / "preferred")
    path.unlink()
    refuse(bundle, "TorchScript, that is code: add models/model.pt, or allow code to be run")
    assert main(["import", str(bundle), "-o", str(tmp_path / "allowed"), "--allow-code"]) == 0
    first, second = (tmp_path / name / "weights.safetensors" for name in ("preferred", "allowed"))
    assert first.read_bytes() == second.read_bytes()
    script.write_bytes(script.read_bytes()[:500])
    refuse(bundle, "cannot be loaded", options=ImportOptions(allow_code=True))


def test_an_archive_that_leaves_its_folder_is_refused(tmp_path: Path) -> None:
    archive = tmp_path / "bundle.zip"
    with zipfile.ZipFile(archive, "w") as opened:
        opened.write(FIXTURES / "slices" / "configs" / "metadata.json", "b/configs/metadata.json")
        opened.writestr(zipfile.ZipInfo("b/../../model.pt"), "")
    with pytest.raises(InputError, match="leads out of its folder"):
        import_model(archive, tmp_path / "model")


def test_several_bundles_are_refused_by_name(tmp_path: Path) -> None:
    for name in ("slices", "cropped"):
        shutil.copytree(FIXTURES / name, tmp_path / "zoo" / name)
    refuse(tmp_path / "zoo", "several bundles, cropped, slices")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("network_def", {"_target_": "SwinUNETR"}, "'SwinUNETR', which has no equal here: UNet, SegResNet"),
        ("network_def", {"_target_": "scripts.nets.UNet"}, r"'scripts\.nets\.UNet', which has no equal here"),
        ("network_def", "$my_network()", r"'\$my_network\(\)', which is code"),
        ("network_def", {}, "names no network"),
        ("network_def.norm", "layer", "norm 'layer'"),
        ("network_def.norm", ["group", {"num_groups": 3}], "3 groups"),
        ("network_def.norm", ["instance", {"eps": 0.1}], "eps is 0.1"),
        ("network_def.act", "swish", "activation 'swish'"),
        ("network_def.adn_ordering", "AND", "adn_ordering is 'AND'"),
        ("network_def.channels", "many", "channels is 'many'"),
        ("network_def.strides", [2], "strides are"),
        ("network_def.kernel_size", [3, 5, 7], "kernel_size is"),
        ("network_def.spatial_dims", 1, "spatial dimensions"),
        ("network_def.attention", True, "options attention"),
        ("inferer", {"_target_": "SaliencyInferer"}, "inferer 'SaliencyInferer'"),
        ("inferer", None, "no inferer"),
        ("inferer.overlap", [0.5, 0.25], "overlap is"),
        ("inferer.overlap", 1.5, "overlap is 1.5"),
        ("inferer.sigma_scale", [0.1, 0.2], "sigma_scale is"),
        ("inferer.mode", "median", "weights is 'median'"),
        ("inferer.padding_mode", "circular", "padding is 'circular'"),
        ("inferer.roi_size", "large", "roi_size is 'large'"),
        ("inferer.spatial_dim", 3, "spatial_dim 3"),
        ("preprocessing", 3, "preprocessing is 3"),
        ("preprocessing.transforms.0", "LoadImaged", "which is no transform"),
        ("preprocessing.transforms.0", {"_target_": "Spacingd", "_disabled_": "$f()"}, "may switch off"),
        ("preprocessing", "@absent", "'absent', which is not there"),
        ("preprocessing", "@preprocessing", "circle"),
        ("preprocessing", "%other.json#preprocessing", "another file"),
        ("postprocessing", None, "neither Activations nor AsDiscrete"),
    ],
)
def test_what_has_no_equal_is_refused_by_name(bundle: Path, key: str, value: object, message: str) -> None:
    change(bundle, key, value)
    refuse(bundle, message)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([{"_target_": "Resized"}], "transform 'Resized'"),
        ([{"_target_": "my.Spacingd"}], r"transform 'my\.Spacingd'"),
        ([{"_target_": "Spacingd", "pixdim": [1, 1, 1], "mode": 3}], "mode is 3"),
        ([{"_target_": "Spacingd", "pixdim": [1, 1, 1], "padding_mode": "zeros"}], "padding_mode is 'zeros'"),
        ([{"_target_": "Spacingd", "pixdim": "1"}], "pixdim is '1'"),
        ([{"_target_": "Spacingd", "pixdim": 1, "max_pixdim": 2}], "max_pixdim"),
        ([{"_target_": "Spacingd", "pixdim": 1}, {"_target_": "Spacingd", "pixdim": 1}], "Resample is there twice"),
        ([{"_target_": "Spacingd", "pixdim": 1}, {"_target_": "Orientationd", "axcodes": "RAS"}], "comes after"),
        ([{"_target_": "Orientationd", "axcodes": "RA"}], "orientation is 'RA'"),
        ([{"_target_": "Orientationd", "axcodes": "RAS", "labels": [["A", "B"]]}], "labels are"),
        ([{"_target_": "CropForegroundd", "select_fn": "$lambda x: x > -1"}], "select_fn is .* code"),
        ([{"_target_": "CropForegroundd", "source_key": "label"}], "cuts by 'label'"),
        ([{"_target_": "CropForegroundd", "margin": 2, "mode": "edge"}], "mode is 'edge'"),
        ([{"_target_": "CropForegroundd", "margin": 2}, {"_target_": "Spacingd", "pixdim": 1}], "turn the two"),
        ([{"_target_": "ScaleIntensityRanged"}], "no a_min and a_max"),
        ([{"_target_": "ScaleIntensityRanged", "a_min": 0, "a_max": 1, "b_min": 0}], "b_min and b_max are"),
        ([{"_target_": "ScaleIntensityRanged", "a_min": 1, "a_max": 1}], "two different values"),
        ([{"_target_": "ScaleIntensityRangePercentilesd", "lower": 9, "upper": 1}], "rising"),
        ([{"_target_": "ScaleIntensityRangePercentilesd", "lower": "a", "upper": 1}], "only a number"),
        ([{"_target_": "NormalizeIntensityd", "subtrahend": [1, 2]}], "take each channel alone"),
        ([{"_target_": "NormalizeIntensityd", "subtrahend": ["a"]}], "only numbers"),
        ([{"_target_": "CastToTyped", "dtype": "$torch.int16"}], r"dtype is 'torch\.int16'"),
    ],
)
def test_transforms_that_have_no_equal_are_refused_by_name(bundle: Path, entries: list, message: str) -> None:
    transforms(bundle, *entries)
    refuse(bundle, message)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([{"_target_": "MeanEnsembled"}], "'MeanEnsembled', which has no equal here"),
        ([{"_target_": "Activationsd", "other": "$torch.tanh"}], "other is"),
        ([{"_target_": "AsDiscreted", "threshold": 0.3}], "threshold is 0.3"),
        ([{"_target_": "AsDiscreted", "threshold": 0.5}], "threshold of the logits"),
        ([{"_target_": "AsDiscreted", "argmax": True, "rounding": "torchrounding"}], "rounding is"),
        (
            [{"_target_": "Activationsd", "softmax": True}, {"_target_": "AsDiscreted", "threshold": 0.5}],
            "threshold of a",
        ),
        ([{"_target_": "Activationsd", "sigmoid": True}, {"_target_": "AsDiscreted", "argmax": True}], "argmax of a"),
        ([{"_target_": "AsDiscreted", "argmax": True}, {"_target_": "Invertd", "post_func": "$f"}], "post_func is"),
        (
            [
                {"_target_": "Activationsd", "sigmoid": True},
                {"_target_": "AsDiscreted", "threshold": 0.5},
                {"_target_": "Lambdad", "func": "$lambda x: x + 1"},
            ],
            "code and not run",
        ),
        (
            [
                {"_target_": "Activationsd", "sigmoid": True},
                {"_target_": "AsDiscreted", "threshold": 0.5},
                {"_target_": "Lambdad", "func": "$lambda x: torch.where(x[[7]] > 0, 4, 0)"},
            ],
            r"paints the outputs \[7\] of 3",
        ),
        (
            [
                {"_target_": "AsDiscreted", "argmax": True},
                {"_target_": "KeepLargestConnectedComponentd", "connectivity": 1},
            ],
            "connectivity is 1",
        ),
    ],
)
def test_results_that_have_no_equal_are_refused_by_name(bundle: Path, entries: list, message: str) -> None:
    transforms(bundle, *entries, kind="postprocessing")
    refuse(bundle, message)


def test_the_largest_components_become_a_step_and_are_told_of(bundle: Path, tmp_path: Path) -> None:
    argmax = {"_target_": "AsDiscreted", "argmax": True}
    largest = {"_target_": "KeepLargestConnectedComponentd", "applied_labels": [1, 2]}
    transforms(bundle, argmax, largest, {"_target_": "Invertd", "nearest_interp": False}, kind="postprocessing")
    transforms(bundle, {"_target_": "Spacingd", "pixdim": [1, 1, -1]})
    model = import_model(bundle, tmp_path / "model")
    assert model.description.postprocess == ("keep_largest_component:regions=1/2",)
    assert "kept on the image's grid" in model.warnings[0]
    assert "the nearest is taken" in model.warnings[1]
    volume, _ = case_in("slices")
    result = Predictor(tmp_path / "model", device="cpu").segment(volume)
    assert result.labelmap.shape == volume.shape


def test_expressions_of_plain_data_are_understood_and_others_kept_as_code() -> None:
    values = {
        "sizes": [4, "$2 ** 3", "$1.5 * 2"],
        "nested": {"flag": True},
        "chosen": "$'yes' if @nested#flag else 'no'",
        "old": "@nested::flag",
        "count": "$len(@sizes) - 1",
        "path": "$@root + '/models/model.pt'",
        "root": ".",
        "key": "$monai.utils.CommonKeys.IMAGE",
        "moved": "$@network.to(@device)",
        "network": {"_target_": "UNet"},
        "device": "$torch.device('cpu')",
        "kind": "$torch.float32",
        "table": "${'a': [1, (2, 3)], 'b': None}",
        "same": "%nested",
        "long": "$[0] * 100000000",
        "huge": "$" + "(" * 5000,
        "text": "@ is no reference",
    }
    configuration = BundleConfiguration(values, "inference.json")
    expected = {
        "sizes#2": 3.0,
        "chosen": "yes",
        "old": True,
        "count": 2,
        "path": "./models/model.pt",
        "key": "image",
        "moved": {"_target_": "UNet"},
        "kind": "torch.float32",
        "table": {"a": [1, [2, 3]], "b": None},
        "same": {"flag": True},
        "text": "@ is no reference",
        "absent": None,
    }
    assert {key: configuration.get(key) for key in expected} == expected
    for key in ("sizes#1", "device", "long", "huge"):
        assert isinstance(configuration.get(key), Code)


def test_yaml_needs_its_package(bundle: Path, monkeypatch) -> None:
    path = bundle / "configs" / "inference.json"
    path.rename(path.with_suffix(".yaml"))
    monkeypatch.setitem(sys.modules, "yaml", None)
    refuse(bundle, r"inference\.yaml is YAML, which needs the package PyYAML: install it, or save the file as JSON")


def test_yaml_is_read_as_json_is(bundle: Path, tmp_path: Path) -> None:
    yaml = pytest.importorskip("yaml")
    path = bundle / "configs" / "inference.json"
    path.with_suffix(".yaml").write_text(yaml.safe_dump(json.loads(path.read_text())))
    path.unlink()
    import_model(bundle, tmp_path / "model")
    path.with_suffix(".yaml").write_text("a: [1")
    with pytest.raises(InputError, match="cannot be read"):
        import_model(bundle, tmp_path / "other")


# The recipe, which a model folder keeps.
def test_a_recipe_survives_json(tmp_path: Path) -> None:
    for name in NAMES:
        plan = import_model(FIXTURES / name, tmp_path / name).description.plan
        assert Plan.from_dict(json.loads(json.dumps(plan.to_dict()))) == plan


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Tiling(overlap=1.0), "overlap is 1.0"),
        (lambda: Tiling(sigma_ratio=0.0), "above 0"),
        (lambda: Tiling(whole_axes=(3,)), "whole_axes"),
        (lambda: MonaiRecipe(restored="images"), "restored is 'images'"),
        (
            lambda: MonaiRecipe.from_dict({"steps": [{"step": "blur"}], "tiling": {}, "restored": "logits"}),
            "step 'blur'",
        ),
        (lambda: CropForeground(margin=(-1, 0, 0)), "margin is"),
        (lambda: CropForeground(divisor=(0, 1, 1)), "divisor is"),
        (lambda: ScaleRange(source=(0, 1), is_clipped=True), "without a target"),
        (lambda: MonaiRecipe(steps=(Resample(), Resample())), "twice"),
        (lambda: replace(plan_of(), recipe=None), "give both or none"),
        (lambda: replace(plan_of(), orientation="RAR"), "orientation is 'RAR'"),
    ],
)
def test_recipes_that_make_no_sense_are_explained(make, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()


def plan_of(**options: object) -> Plan:
    values = {
        "dimensions": 3,
        "spacing_mm": (0.0, 0.0, 0.0),
        "patch_size": (8, 8, 8),
        "batch_size": 1,
        "orientation": "stored",
        "normalization": (Normalization(scheme="none"),),
        "conventions": "monai",
        "recipe": MonaiRecipe(),
    }
    return Plan(**{**values, **options})


def test_an_image_with_nothing_above_zero_is_refused_where_the_foreground_is_cut_out() -> None:
    plan = plan_of(recipe=MonaiRecipe(steps=(CropForeground(),)))
    with pytest.raises(InputError, match="no voxel of the image is above 0"):
        prepare(Volume(-np.ones((1, 3, 4, 5)), np.eye(4)), plan)


def test_a_grid_out_of_all_proportion_is_refused() -> None:
    plan = plan_of(spacing_mm=(1e-4, 1e-4, 1e-4), recipe=MonaiRecipe(steps=(Resample(),)))
    with pytest.raises(InputError, match="mend the spacing"):
        prepare(Volume(np.ones((1, 30, 40, 50)), np.eye(4)), plan)
