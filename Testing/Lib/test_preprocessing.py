"""The network's grid: sizes, intensities, and the way back."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from UNetSegmentationLib.conventions import prepare
from UNetSegmentationLib.conventions.parts.intensity import normalize
from UNetSegmentationLib.conventions.parts.resampling import resample_image, resample_labels
from UNetSegmentationLib.core.errors import CancelledError, InputError
from UNetSegmentationLib.core.task import Task
from UNetSegmentationLib.image.geometry import Volume
from UNetSegmentationLib.planning.plan import Normalization, Plan

SIZES = st.tuples(*[st.integers(1, 12)] * 3)


def plan_of(**changes):
    values = {
        "dimensions": 3,
        "spacing_mm": (2.0, 1.0, 1.0),
        "patch_size": (8, 8, 8),
        "batch_size": 2,
        "orientation": "RAS",
        "normalization": (Normalization(scheme="zscore"),),
    }
    return Plan(**{**values, **changes})


@given(SIZES, SIZES)
@settings(deadline=None)
def test_resampling_keeps_a_constant_and_the_range(size, target):
    image = torch.rand(2, *size, generator=torch.Generator().manual_seed(0))
    result = resample_image(image, target)
    assert result.shape == (2, *target)
    assert result.min() >= image.min() - 1e-5
    assert result.max() <= image.max() + 1e-5
    torch.testing.assert_close(resample_image(torch.full((1, *size), 3.0), target), torch.full((1, *target), 3.0))


def test_resampling_does_not_move_a_ramp():
    # Positions in units of the extent: a linear ramp must stay the same function of position.
    size, target = 40, 25
    image = ((torch.arange(size) + 0.5) / size).expand(1, 1, 1, size).contiguous()
    expected = (torch.arange(target) + 0.5) / target
    torch.testing.assert_close(resample_image(image, (1, 1, target))[0, 0, 0, 2:-2], expected[2:-2], atol=1e-4, rtol=0)


def test_detail_finer_than_the_new_grid_is_averaged_out():
    stripes = (torch.arange(64) % 2).float().expand(1, 1, 1, 64).contiguous()
    coarse = resample_image(stripes, (1, 1, 16))[0, 0, 0]
    torch.testing.assert_close(coarse[1:-1], torch.full((14,), 0.5), atol=0.02, rtol=0)


@given(SIZES, SIZES)
@settings(deadline=None)
def test_resampled_labels_are_labels_of_the_source(size, target):
    labels = torch.randint(-1, 9, size, generator=torch.Generator().manual_seed(1), dtype=torch.int16)
    result = resample_labels(labels, target)
    assert result.shape == target
    assert set(result.unique().tolist()) <= set(labels.unique().tolist())


@given(st.floats(0.1, 1000), st.floats(-1000, 1000))
def test_zscore_ignores_scale_and_offset(scale, offset):
    image = np.random.default_rng(0).normal(size=(4, 5, 6)).astype(np.float64)
    scheme = Normalization(scheme="zscore")
    torch.testing.assert_close(
        normalize(image * scale + offset, scheme), normalize(image, scheme), atol=2e-2, rtol=1e-2
    )


def test_ct_clips_and_scales_by_the_training_foreground():
    scheme = Normalization(scheme="ct", mean=50.0, std=25.0, lower=-100.0, upper=200.0)
    result = normalize(np.array([[[-1024, -100, 50, 75, 3000]]], np.int16), scheme)
    assert result.flatten().tolist() == [-6.0, -6.0, 0.0, 1.0, 6.0]


def test_percentiles_stretch_to_zero_and_one():
    result = normalize(np.arange(1001, dtype=np.uint16).reshape(1, 7, 143), Normalization(scheme="percentile"))
    assert float(result.min()) == 0
    assert float(result.max()) == 1
    assert float(result.flatten()[500]) == pytest.approx(0.5, abs=1e-3)


def test_normalising_leaves_the_volume_alone():
    image = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    before = image.copy()
    for scheme in ("zscore", "percentile"):
        normalize(image, Normalization(scheme=scheme))
    np.testing.assert_array_equal(image, before)


def test_a_plan_sets_the_spacing_of_the_turned_volume():
    # Stored as (x, z, y): the longest spacing lies along the second array axis.
    affine = np.eye(4)
    affine[:3, :3] = np.array([[0, 0, 1.0], [1.0, 0, 0], [0, 3.0, 0]])
    volume = Volume(np.random.default_rng(0).random((1, 6, 8, 10)), affine)
    prepared = prepare(volume, plan_of())
    assert prepared.shape == (8, 10, 6)
    assert prepared.image.shape == (1, 12, 10, 6)
    assert prepared.spacing_mm == pytest.approx((2.0, 1.0, 1.0))
    np.testing.assert_array_equal(prepared.order.undo(prepared.order.apply(volume.array)), volume.array)


@pytest.mark.parametrize("conventions", ["own", "nnunet"])
def test_channels_are_prepared_as_each_would_be_alone(conventions):
    array = np.random.default_rng(0).integers(1, 100, (3, 12, 14, 9)).astype(np.int16)
    schemes = tuple(Normalization(scheme=name) for name in ("zscore", "none", "rescale"))
    plan = plan_of(normalization=schemes, conventions=conventions, spacing_mm=(2.5, 1.7, 0.8))
    together = prepare(Volume(array, np.eye(4)), plan)
    for index, scheme in enumerate(schemes):
        alone = prepare(
            Volume(array[index : index + 1], np.eye(4)), plan_of(**{**vars(plan), "normalization": (scheme,)})
        )
        assert torch.equal(together.image[index], alone.image[0])
        assert together.padding[index] == alone.padding[0]
    assert together.padding.tolist() == [0.0, array[1].min() if conventions == "own" else 0.0, 0.0]


def test_a_radiograph_is_brought_to_its_longest_side():
    volume = Volume(np.random.default_rng(0).random((1, 1, 300, 200)), np.diag((0.1, 0.1, 1, 1)))
    plan = plan_of(dimensions=2, patch_size=(1, 8, 8), orientation="stored", longest_side=60, spacing_mm=(0, 0, 0))
    assert prepare(volume, plan).image.shape == (1, 1, 60, 40)


@pytest.mark.parametrize("conventions", ["own", "nnunet"])
def test_a_spacing_in_the_wrong_unit_is_noticed_before_memory_runs_out(conventions):
    volume = Volume(np.random.default_rng(0).random((1, 30, 40, 50)) + 1, np.diag((1e6, 1e6, 1e6, 1.0)))
    with pytest.raises(InputError, match=r"50000000 voxels at the model's spacing: fix the spacing"):
        prepare(volume, plan_of(conventions=conventions))


def test_the_number_of_channels_must_fit():
    with pytest.raises(InputError, match=r"has 2 channel\(s\), but the model needs 1"):
        prepare(Volume(np.zeros((2, 3, 4, 5)), np.eye(4)), plan_of())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"dimensions": 4}, "dimensions is 4"),
        ({"spacing_mm": (-1.0, 1, 1)}, "spacing_mm"),
        ({"patch_size": (0, 8, 8)}, "patch_size"),
        ({"dimensions": 2}, "depth 1"),
        ({"batch_size": 0}, "batch_size"),
        ({"orientation": "LPP"}, "orientation is 'LPP'"),
        ({"normalization": ()}, "normalization"),
        ({"mirror_axes": (3,)}, "mirror_axes"),
        ({"longest_side": -1}, "longest_side"),
    ],
)
def test_impossible_plans_are_refused(changes, words):
    with pytest.raises(InputError, match=words):
        plan_of(**changes)


def test_a_plan_survives_json():
    plan = plan_of(mirror_axes=(0, 2))
    assert Plan.from_dict(plan.to_dict()) == plan
    with pytest.raises(InputError, match="has no field colour"):
        Plan.from_dict({**plan.to_dict(), "colour": 1})


def test_ct_needs_statistics():
    with pytest.raises(InputError, match="std above 0"):
        Normalization(scheme="ct", std=0.0, upper=2.0)
    with pytest.raises(InputError, match="unknown: choose"):
        Normalization(scheme="histogram")


def test_coarser_images_are_blurred_as_scipy_does_it():
    image = torch.from_numpy(np.random.default_rng(0).normal(size=(2, 5, 9, 40)).astype(np.float32))
    sigma = (40 / 10 - 1) / 2
    offsets = np.arange(-round(3 * sigma), round(3 * sigma) + 1)
    kernel = np.exp(-0.5 * (offsets / sigma) ** 2)
    blurred = ndimage.correlate1d(image.numpy(), kernel / kernel.sum(), axis=3, mode="nearest")
    expected = blurred.reshape(2, 5, 9, 10, 4)[..., 1:3].mean(axis=-1)  # linear, half-way between the middle two
    torch.testing.assert_close(resample_image(image, (5, 9, 10)), torch.from_numpy(expected), atol=1e-5, rtol=0)


@pytest.mark.parametrize("asked_before", [0, 1, 2])
def test_preparation_stops_soon_after_it_is_cancelled(asked_before):
    answers = iter([False] * asked_before + [True])
    with pytest.raises(CancelledError):
        prepare(
            Volume(np.ones((1, 40, 40, 40), np.float32), np.diag((0.2, 0.2, 0.2, 1.0))),
            plan_of(),
            task=Task(is_cancelled=lambda: next(answers)),
        )
