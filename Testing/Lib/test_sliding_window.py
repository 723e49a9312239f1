"""Tiles cover everything once, blend to one, and bring logits back without a shift."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from UNetSegmentationLib.errors import CancelledError, InputError
from UNetSegmentationLib.sliding_window import (
    gaussian_weights,
    labelmap_on_grid,
    predict_logits,
    probabilities_on_grid,
    tile_starts,
)

SIZES = st.tuples(*[st.integers(1, 14)] * 3)
PATCHES = st.tuples(*[st.integers(1, 8)] * 3)


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
    logits = predict_logits(Identity(), image, patch_size=patch, dimensions=3, overlap=overlap)
    torch.testing.assert_close(logits, image, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("axes", [(0,), (1, 2), (0, 1, 2)])
def test_mirroring_is_undone_before_averaging(axes):
    image = torch.randn(1, 7, 9, 8, generator=torch.Generator().manual_seed(2))
    logits = predict_logits(Identity(), image, patch_size=(4, 4, 4), dimensions=3, mirror_axes=axes)
    torch.testing.assert_close(logits, image, atol=1e-5, rtol=1e-4)


def test_a_2d_network_sees_slices():
    seen = []

    class Slices(Identity):
        def forward(self, image):
            seen.append(tuple(image.shape))
            return super().forward(image)

    image = torch.randn(1, 3, 9, 8, generator=torch.Generator().manual_seed(3))
    logits = predict_logits(Slices(), image, patch_size=(1, 4, 4), dimensions=2)
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
    image, shares = torch.zeros(1, 8, 8, 8), []
    predict_logits(Identity(), image, patch_size=(4, 4, 4), dimensions=3, on_progress=shares.append)
    assert shares == sorted(shares)
    assert shares[-1] == 1
    calls = iter([False, False, True])
    network = Identity()
    with pytest.raises(CancelledError):
        predict_logits(network, image, patch_size=(4, 4, 4), dimensions=3, is_cancelled=lambda: next(calls))
    # The question is asked by hooks, which are gone afterwards.
    predict_logits(network, image, patch_size=(8, 8, 8), dimensions=3)


def test_overlap_out_of_range_is_refused():
    with pytest.raises(InputError, match="0 to below 1"):
        tile_starts(10, 5, 1.0)
