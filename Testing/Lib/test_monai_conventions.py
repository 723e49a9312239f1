"""Preparation and tiles by MONAI's conventions: its own steps and ours change an image alike; recipes make sense."""

import json
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from monai.data import MetaTensor
from monai.data.utils import compute_importance_map, dense_patch_slices
from monai.transforms import CropForeground as MonaiCropForeground
from monai.transforms import Orientation, Spacing

from UNetSegmentationLib.conventions import prepare
from UNetSegmentationLib.conventions.parts import monai_math
from UNetSegmentationLib.conventions.parts.monai_math import (
    SteppedGrid,
    foreground_box,
    grid_for,
    linear_at,
    linear_in_double_precision,
    scale,
    spacing_for,
)
from UNetSegmentationLib.core.errors import InputError
from UNetSegmentationLib.image.geometry import Volume, order_for, reorder
from UNetSegmentationLib.importers import import_model
from UNetSegmentationLib.importers.monai.transforms import preparation_of
from UNetSegmentationLib.planning.monai_recipe import CropForeground, MonaiRecipe, Resample, ScaleRange, Tiling
from UNetSegmentationLib.planning.plan import Normalization, Plan

FIXTURES = Path(__file__).parents[1] / "Fixtures" / "monai"
NAMES = sorted(path.name for path in FIXTURES.iterdir())
AGREEMENT = 0.9999


def case_in(name: str) -> tuple[Volume, np.ndarray]:
    with np.load(FIXTURES / name / "images.npz") as arrays:
        return Volume(arrays["image"], arrays["affine_ras"]), arrays["labels"]


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
    assert monai_math.tile_starts(size, patch, overlap) == expected


@pytest.mark.parametrize("patch", [(8, 9, 16), (1, 5, 4)])
def test_tiles_are_weighted_as_monai_does_it(patch: tuple) -> None:
    for kind in ("constant", "gaussian"):
        ours = monai_math.tile_weights(patch, kind=kind, sigma_ratio=0.125)
        torch.testing.assert_close(ours, compute_importance_map(patch, mode=kind, sigma_scale=0.125))


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
            "step is 'blur': choose resample, crop_foreground",
        ),
        (lambda: CropForeground(margin=(-1, 0, 0)), "margin is"),
        (lambda: CropForeground(divisor=(0, 1, 1)), "divisor is"),
        (lambda: ScaleRange(source=(0, 1), is_clipped=True), "without a target"),
        (lambda: MonaiRecipe(steps=(Resample(), Resample())), "twice"),
        (lambda: replace(plan_of(), recipe=None), "give both or neither"),
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
    with pytest.raises(InputError, match="fix the spacing"):
        prepare(Volume(np.ones((1, 30, 40, 50)), np.eye(4)), plan)
