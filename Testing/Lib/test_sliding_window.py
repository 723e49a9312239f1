"""Tiles cover everything once, blend to one, and bring logits back without a shift."""

from dataclasses import replace
from itertools import pairwise, product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from UNetSegmentationLib.conventions import Tiling, conventions_of
from UNetSegmentationLib.conventions.nnunet import NNUNetTiling
from UNetSegmentationLib.conventions.parts.image_grid import labelmap_of_slabs, labelmap_on_grid, probabilities_on_grid
from UNetSegmentationLib.conventions.parts.nnunet_math import take_nearest_planes
from UNetSegmentationLib.conventions.parts.tiles import gaussian_weights, tile_starts
from UNetSegmentationLib.core.errors import CancelledError, InputError
from UNetSegmentationLib.core.task import Task
from UNetSegmentationLib.inference.sliding_window import logit_slabs, predict_logits
from UNetSegmentationLib.planning.plan import Normalization, Plan

SIZES = st.tuples(*[st.integers(1, 14)] * 3)
PATCHES = st.tuples(*[st.integers(1, 8)] * 3)
TILINGS = st.sampled_from([Tiling, NNUNetTiling])


class Identity(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Identity()

    def forward(self, image):
        return self.layer(image)


@given(st.integers(1, 500), st.integers(1, 200), st.floats(0, 0.95))
def test_tiles_cover_the_axis_and_overlap_as_asked(size, patch, overlap):
    if patch > size:
        with pytest.raises(InputError, match="pad the image"):
            tile_starts(size, patch, overlap)
        return
    starts = tile_starts(size, patch, overlap)
    assert starts[0] == 0
    assert starts[-1] == size - patch
    steps = np.diff(starts)
    assert (steps > 0).all()
    # Rounding to whole voxels may cost half a voxel of overlap on either side.
    assert (steps <= max(1.0, patch * (1 - overlap)) + 1).all()


@given(SIZES, PATCHES, st.floats(0, 0.8))
@settings(deadline=None, max_examples=60)
def test_an_identity_network_reproduces_any_volume(size, patch, overlap):
    image = torch.randn(2, *size, generator=torch.Generator().manual_seed(1))
    logits = predict_logits(Identity(), image, Tiling(patch_size=patch, overlap=overlap))
    torch.testing.assert_close(logits, image, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_logits_of_a_class_do_not_depend_on_how_many_there_are_and_how_they_lie(dtype):
    class ChannelsLast(nn.Module):
        def forward(self, image):
            return image.contiguous(memory_format=torch.channels_last_3d)

    image = torch.randn(40, 9, 11, 10, generator=torch.Generator().manual_seed(1))
    tiling = Tiling(patch_size=(4, 6, 5))
    many = predict_logits(ChannelsLast(), image, tiling, dtype=dtype)
    few = predict_logits(Identity(), image[:3], tiling, dtype=dtype)
    torch.testing.assert_close(many[:3], few)


@pytest.mark.parametrize("axes", [(0,), (1, 2), (0, 1, 2)])
def test_mirroring_is_undone_before_averaging(axes):
    image = torch.randn(1, 7, 9, 8, generator=torch.Generator().manual_seed(2))
    logits = predict_logits(Identity(), image, Tiling(patch_size=(4, 4, 4), mirror_axes=axes))
    torch.testing.assert_close(logits, image, atol=1e-5, rtol=1e-4)


def test_a_2d_network_sees_slices():
    seen = []

    class Slices(Identity):
        def forward(self, image):
            seen.append(tuple(image.shape))
            return super().forward(image)

    image = torch.randn(1, 3, 9, 8, generator=torch.Generator().manual_seed(3))
    logits = predict_logits(Slices(), image, Tiling(patch_size=(1, 4, 4), dimensions=2))
    torch.testing.assert_close(logits, image, atol=1e-5, rtol=1e-4)
    assert set(seen) == {(1, 1, 4, 4)}


@given(PATCHES)
def test_blending_weights_peak_in_the_middle_and_vanish_nowhere(patch):
    weights = gaussian_weights(patch)
    assert weights.min() > 0
    assert weights.max() <= 1
    middle = tuple((extent - 1) // 2 for extent in patch)
    assert weights[middle] == weights.max()
    torch.testing.assert_close(weights, weights.flip(0, 1, 2))


def test_the_gaussian_has_an_eighth_of_the_patch_as_its_width():
    weights = gaussian_weights((1, 1, 65))[0, 0].double()
    offset = 8
    expected = np.exp(-0.5 * (offset / (65 / 8)) ** 2)
    assert float(weights[32 + offset]) == pytest.approx(expected, rel=1e-5)


@given(SIZES, SIZES, st.integers(2, 4), st.integers(1, 5))
@settings(deadline=None, max_examples=60)
def test_labels_on_another_grid_equal_interpolation_then_argmax(size, target, classes, slices):
    logits = torch.randn(classes, *size, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    whole = F.interpolate(logits[None], size=target, mode="trilinear", align_corners=False)[0]
    labelmap = labelmap_on_grid(logits, target, slices_at_once=slices)
    top = whole.topk(2, dim=0).values
    is_clear = (top[0] - top[1] > 1e-9).numpy()
    np.testing.assert_array_equal(labelmap[is_clear], whole.argmax(dim=0).numpy()[is_clear])
    assert labelmap.shape == target


def test_probabilities_add_up_to_one():
    logits = torch.randn(3, 4, 5, 6, generator=torch.Generator().manual_seed(5))
    probabilities = probabilities_on_grid(logits, (7, 5, 9))
    assert probabilities.shape == (3, 7, 5, 9)
    np.testing.assert_allclose(probabilities.astype(np.float32).sum(axis=0), 1, atol=2e-3)


def test_progress_rises_to_one_and_cancelling_stops_at_the_next_layer():
    image, shares = torch.rand(1, 8, 8, 8), []
    tiling = Tiling(patch_size=(4, 4, 4))
    predict_logits(Identity(), image, tiling, task=Task(lambda event: shares.append(event["fraction"])))
    assert shares == sorted(shares)
    assert shares[-1] == 1
    calls = iter([False, False, True])
    network = Identity()
    with pytest.raises(CancelledError):
        predict_logits(network, image, tiling, task=Task(is_cancelled=lambda: next(calls)))
    # The question is asked by hooks, which are gone afterwards.
    predict_logits(network, image, Tiling(patch_size=(8, 8, 8)))


def test_overlap_out_of_range_is_refused():
    with pytest.raises(InputError, match="0 to below 1"):
        tile_starts(10, 5, 1.0)


class Counting(nn.Module):
    """Two classes from the image, and how often it was asked."""

    def __init__(self):
        super().__init__()
        self.calls = 0

    def forward(self, image):
        self.calls += 1
        return torch.cat([image.mean() - image, image * image.std(correction=0)], dim=1)


@given(SIZES, PATCHES, st.floats(0, 0.8), TILINGS)
@settings(deadline=None, max_examples=60)
def test_slabs_are_the_blended_tiles_in_order(size, patch, overlap, kind):
    image = torch.randn(1, *size, generator=torch.Generator().manual_seed(1))
    tiling = kind(patch_size=patch, overlap=overlap)
    slabs = [slab.clone() for slab in logit_slabs(Counting(), image, tiling)]
    extents = [max(extent, tile) for extent, tile in zip(size, patch, strict=True)]
    starts = [tile_starts(extent, tile, overlap) for extent, tile in zip(extents, patch, strict=True)]
    missing = [extent - inner for extent, inner in zip(extents, size, strict=True)]
    padded = F.pad(image, [side for gap in reversed(missing) for side in (gap // 2, gap - gap // 2)])
    weights = tiling.weights(patch)
    total, weight_sum = torch.zeros(2, *extents), torch.zeros(extents)
    for corner in product(*starts):
        place = tuple(slice(at, at + tile) for at, tile in zip(corner, patch, strict=True))
        total[(slice(None), *place)] += Counting()(padded[(slice(None), *place)][None])[0] * weights
        weight_sum[place] += weights
    inner = tuple(slice(gap // 2, gap // 2 + extent) for gap, extent in zip(missing, size, strict=True))
    expected = (total / weight_sum)[(slice(None), *inner)]
    torch.testing.assert_close(torch.cat(slabs, dim=1), expected, atol=1e-5, rtol=1e-4)
    assert all(slab.shape[1] <= patch[0] for slab in slabs)


@given(SIZES, SIZES, st.lists(st.integers(1, 4), max_size=6), st.sampled_from([None, 0, 1, 2]), st.booleans())
@settings(deadline=None, max_examples=100)
def test_labels_of_slabs_equal_those_of_all_logits(size, target, cuts, across, has_regions):
    logits = torch.randn(3, *size, generator=torch.Generator().manual_seed(6))
    output = "regions" if has_regions else "labels"
    borders = sorted({0, size[0], *(cut for cut in np.cumsum(cuts).tolist() if cut < size[0])})
    slabs = (logits[:, first:last] for first, last in pairwise(borders))
    found = labelmap_of_slabs(slabs, size[0], target, output=output, across=across, slices_at_once=3)
    planes = logits if across is None else take_nearest_planes(logits, across, target[across])
    np.testing.assert_array_equal(found, labelmap_on_grid(planes, target, output=output))


def test_sums_in_half_precision_find_the_same_where_one_class_clearly_wins():
    image = torch.randn(1, 20, 17, 19, generator=torch.Generator().manual_seed(7))
    for tiling in (Tiling(patch_size=(8, 8, 8)), NNUNetTiling(patch_size=(8, 8, 8))):
        exact = predict_logits(Counting(), image, tiling)
        half = predict_logits(Counting(), image, tiling, dtype=torch.float16)
        is_clear = (exact[0] - exact[1]).abs() > 0.2
        assert is_clear.float().mean() > 0.9
        assert torch.equal((half[0] > half[1])[is_clear], (exact[0] > exact[1])[is_clear])


def test_tiles_of_one_value_are_forwarded_once_and_give_the_same():
    image = torch.zeros(2, 32, 16, 16)
    image[:, 20:] = torch.randn(2, 12, 16, 16, generator=torch.Generator().manual_seed(8))
    image[1] = torch.nan  # a channel that is missing

    class First(Counting):
        def forward(self, image):
            return super().forward(image[:, :1])

    network, all_tiles = First(), First()
    tiling = Tiling(patch_size=(8, 8, 8), overlap=0.0)
    logits = predict_logits(network, image, tiling)
    parts = [image[:, at : at + 8] for at in range(0, 32, 8)]
    expected = torch.cat([predict_logits(all_tiles, part, tiling) for part in parts], dim=1)
    torch.testing.assert_close(logits, expected)
    assert network.calls == 1 + 8


@pytest.mark.parametrize(
    ("patch", "shape", "alignment", "expected"),
    [
        ((64, 64, 64), (20, 256, 256), (16, 16, 16), (32, 64, 64)),
        ((64, 64, 64), (1, 33, 32), (16, 16, 16), (32, 64, 32)),
        ((40, 56, 40), (31, 50, 30), (8, 8, 8), (40, 56, 40)),
        ((24, 96, 96), (3, 96, 96), (4, 16, 16), (8, 96, 96)),
        ((1, 256, 256), (30, 100, 120), (32, 32), (1, 128, 128)),
    ],
)
def test_a_tile_is_as_deep_as_a_thin_stack_needs(patch, shape, alignment, expected):
    plan = Plan(
        dimensions=len(alignment),
        spacing_mm=(1.0, 1.0, 1.0),
        patch_size=patch,
        batch_size=1,
        orientation="RAS",
        normalization=(Normalization(scheme="zscore"),),
    )
    assert conventions_of(plan).tiling(shape, alignment).patch_size == expected
    theirs = conventions_of(replace(plan, conventions="nnunet"))
    assert theirs.tiling(shape, alignment).patch_size == patch
