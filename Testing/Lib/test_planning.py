"""The plan of a data set is a pure function of its fingerprint."""

from math import prod

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from UNetSegmentationLib.planning import PATCH_VOXELS, Fingerprint, make_plan, network_shape_for

STATISTICS = {"mean": 40.0, "std": 20.0, "lower": -100.0, "upper": 300.0}


def fingerprint(shape, spacing_mm, channels=1):
    return Fingerprint(
        shapes=(shape,), spacings_mm=(spacing_mm,), channels=channels, foreground=(STATISTICS,) * channels
    )


def test_the_hippocampus_plan_is_nnunets():
    # nnU-Net v2 plans Task04 with patch 40 x 56 x 40, 1 mm and three halvings of every axis.
    plan = make_plan(fingerprint((35, 50, 36), (1.0, 1.0, 1.0)), "mri")
    assert plan.patch_size == (40, 56, 40)
    assert plan.spacing_mm == (1.0, 1.0, 1.0)
    assert network_shape_for(plan)["strides"] == [[1, 1, 1], [2, 2, 2], [2, 2, 2], [2, 2, 2]]


@given(
    st.tuples(st.integers(2, 600), st.integers(8, 600), st.integers(8, 600)),
    st.tuples(*[st.floats(0.3, 8.0)] * 3),
    st.sampled_from(("mri", "ct")),
)
@settings(deadline=None)
def test_every_3d_plan_can_be_trained(shape, spacing_mm, preset):
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


@pytest.mark.parametrize("spacing_mm", [(500.0, 0.3, 0.3), (40.0, 0.7, 0.7)])
@pytest.mark.parametrize("slices", [2, 4, 9])
def test_few_thick_slices_are_planned_in_finite_time(slices, spacing_mm):
    plan = make_plan(fingerprint((slices, 1000, 1000), spacing_mm), "mri")
    assert plan.dimensions == 2 or plan.patch_size[0] >= min(slices, 8)
    assert prod(plan.patch_size) < 2 * 96**3
