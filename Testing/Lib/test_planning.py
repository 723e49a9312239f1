"""The plan of a data set is a pure function of its fingerprint."""

import json
import runpy
from dataclasses import replace
from math import prod
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from UNetSegmentationLib.core.errors import InputError
from UNetSegmentationLib.networks import NETWORKS
from UNetSegmentationLib.networks.parts.cost import training_cost
from UNetSegmentationLib.planning.explanation import explain
from UNetSegmentationLib.planning.fingerprint import Fingerprint
from UNetSegmentationLib.planning.plan import Plan, read_plan
from UNetSegmentationLib.planning.planner import (
    PATCH_VOXELS,
    dimensions_for,
    make_plan,
    network_shape_for,
    target_spacing_mm,
)
from UNetSegmentationLib.training.budget import Budget, budget_of, plan_for

GOLDEN = Path(__file__).parent / "golden"

SCRIPT = runpy.run_path(str(GOLDEN / "make_plans.py"))
BUDGET = SCRIPT["BUDGET"]
STATISTICS = {"mean": 40.0, "std": 20.0, "lower": -100.0, "upper": 300.0}


def fingerprint(shape, spacing_mm, channels=1, **options):
    return Fingerprint(
        shapes=(shape,), spacings_mm=(spacing_mm,), channels=channels, foreground=(STATISTICS,) * channels, **options
    )


@pytest.mark.parametrize("name", SCRIPT["CASES"])
def test_plans_are_the_golden_ones(name):
    expected = json.loads((GOLDEN / f"{name}.json").read_text(encoding="utf-8"))
    made = json.loads(json.dumps(SCRIPT["golden"](name)))
    # Entries that a plan gets later have defaults: they make no other plan.
    assert Plan.from_dict(made.pop("plan")) == Plan.from_dict(expected.pop("plan"))
    assert made == expected
    assert Fingerprint.from_dict(expected["fingerprint"]) == SCRIPT["CASES"][name][3]


def test_every_golden_plan_has_its_script():
    assert {path.stem for path in GOLDEN.glob("*.json")} == set(SCRIPT["CASES"])


def test_the_hippocampus_plan_is_nnunets():
    # nnU-Net v2 plans Task04 with patch 40 x 56 x 40, 1 mm and three halvings of every axis.
    plan = make_plan(fingerprint((35, 50, 36), (1.0, 1.0, 1.0)), "mri")
    assert plan.patch_size == (40, 56, 40)
    assert plan.spacing_mm == (1.0, 1.0, 1.0)
    assert network_shape_for(plan)["strides"] == [[1, 1, 1], [2, 2, 2], [2, 2, 2], [2, 2, 2]]


def test_the_hippocampus_plan_agrees_with_what_nnunet_s_planner_made_of_the_same_cases():
    oracle = json.loads((GOLDEN / "nnunet" / "hippocampus.json").read_text(encoding="utf-8"))
    (spacing_mm,), shapes = oracle["spacings"], oracle["shapes_after_crop"]
    names = {"mean": "mean", "std": "std", "lower": "percentile_00_5", "upper": "percentile_99_5"}
    statistics = {name: oracle["foreground"][theirs] for name, theirs in names.items()}
    plan = make_plan(
        Fingerprint(shapes=shapes, spacings_mm=[spacing_mm] * len(shapes), channels=1, foreground=(statistics,)), "mri"
    )
    shape = network_shape_for(plan)
    assert list(plan.patch_size) == oracle["patch_size"]
    assert list(plan.spacing_mm) == oracle["spacing"]
    assert list(plan.transpose) == oracle["transpose_forward"]
    assert [shape["strides"], shape["kernel_sizes"]] == [oracle["strides"], oracle["kernel_sizes"]]
    # As deep and doubling likewise, from 16 features where theirs begin at 32: half the width fits two CPU cores.
    assert [2 * features for features in shape["features_per_stage"]] == oracle["features_per_stage"]
    assert [scheme.scheme for scheme in plan.normalization] == ["zscore"]
    assert oracle["normalization_schemes"] == ["ZScoreNormalization"]


@given(
    st.tuples(st.integers(2, 600), st.integers(8, 600), st.integers(8, 600)),
    st.tuples(*[st.floats(0.3, 8.0)] * 3),
    st.sampled_from(("mri", "ct")),
)
@settings(deadline=None)
def test_every_3d_plan_can_be_trained(shape, spacing_mm, preset):
    assume(dimensions_for(fingerprint(shape, spacing_mm)) == 3)
    plan = make_plan(fingerprint(shape, spacing_mm), preset)
    network = network_shape_for(plan)
    total = [prod(stride[axis] for stride in network["strides"]) for axis in range(3)]
    assert all(extent % step == 0 for extent, step in zip(plan.patch_size, total, strict=True))
    # Rounding up to the strides may add less than one stride along each axis.
    limit = prod(round(extent * (1 + step / extent)) for extent, step in zip(plan.patch_size, total, strict=True))
    assert prod(plan.patch_size) <= max(PATCH_VOXELS[3], limit)
    assert all(extent < size + step for extent, size, step in zip(plan.patch_size, shape, total, strict=True))
    assert len(network["features_per_stage"]) == len(network["strides"]) == len(network["kernel_sizes"])
    assert make_plan(fingerprint(shape, spacing_mm), preset) == plan


def test_flat_images_are_planned_in_2d():
    plan = make_plan(fingerprint((1, 512, 400), (1.0, 1.0, 1.0)), "xray")
    assert (plan.dimensions, plan.patch_size[0], plan.longest_side) == (2, 1, 256)
    assert plan.orientation == "stored"


def test_ct_takes_its_scale_from_the_foreground():
    plan = make_plan(fingerprint((30, 100, 100), (3.0, 1.0, 1.0), channels=2), "ct")
    assert [entry.scheme for entry in plan.normalization] == ["ct", "ct"]
    assert (plan.normalization[0].mean, plan.normalization[0].upper) == (40.0, 300.0)


@pytest.mark.parametrize("preset", ["mri", "ct"])
def test_coarse_slices_are_not_halved_before_the_others_have_caught_up(preset):
    strides = network_shape_for(make_plan(fingerprint((40, 300, 300), (5.0, 0.8, 0.8)), preset))["strides"]
    assert strides[1] == strides[2] == [1, 2, 2]
    assert [2, 2, 2] in strides[3:]


def test_coarse_slices_take_the_spacing_of_the_finest_tenth():
    # Ten cases, 3 to 12 mm: the 10th percentile is 3 + 0.9 = 3.9 mm (numpy's linear rule), the median 7.5 mm.
    rows = tuple((float(step), 0.5, 0.5) for step in range(3, 13))
    data = Fingerprint(shapes=((20, 300, 300),) * 10, spacings_mm=rows, channels=1, foreground=(STATISTICS,))
    assert target_spacing_mm(data) == (pytest.approx(3.9), 0.5, 0.5)
    # As many slices as pixels: nothing is coarse in voxels, the median stays.
    many = Fingerprint(shapes=((300, 300, 300),) * 10, spacings_mm=rows, channels=1, foreground=(STATISTICS,))
    assert target_spacing_mm(many) == (7.5, 0.5, 0.5)
    # Never finer than the others.
    mixed = ((0.2, 0.5, 0.5), *[(5.0, 0.5, 0.5)] * 4)
    some = Fingerprint(shapes=((20, 300, 300),) * 5, spacings_mm=mixed, channels=1, foreground=(STATISTICS,))
    assert target_spacing_mm(some)[0] >= 0.5


def test_the_patch_covers_what_is_not_empty():
    whole = make_plan(fingerprint((64, 64, 64), (1.0, 1.0, 1.0)), "mri")
    cropped = make_plan(fingerprint((64, 64, 64), (1.0, 1.0, 1.0), cropped_shapes=((32, 40, 48),)), "mri")
    assert (whole.patch_size, cropped.patch_size) == ((64, 64, 64), (32, 40, 48))


def test_low_resolution_shows_a_quarter_of_the_image():
    data = fingerprint((300, 512, 512), (1.5, 0.8, 0.8))
    full, low = (make_plan(data, "ct", resolution=name) for name in ("full", "low"))
    extent = prod(n * step for n, step in zip((300, 512, 512), (1.5, 0.8, 0.8), strict=True))
    seen = [
        prod(n * step for n, step in zip(plan.patch_size, plan.spacing_mm, strict=True)) / extent
        for plan in (full, low)
    ]
    assert seen[0] < 0.02
    assert 0.25 <= seen[1] < 0.5
    small = fingerprint((35, 50, 36), (1.0, 1.0, 1.0))
    assert make_plan(small, "mri", resolution="low") == make_plan(small, "mri")
    with pytest.raises(InputError, match="resolution is 'middle'"):
        make_plan(small, "mri", resolution="middle")


@pytest.mark.parametrize("shape", [(40, 256, 256), (5, 256, 256)])
@pytest.mark.parametrize("dimensions", [2, 3])
def test_dimensions_that_are_asked_for_are_planned(shape, dimensions):
    data = fingerprint(shape, (4.0, 0.8, 0.8))
    plan = make_plan(data, "mri", dimensions=dimensions)
    assert plan.dimensions == dimensions
    if dimensions == 2:
        # A slice is seen whole; slices keep their distance.
        assert plan.patch_size == (1, 256, 256)
        assert plan.spacing_mm == (0.0, 0.8, 0.8)
        assert all(len(stride) == 2 for stride in network_shape_for(plan)["strides"])
    else:
        assert plan.patch_size[0] >= shape[0] or plan.patch_size[0] >= 8
        assert plan.spacing_mm == (4.0, 0.8, 0.8)
    usual = dimensions_for(data)
    assert usual == (3 if shape[0] == 40 else 2)
    assert (make_plan(data, "mri") == plan) == (usual == dimensions)
    assert plan_for("unet", data, "mri", budget=BUDGET, num_classes=2, dimensions=dimensions).dimensions == dimensions


def test_flat_images_and_odd_dimensions_are_refused():
    flat = fingerprint((1, 300, 260), (1.0, 0.8, 0.8))
    with pytest.raises(InputError, match="the images are 2D"):
        make_plan(flat, "mri", dimensions=3)
    with pytest.raises(InputError, match="dimensions is 4: choose 2 or 3"):
        plan_for("unet", flat, "mri", budget=BUDGET, num_classes=2, dimensions=4)


def test_channels_are_scaled_by_what_they_are_called():
    names = ("CT", "PET", "T1")
    for preset in ("mri", "ct"):
        plan = make_plan(fingerprint((40, 40, 40), (1.0, 1.0, 1.0), 3, channel_names=names), preset)
        assert [entry.scheme for entry in plan.normalization] == ["ct", "zscore", "zscore"]


def test_a_side_in_a_name_forbids_mirroring():
    for names, axes in ((("Left_lung",), ()), (("right kidney",), ()), (("Leftover",), (2,)), ((), (2,))):
        assert make_plan(fingerprint((40, 40, 40), (1.0, 1.0, 1.0), label_names=names), "ct").mirror_axes == axes


@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_can_be_planned_within_the_budget(name):
    channels = {"brain_tumour": 4}.get(name, 1)
    data = fingerprint((120, 240, 240), (1.0, 1.0, 1.0), channels)
    plan = plan_for(name, data, "mri", budget=BUDGET, num_classes=2)
    config = {"in_channels": channels, "num_classes": 2, "deep_supervision": True, **network_shape_for(plan)}
    assert BUDGET.allows(training_cost(name, config, plan.patch_size), plan.batch_size)


def test_a_costlier_network_gets_a_smaller_patch_and_less_memory_a_smaller_one_still():
    data = fingerprint((120, 240, 240), (1.0, 1.0, 1.0))
    small = Budget(memory_bytes=10**9, operations=1e15, patch_voxels=PATCH_VOXELS)
    plans = [
        plan_for(name, data, "mri", budget=budget, num_classes=2)
        for name, budget in (("unet", BUDGET), ("unet_plus_plus", BUDGET), ("unet_plus_plus", small))
    ]
    voxels = [prod(plan.patch_size) for plan in plans]
    assert voxels[0] > voxels[1] > voxels[2]
    with pytest.raises(InputError, match="too much for this device"):
        tiny = Budget(memory_bytes=10**7, operations=1e15, patch_voxels=PATCH_VOXELS)
        plan_for("unet", data, "mri", budget=tiny, num_classes=2)


def test_a_large_budget_takes_a_larger_batch_but_no_more_than_a_twentieth_of_the_data():
    large = Budget(memory_bytes=10**12, operations=1e18, patch_voxels=PATCH_VOXELS, batch_size=12)
    sizes = []
    for cases in (10, 100, 1000):
        data = Fingerprint(
            shapes=((32, 32, 32),) * cases, spacings_mm=((1.0,) * 3,) * cases, channels=1, foreground=(STATISTICS,)
        )
        sizes.append(plan_for("unet", data, "mri", budget=large, num_classes=2).batch_size)
    assert sizes == [2, 5, 12]


def test_this_machine_has_a_budget():
    import torch

    budget = budget_of(torch.device("cpu"))
    assert budget.memory_bytes > 10**8
    assert budget.operations >= 5e11


def test_the_estimate_of_memory_holds_what_autograd_keeps():
    """One convolution keeps its input; a second, its input too: counted by hand."""
    config = {"in_channels": 1, "num_classes": 2, "features_per_stage": [4], "convs_per_stage": 1, "norm": "none"}
    cost = training_cost("unet", config, (8, 8, 8))
    # The image, and what the activation (in place) leaves for the head; both float32.
    assert cost.activation_bytes == 4 * 512 * (1 + 4)
    assert cost.weights == sum((27 * 4 + 4, 4 * 2 + 2))


def test_every_decision_is_a_sentence():
    data = fingerprint((120, 240, 240), (1.0, 1.0, 1.0), class_shares={1: 0.0001}, label_names=("Nodule",))
    sentences = explain(data, make_plan(data, "ct"))
    subjects = [sentence.partition(":")[0] for sentence in sentences]
    assert subjects[:9] == [
        "Data",
        "Dimensions",
        "Resolution",
        "Patch",
        "Field of view",
        "Batch",
        "Network",
        "Intensity",
        "Orientation",
    ]
    assert all(sentence.endswith(".") for sentence in sentences)
    assert "Nodule is sampled" in sentences[-1]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"shapes": ()}, "there are no cases"),
        ({"spacings_mm": ()}, "spacings_mm needs one entry per case"),
        ({"channels": 2}, "foreground needs one entry per channel"),
        ({"channel_names": ("a", "b")}, "channel_names needs one entry per channel"),
    ],
)
def test_an_impossible_fingerprint_is_refused(changes, words):
    values = fingerprint((9, 9, 9), (1.0, 1.0, 1.0)).to_dict()
    with pytest.raises(InputError, match=words):
        Fingerprint.from_dict({**values, **changes})


def test_unreadable_plans_and_fingerprints_are_refused(tmp_path):
    with pytest.raises(InputError, match="Fingerprint has no field sizes: choose from shapes"):
        Fingerprint.from_dict({"sizes": 3})
    with pytest.raises(InputError, match="Fingerprint lacks shapes, spacings_mm, channels, foreground: add"):
        Fingerprint.from_dict({"subjects": 3})
    for text in ("[1]", "{", '{"plan": 3}', '{"plan": {"dimensions": 3}}'):
        (tmp_path / "plan.json").write_text(text)
        with pytest.raises(InputError, match=r"plan\.json cannot be used"):
            read_plan(tmp_path / "plan.json")


@pytest.mark.parametrize("spacing_mm", [(500.0, 0.3, 0.3), (40.0, 0.7, 0.7)])
@pytest.mark.parametrize("slices", [2, 4, 9])
def test_few_thick_slices_are_planned_in_finite_time(slices, spacing_mm):
    plan = make_plan(fingerprint((slices, 1000, 1000), spacing_mm), "mri")
    assert plan.dimensions == 2 or plan.patch_size[0] >= min(slices, 8)
    assert prod(plan.patch_size) < 2 * 96**3


def test_volumes_are_not_planned_for_radiographs():
    with pytest.raises(InputError, match="preset 'xray' is for 2D images: choose ct, mri"):
        make_plan(fingerprint((30, 40, 50), (1.0, 1.0, 1.0)), "xray")


@pytest.mark.parametrize(
    ("spacing_mm", "transpose", "words"),
    [
        ((3.0, 0.5, 1.0), (0, 1, 2), "1 x 0.5 x 3 mm"),
        ((0.5, 1.0, 3.0), (1, 2, 0), "1 x 0.5 x 3 mm"),
        ((0.0, 0.5, 0.8), (0, 1, 2), "0.8 x 0.5 mm in-plane"),
        ((0.0, 0.0, 0.0), (0, 1, 2), ""),
    ],
)
def test_the_spacing_is_told_as_a_user_knows_it(spacing_mm, transpose, words):
    plan = make_plan(fingerprint((32, 32, 32), (1.0, 1.0, 1.0)), "mri")
    assert replace(plan, spacing_mm=spacing_mm, transpose=transpose).spacing_in_words == words
