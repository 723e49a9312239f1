"""Laws of the metrics: closed forms, symmetry, scaling, empty masks, and agreement with DeepMind and MONAI."""

from __future__ import annotations

import warnings
from math import inf, isnan, nan, pi

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from UNetSegmentationLib.core.errors import InputError
from UNetSegmentationLib.evaluation.metrics import (
    SurfaceDistances,
    dice,
    evaluate_case,
    iou,
    measure_surfaces,
    relative_volume_difference,
    summarize,
    volume_difference_mm3,
)
from UNetSegmentationLib.evaluation.metrics.surface_elements import contour_lengths_mm, surface_areas_mm2
from UNetSegmentationLib.image.labels import Label

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import surface_distance as deepmind
    from monai import metrics as monai_metrics

SPACINGS = [(1.0, 1.0, 1.0), (3.0, 0.75, 1.25)]
mask_pairs = hnp.array_shapes(min_dims=3, max_dims=3, max_side=7).flatmap(
    lambda shape: st.tuples(hnp.arrays(np.bool_, shape), hnp.arrays(np.bool_, shape))
)
spacings = st.tuples(*[st.sampled_from([0.5, 0.7, 1.0, 2.0, 5.0])] * 3)


def draw_blobs(shape=(20, 24, 17), *, sigma=2.0, seed=0):
    """Return two smooth random masks that resemble each other."""
    generator = np.random.default_rng(seed)
    base, noise = (ndimage.gaussian_filter(generator.standard_normal(shape), sigma) for _ in range(2))
    return base > 0.5 * base.std(), base + 0.4 * noise > 0.5 * base.std()


def ball(size, centre, radius_mm, spacing_mm):
    grid = np.stack(np.meshgrid(*[np.arange(n) for n in size], indexing="ij"), axis=-1)
    return np.linalg.norm((grid - centre) * spacing_mm, axis=-1) <= radius_mm


def box(size, corner, extent):
    mask = np.zeros(size, bool)
    mask[tuple(slice(c, c + e) for c, e in zip(corner, extent, strict=True))] = True
    return mask


def by_deepmind(prediction, reference, spacing_mm):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return deepmind.compute_surface_distances(reference, prediction, spacing_mm)


# Agreement


@pytest.mark.parametrize("spacing_mm", SPACINGS)
@pytest.mark.parametrize("sigma", [0.0, 1.0, 3.0])
@pytest.mark.parametrize("is_2d", [False, True])
def test_surface_measures_equal_deepmind(spacing_mm, sigma, is_2d):
    prediction, reference = draw_blobs((1, 40, 33) if is_2d else (20, 24, 17), sigma=sigma, seed=3)
    ours = measure_surfaces(prediction, reference, spacing_mm=spacing_mm)
    if is_2d:
        prediction, reference, spacing_mm = prediction[0], reference[0], spacing_mm[1:]
    theirs = by_deepmind(prediction, reference, spacing_mm)
    for percent in (50, 80, 95, 100):
        expected = deepmind.compute_robust_hausdorff(theirs, percent)
        assert ours.hausdorff_mm(percent) == pytest.approx(expected, abs=1e-6)
    for tolerance_mm in (0, 0.8, 1.1, 2.6):
        expected = deepmind.compute_surface_dice_at_tolerance(theirs, tolerance_mm)
        assert ours.surface_dice(tolerance_mm) == pytest.approx(expected, abs=1e-6)
    averages = deepmind.compute_average_surface_distance(theirs)
    areas = theirs["surfel_areas_gt"].sum(), theirs["surfel_areas_pred"].sum()
    expected = (averages[0] * areas[0] + averages[1] * areas[1]) / sum(areas)
    assert ours.average_mm() == pytest.approx(expected, abs=1e-6)
    assert dice(prediction, reference) == pytest.approx(deepmind.compute_dice_coefficient(reference, prediction))


@pytest.mark.filterwarnings("ignore:monai:FutureWarning")
@pytest.mark.parametrize("spacing_mm", SPACINGS)
@pytest.mark.parametrize("sigma", [1.0, 3.0])
def test_measures_equal_monai(spacing_mm, sigma):
    prediction, reference = draw_blobs(sigma=sigma, seed=5)
    one_hot = [torch.from_numpy(np.stack([~m, m]))[None].float() for m in (prediction, reference)]
    voxels = measure_surfaces(prediction, reference, spacing_mm=spacing_mm, surface="voxels")
    elements = measure_surfaces(prediction, reference, spacing_mm=spacing_mm)
    options = {"include_background": False, "spacing": spacing_mm}
    expected = {
        "hausdorff": monai_metrics.compute_hausdorff_distance(*one_hot, **options),
        "average": monai_metrics.compute_average_surface_distance(*one_hot, symmetric=True, **options),
        "surface dice": monai_metrics.compute_surface_dice(
            *one_hot, class_thresholds=[1.1], use_subvoxels=True, **options
        ),
        "dice": monai_metrics.compute_dice(*one_hot, include_background=False),
        "iou": monai_metrics.compute_iou(*one_hot, include_background=False),
    }
    ours = {
        "hausdorff": voxels.hausdorff_mm(),
        "average": voxels.average_mm(),
        "surface dice": elements.surface_dice(1.1),
        "dice": dice(prediction, reference),
        "iou": iou(prediction, reference),
    }
    for name, value in expected.items():
        assert ours[name] == pytest.approx(value.item(), abs=1e-6), name


@pytest.mark.parametrize("spacing_mm", SPACINGS)
def test_areas_of_elements_equal_deepmind(spacing_mm):
    from surface_distance import lookup_tables

    theirs = lookup_tables.create_table_neighbour_code_to_surface_area(spacing_mm)
    mirrored = [int(f"{code:08b}"[::-1], 2) for code in range(256)]
    np.testing.assert_allclose(surface_areas_mm2(spacing_mm), theirs[mirrored], atol=1e-12)
    theirs = lookup_tables.create_table_neighbour_code_to_contour_length(spacing_mm[1:])
    mirrored = [int(f"{code:04b}"[::-1], 2) for code in range(16)]
    np.testing.assert_allclose(contour_lengths_mm(spacing_mm[1:]), theirs[mirrored], atol=1e-12)


# Closed forms


@pytest.mark.parametrize("spacing_mm", SPACINGS)
@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("surface", ["elements", "voxels"])
def test_half_spaces_apart_by_a_step_are_that_far_apart(axis, spacing_mm, surface):
    extent = [12, 13, 14]
    extent[axis] = 4
    prediction = box((12, 13, 14), (0, 0, 0), extent)
    extent[axis] = 7
    reference = box((12, 13, 14), (0, 0, 0), extent)
    distances = measure_surfaces(prediction, reference, spacing_mm=spacing_mm, surface=surface)
    assert distances.hausdorff_mm() == pytest.approx(3 * spacing_mm[axis])
    assert volume_difference_mm3(prediction, reference, spacing_mm=spacing_mm) == pytest.approx(
        -3 * 12 * 13 * 14 / (12, 13, 14)[axis] * np.prod(spacing_mm)
    )


def test_shifted_box_has_dice_of_its_common_part():
    prediction, reference = box((10, 10, 10), (1, 1, 1), (4, 5, 6)), box((10, 10, 10), (2, 1, 1), (4, 5, 6))
    assert dice(prediction, reference) == pytest.approx(3 / 4)
    assert iou(prediction, reference) == pytest.approx(3 / 5)
    assert measure_surfaces(prediction, reference, spacing_mm=(2, 1, 1)).hausdorff_mm() == pytest.approx(2)


def test_concentric_balls_are_the_difference_of_their_radii_apart():
    spacing_mm = (1.5, 1.0, 1.0)
    outer, inner = (ball((40, 60, 60), (20, 30, 30), radius, spacing_mm) for radius in (24.0, 18.0))
    distances = measure_surfaces(outer, inner, spacing_mm=spacing_mm)
    for value in (distances.average_mm(), distances.hausdorff_mm(95), distances.hausdorff_mm()):
        assert value == pytest.approx(6, abs=1.0)
    assert dice(outer, inner) == pytest.approx(2 * 18**3 / (18**3 + 24**3), abs=0.01)
    assert relative_volume_difference(outer, inner) == pytest.approx((24 / 18) ** 3 - 1, abs=0.03)
    # Facets of a voxel surface overstate a ball's area, by less than a tenth.
    assert 1 < distances.prediction_areas.sum() / (4 * pi * 24**2) < 1.1


@given(
    extent=st.tuples(*[st.integers(2, 6)] * 3),
    spacing_mm=spacings,
)
@settings(max_examples=30, deadline=None)
def test_area_of_a_box_is_that_of_its_faces_with_edges_cut_off(extent, spacing_mm):
    mask = box([n + 2 for n in extent], (1, 1, 1), extent)
    (a, b, c), (n, m, k) = spacing_mm, extent
    faces = 2 * (b * c * (m - 1) * (k - 1) + a * c * (n - 1) * (k - 1) + a * b * (n - 1) * (m - 1))
    edges = 2 * ((n - 1) * a * np.hypot(b, c) + (m - 1) * b * np.hypot(a, c) + (k - 1) * c * np.hypot(a, b))
    corners = np.linalg.norm([b * c, a * c, a * b])
    distances = measure_surfaces(mask, mask, spacing_mm=spacing_mm)
    assert distances.prediction_areas.sum() == pytest.approx(faces + edges + corners)


def test_single_voxels_are_as_far_apart_as_their_centres():
    prediction, reference = box((9, 9, 9), (0, 1, 2), (1, 1, 1)), box((9, 9, 9), (3, 5, 2), (1, 1, 1))
    distances = measure_surfaces(prediction, reference, spacing_mm=(1, 1, 1), surface="voxels")
    assert distances.hausdorff_mm() == distances.average_mm() == 5


def test_tolerance_is_met_by_steps_that_add_up_to_it():
    prediction, reference = box((8, 1, 8), (0, 0, 0), (1, 1, 8)), box((8, 1, 8), (3, 0, 0), (1, 1, 8))
    distances = measure_surfaces(prediction, reference, spacing_mm=(0.1, 1, 1), surface="voxels")
    assert distances.surface_dice(0.3) == 1
    assert distances.surface_dice(0.29) == 0


def test_percentile_counts_by_area():
    distances = SurfaceDistances(
        prediction_mm=np.array([0.0, 1.0, 2.0]),
        prediction_areas=np.array([8.0, 1.0, 1.0]),
        reference_mm=np.array([0.0]),
        reference_areas=np.array([10.0]),
    )
    assert [distances.hausdorff_mm(p) for p in (50, 79, 85, 95, 100)] == [0, 0, 1, 2, 2]
    assert distances.average_mm() == pytest.approx(3 / 20)
    assert distances.surface_dice(1) == pytest.approx(19 / 20)


# Laws


@given(masks=mask_pairs, spacing_mm=spacings, surface=st.sampled_from(["elements", "voxels"]))
@settings(max_examples=60, deadline=None)
def test_measures_are_symmetric_bounded_and_ordered(masks, spacing_mm, surface):
    one = measure_surfaces(*masks, spacing_mm=spacing_mm, surface=surface)
    other = measure_surfaces(*reversed(masks), spacing_mm=spacing_mm, surface=surface)
    for name in ("hausdorff_mm", "average_mm"):
        assert getattr(one, name)() == pytest.approx(getattr(other, name)(), nan_ok=True)
    np.testing.assert_equal(dice(*masks), dice(*reversed(masks)))
    np.testing.assert_equal(iou(*masks), iou(*reversed(masks)))
    if masks[0].any() and masks[1].any():
        diagonal_mm = np.linalg.norm(np.array(masks[0].shape) * spacing_mm)
        assert 0 <= one.average_mm() <= one.hausdorff_mm() * (1 + 1e-12)
        assert one.hausdorff_mm(95) <= one.hausdorff_mm() <= diagonal_mm
        shares = [one.surface_dice(t) for t in (0, 0.6, 2, diagonal_mm)]
        assert shares == sorted(shares)
        assert shares[0] >= 0
        assert shares[-1] == pytest.approx(1)
        assert iou(*masks) <= dice(*masks) <= 1
        assert iou(*masks) == pytest.approx(dice(*masks) / (2 - dice(*masks)))


@given(masks=mask_pairs, spacing_mm=spacings, factor=st.sampled_from([0.25, 2.0, 8.0]))
@settings(max_examples=40, deadline=None)
def test_distances_scale_with_the_spacing(masks, spacing_mm, factor):
    one = measure_surfaces(*masks, spacing_mm=spacing_mm)
    scaled = measure_surfaces(*masks, spacing_mm=[factor * step for step in spacing_mm])
    assert scaled.hausdorff_mm() == pytest.approx(factor * one.hausdorff_mm(), nan_ok=True)
    assert scaled.average_mm() == pytest.approx(factor * one.average_mm(), nan_ok=True)
    assert scaled.surface_dice(factor) == pytest.approx(one.surface_dice(1), nan_ok=True)


@given(masks=mask_pairs)
@settings(max_examples=40, deadline=None)
def test_place_in_the_volume_and_surroundings_do_not_matter(masks):
    one = measure_surfaces(*(np.pad(m, 1) for m in masks), spacing_mm=(2, 1, 0.5))
    moved = measure_surfaces(*(np.pad(m, [(4, 1), (2, 7), (1, 3)]) for m in masks), spacing_mm=(2, 1, 0.5))
    np.testing.assert_array_equal(one.prediction_mm, moved.prediction_mm)
    np.testing.assert_array_equal(one.reference_areas, moved.reference_areas)


@pytest.mark.parametrize("surface", ["elements", "voxels"])
@pytest.mark.parametrize("case", ["near", "far", "many far", "everywhere"])
def test_every_way_to_the_nearest_element_equals_a_distance_map(case, surface):
    size = (50, 50, 50)
    reference = ball(size, (25, 25, 25), 23, (1, 1, 1))
    noise = np.random.default_rng(1).random(size) < 0.5
    prediction = {
        "near": ball(size, (25, 26, 25), 22, (1, 1, 1)),
        "far": box(size, (25, 25, 25), (2, 1, 1)),
        "many far": ball(size, (25, 25, 25), 8, (1, 1, 1)),
        "everywhere": noise,
    }[case]
    spacing_mm = (1.0, 0.5, 2.0)
    distances = measure_surfaces(prediction, reference, spacing_mm=spacing_mm, surface=surface)
    if surface == "elements":
        theirs = by_deepmind(prediction, reference, spacing_mm)
        expected = theirs["distances_pred_to_gt"], theirs["distances_gt_to_pred"]
    else:
        borders = [m & ~ndimage.binary_erosion(m) for m in (prediction, reference)]
        maps = [ndimage.distance_transform_edt(~border, sampling=spacing_mm) for border in borders]
        expected = np.sort(maps[1][borders[0]]), np.sort(maps[0][borders[1]])
    np.testing.assert_allclose(distances.prediction_mm, expected[0], atol=1e-12)
    np.testing.assert_allclose(distances.reference_mm, expected[1], atol=1e-12)


def test_two_dimensional_images_have_contours_without_flat_sides():
    disc = ball((1, 41, 41), (0, 20, 20), 15, (1, 1, 1))
    distances = measure_surfaces(disc, disc, spacing_mm=(5, 1, 1))
    assert distances.prediction_areas.sum() == pytest.approx(2 * pi * 15, rel=0.1)


def test_an_object_in_one_slice_of_a_volume_stays_three_dimensional():
    prediction = box((5, 12, 12), (2, 2, 2), (1, 6, 6)).astype(np.uint8)
    reference = box((5, 12, 12), (2, 2, 3), (1, 6, 6)).astype(np.uint8)
    measures = evaluate_case(prediction, reference, [1], (4.0, 1.0, 1.0), tolerance_mm=0.5)[1]
    expected = measure_surfaces(prediction > 0, reference > 0, spacing_mm=(4.0, 1.0, 1.0))
    flat = measure_surfaces(prediction[2:3] > 0, reference[2:3] > 0, spacing_mm=(4.0, 1.0, 1.0))
    assert measures["surface_dice"] == expected.surface_dice(0.5) != flat.surface_dice(0.5)


# Cases, empty masks, summary


def test_case_is_measured_label_by_label():
    generator = np.random.default_rng(2)
    prediction, reference = (generator.integers(0, 4, (9, 8, 7)).astype(np.int16) for _ in range(2))
    spacing_mm = (2.0, 1.0, 0.5)
    measures = evaluate_case(prediction, reference, [3, 1], spacing_mm, tolerance_mm=0.7)
    assert list(measures) == [3, 1]
    for value, row in measures.items():
        masks = prediction == value, reference == value
        distances = measure_surfaces(*masks, spacing_mm=spacing_mm)
        assert row == {
            "dice": dice(*masks),
            "iou": iou(*masks),
            "hd_mm": distances.hausdorff_mm(),
            "hd95_mm": distances.hausdorff_mm(95),
            "assd_mm": distances.average_mm(),
            "surface_dice": distances.surface_dice(0.7),
            "volume_difference_mm3": masks[0].sum() - masks[1].sum(),
            "relative_volume_difference": masks[0].sum() / masks[1].sum() - 1,
        } | {"relative_volume_difference": pytest.approx(masks[0].sum() / masks[1].sum() - 1)}


def test_labels_may_be_given_as_such_and_surfaces_left_out():
    labelmap = np.ones((2, 3, 4), np.uint16)
    label = Label(value=1, name="liver", color=(1, 2, 3))
    measures = evaluate_case(labelmap, labelmap, [label], (1, 1, 1), with_surfaces=False)
    assert measures == {1: {"dice": 1.0, "iou": 1.0, "volume_difference_mm3": 0.0, "relative_volume_difference": 0.0}}
    assert evaluate_case(labelmap, labelmap, [], (1, 1, 1)) == {}


@pytest.mark.parametrize("shape", [(6, 6, 6), (1, 6, 6)])
def test_empty_masks_give_what_the_table_says(shape):
    nothing, something = np.zeros(shape, np.uint8), np.zeros(shape, np.uint8)
    something[0, 1:4, 2] = 1
    ratios, distances = ("dice", "iou", "surface_dice"), ("hd_mm", "hd95_mm", "assd_mm")
    both = evaluate_case(nothing, nothing, [1], (2, 1, 1))[1]
    assert all(isnan(both[name]) for name in (*ratios, *distances, "relative_volume_difference"))
    assert both["volume_difference_mm3"] == 0
    for prediction, reference, change, relative in ((nothing, something, -6, -1), (something, nothing, 6, inf)):
        measures = evaluate_case(prediction, reference, [1], (2, 1, 1))[1]
        assert [measures[name] for name in ratios] == [0, 0, 0]
        assert [measures[name] for name in distances] == [inf, inf, inf]
        assert (measures["volume_difference_mm3"], measures["relative_volume_difference"]) == (change, relative)


def test_summary_counts_what_it_cannot_average():
    values = [1.0, 2.0, 6.0, inf, nan, nan]
    summary = summarize([{1: {"hd_mm": value}} for value in values])[1]["hd_mm"]
    expected = {"mean": inf, "median": 4.0, "finite_mean": 3.0, "count": 4, "undefined": 2, "infinite": 1}
    assert summary == expected
    nothing = summarize([{1: {"dice": nan}}])[1]["dice"]
    assert isnan(nothing["mean"])
    assert isnan(nothing["median"])
    assert summarize([{1: {"hd_mm": inf}}, {1: {"hd_mm": inf}}])[1]["hd_mm"]["median"] == inf
    assert summarize([]) == {}


def test_summary_keeps_labels_apart():
    summary = summarize([{1: {"dice": 0.5}, 2: {"dice": 1.0}}, {1: {"dice": 0.7}}])
    assert summary[1]["dice"]["mean"] == pytest.approx(0.6)
    assert summary[2]["dice"]["count"] == 1


# Errors


def test_wrong_masks_are_named():
    mask = np.ones((2, 3, 4), bool)
    with pytest.raises(InputError, match="differ in shape"):
        dice(mask, mask[:1])
    with pytest.raises(InputError, match="must be boolean"):
        iou(mask.astype(np.uint8), mask)
    with pytest.raises(InputError, match="spacings above 0"):
        measure_surfaces(mask, mask, spacing_mm=(1, 0, 1))
    with pytest.raises(InputError, match=r"need \(D, H, W\)"):
        measure_surfaces(mask[0], mask[0], spacing_mm=(1, 1))
    with pytest.raises(InputError, match="elements or voxels"):
        measure_surfaces(mask, mask, spacing_mm=(1, 1, 1), surface="mesh")
    distances = measure_surfaces(mask, mask, spacing_mm=(1, 1, 1))
    with pytest.raises(InputError, match="percent is 0"):
        distances.hausdorff_mm(0)
    with pytest.raises(InputError, match="0 or more"):
        distances.surface_dice(-1)


def test_wrong_cases_are_named():
    labelmap = np.ones((2, 3, 4), np.uint8)
    with pytest.raises(InputError, match="differ in shape"):
        evaluate_case(labelmap, labelmap[:1], [1], (1, 1, 1))
    with pytest.raises(InputError, match="differ in shape"):
        evaluate_case(labelmap[0], labelmap[0], [1], (1, 1, 1))
    with pytest.raises(InputError, match="must be integers"):
        evaluate_case(labelmap * 1.0, labelmap, [1], (1, 1, 1))
    with pytest.raises(InputError, match="label 0"):
        evaluate_case(labelmap, labelmap, [0], (1, 1, 1))
    with pytest.raises(InputError, match="three numbers above 0"):
        evaluate_case(labelmap, labelmap, [1], (1, 1))
