"""Laws of space: turning axes, resampling and cropping never move a voxel."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from UNetSegmentationLib.core.errors import InputError
from UNetSegmentationLib.image.geometry import (
    AxisOrder,
    Volume,
    canonical_order,
    clear_outside,
    crop_to_region,
    region_of_box,
    resampled_shape,
    same_grid,
    to_canonical,
)

SIZES = st.tuples(*[st.integers(1, 6)] * 3)
SPACINGS = st.tuples(*[st.floats(0.3, 7.0)] * 3)
ANGLES = st.tuples(*[st.floats(-180, 180)] * 3)
FLIPS = st.tuples(*[st.sampled_from((-1.0, 1.0))] * 3)
ORIGINS = st.tuples(*[st.floats(-300, 300)] * 3)


def affine_of(spacing_xyz, angles_deg=(0.0, 0.0, 0.0), flips=(1.0, 1.0, 1.0), origin=(0.0, 0.0, 0.0)):
    affine = np.eye(4)
    rotation = Rotation.from_euler("xyz", angles_deg, degrees=True).as_matrix()
    affine[:3, :3] = rotation * np.array(spacing_xyz) * np.array(flips)
    affine[:3, 3] = origin
    return affine


def numbered(shape):
    return np.arange(np.prod(shape), dtype=np.int32).reshape(1, *shape)


def positions(volume):
    """Return {voxel value: position in RAS millimetres}; values are unique."""
    depth, height, width = np.indices(volume.shape).reshape(3, -1)
    points = volume.affine_ras @ np.stack([width, height, depth, np.ones_like(depth)])
    return dict(zip(volume.array[0].ravel().tolist(), points[:3].T.round(6).tolist(), strict=True))


volumes = st.builds(
    lambda shape, *geometry: Volume(numbered(shape), affine_of(*geometry)), SIZES, SPACINGS, ANGLES, FLIPS, ORIGINS
)


@given(volumes)
def test_turning_to_canonical_order_moves_no_voxel(volume):
    turned, _ = to_canonical(volume)
    before, after = positions(volume), positions(turned)
    assert before.keys() == after.keys()
    for value, point in before.items():
        assert after[value] == pytest.approx(point, abs=1e-4)


@given(volumes)
def test_undoing_the_turn_restores_the_stored_array(volume):
    turned, order = to_canonical(volume)
    np.testing.assert_array_equal(order.undo(turned.array), volume.array)


@given(volumes)
def test_canonical_axes_run_to_right_anterior_and_superior(volume):
    turned, _ = to_canonical(volume)
    directions = turned.affine_ras[:3, :3] / np.linalg.norm(turned.affine_ras[:3, :3], axis=0)
    assert (np.diag(directions) >= -1e-9).all()
    # No other assignment of axes agrees better with the patient's.
    agreement = np.abs(directions)
    best = max(
        sum(agreement[i, p[i]] for i in range(3))
        for p in ((0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0))
    )
    assert np.trace(agreement) == pytest.approx(best, abs=1e-9)


@given(st.permutations((0, 1, 2)), st.tuples(*[st.booleans()] * 3), SIZES)
def test_every_stored_order_of_one_volume_has_the_same_canonical_form(axes, flips, shape):
    canonical = Volume(numbered(shape), affine_of((0.7, 1.3, 2.9), (4.0, -7.0, 3.0), origin=(5, 6, 7)))
    order = AxisOrder(tuple(axes), flips)
    stored_array = order.undo(canonical.array)
    affine = canonical.affine_ras.copy()
    for axis in range(3):
        step = canonical.affine_ras[:3, 2 - axis]
        affine[:3, 2 - axes[axis]] = -step if flips[axis] else step
        if flips[axis]:
            affine[:3, 3] += step * (canonical.shape[axis] - 1)
    turned, found = to_canonical(Volume(stored_array, affine))
    assert found == order
    np.testing.assert_array_equal(turned.array, canonical.array)
    np.testing.assert_allclose(turned.affine_ras, canonical.affine_ras, atol=1e-9)


@given(SPACINGS, ANGLES, FLIPS)
def test_spacing_is_read_off_any_rotation(spacing, angles, flips):
    volume = Volume(numbered((2, 2, 2)), affine_of(spacing, angles, flips))
    assert volume.spacing_mm == pytest.approx(spacing[::-1])


@given(SIZES, SPACINGS, SPACINGS)
def test_resampled_sizes_keep_the_extent_to_half_a_voxel(shape, spacing, target):
    for size, old, new, result in zip(shape, spacing, target, resampled_shape(shape, spacing, target), strict=True):
        assert result >= 1
        assert abs(result * new - size * old) <= max(new / 2, new - size * old) + 1e-9


def test_oblique_axes_never_claim_the_same_direction():
    affine = affine_of((1.0, 1.0, 1.0), (45.0, 45.0, 45.0))
    assert sorted(canonical_order(affine).axes) == [0, 1, 2]


def test_same_grid_notices_a_shift_of_a_hundredth_of_a_millimetre():
    volume = Volume(numbered((3, 4, 5)), affine_of((1, 2, 3)))
    moved = Volume(volume.array, affine_of((1, 2, 3), origin=(0.01, 0, 0)))
    assert same_grid(volume, volume)
    assert not same_grid(volume, moved)
    assert not same_grid(volume, Volume(numbered((3, 4, 6)), volume.affine_ras))


@pytest.mark.parametrize(
    ("array", "affine", "words"),
    [
        (np.zeros((2, 3, 4)), np.eye(4), "channels, depth, height, width"),
        (np.zeros((1, 0, 3, 4)), np.eye(4), "channels, depth, height, width"),
        (np.zeros((1, 2, 3, 4)), np.full((4, 4), np.nan), "finite 4x4 affine"),
        (np.zeros((1, 2, 3, 4)), np.diag((0.0, 1, 1, 1)), "degenerate"),
        (np.zeros((1, 2, 3, 4)), np.array([[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]]), "degenerate"),
    ],
)
def test_impossible_volumes_are_refused(array, affine, words):
    with pytest.raises(InputError, match=words):
        Volume(array, affine)


@given(volumes, st.tuples(*[st.floats(0.01, 20.0)] * 3), st.data())
def test_a_crop_moves_no_voxel_and_holds_every_voxel_of_the_box(volume, radii, data):
    before = positions(volume)
    centre = before[data.draw(st.sampled_from(sorted(before)))]
    crop, where = crop_to_region(volume, region_of_box(tuple(centre), radii))
    after = positions(crop)
    for value, point in after.items():
        assert point == pytest.approx(before[value], abs=1e-4)
    inside = {v for v, p in before.items() if all(abs(a - b) <= r for a, b, r in zip(p, centre, radii, strict=True))}
    assert inside <= after.keys()
    assert np.array_equal(volume.array[(slice(None), *where)], crop.array)


def test_a_crop_along_the_axes_is_the_box_and_no_more():
    volume = Volume(numbered((10, 10, 10)), affine_of((2.0, 1.0, 1.0)))
    crop, where = crop_to_region(volume, region_of_box((8.0, 5.0, 5.0), (2.0, 1.4, 0.5)))
    assert where == (slice(5, 6), slice(4, 7), slice(3, 6))
    assert crop.shape == (1, 3, 3)


def test_a_crop_outside_the_volume_says_how_far_it_reaches():
    volume = Volume(numbered((4, 4, 4)), affine_of((1.0, 1.0, 1.0)))
    with pytest.raises(InputError, match=r"outside the image, which extends from R -0"):
        crop_to_region(volume, region_of_box((50.0, 0.0, 0.0), (5.0, 5.0, 5.0)))
    with pytest.raises(InputError, match=r"radii .* above 0"):
        region_of_box((0.0, 0.0, 0.0), (5.0, 0.0, 5.0))


@given(volumes, ANGLES, st.tuples(*[st.floats(0.01, 20.0)] * 3), st.data())
def test_exactly_the_voxels_with_their_centre_in_an_oblique_region_remain(volume, angles, radii, data):
    before = positions(volume)
    region = affine_of(radii, angles)
    region[:3, 3] = before[data.draw(st.sampled_from(sorted(before)))]
    distance = {value: np.abs(np.linalg.solve(region, (*point, 1.0))[:3]).max() for value, point in before.items()}
    crop, _where = crop_to_region(volume, region)
    marked = crop.array[0] + 1
    clear_outside(marked, crop.affine_ras, region)
    remaining = set((marked[marked > 0] - 1).tolist())
    assert {value for value, ratio in distance.items() if ratio < 1 - 1e-4} <= remaining
    assert remaining <= {value for value, ratio in distance.items() if ratio < 1 + 1e-4}


@pytest.mark.parametrize("region", [np.diag((1.0, 1.0, 0.0, 1.0)), np.eye(3), np.full((4, 4), np.inf)])
def test_a_region_without_size_is_refused(region):
    volume = Volume(numbered((4, 4, 4)), np.eye(4))
    with pytest.raises(InputError, match="the region is empty: give a box with three lengths above 0"):
        crop_to_region(volume, region)
