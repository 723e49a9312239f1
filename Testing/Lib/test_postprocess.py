"""Laws of the post-processing steps, and of the text that names them."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from UNetSegmentationLib.core.errors import InputError
from UNetSegmentationLib.postprocess import STEPS, apply_steps, parse_step

SPACING_MM = (2.0, 1.0, 0.5)
KEEP, SMALL, FILL, SMOOTH = (STEPS[name] for name in ("keep_largest_component", "remove_small", "fill_holes", "smooth"))


def noisy_labels(shape: tuple[int, int, int] = (12, 20, 18), seed: int = 0) -> NDArray[np.int16]:
    """Return labels 0 to 3 and -1 in pieces of all sizes."""
    rng = np.random.default_rng(seed)
    fields = ndimage.gaussian_filter(rng.standard_normal((5, *shape)), (0, 1, 1.5, 1.5))
    return (fields.argmax(0) - 1).astype(np.int16)


@pytest.mark.parametrize("shape", [(12, 20, 18), (1, 24, 24)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.int64])
@pytest.mark.parametrize("name", STEPS)
def test_steps_keep_type_and_input_and_invent_no_label(name: str, dtype: type, shape: tuple[int, int, int]) -> None:
    labelmap = noisy_labels(shape)
    if np.dtype(dtype).kind == "u":
        labelmap = np.maximum(labelmap, 0)
    labelmap = labelmap.astype(dtype)
    before = labelmap.copy()
    result = apply_steps(labelmap, SPACING_MM, [name])
    assert result.dtype == labelmap.dtype
    assert result.shape == shape
    assert np.array_equal(labelmap, before)
    assert set(np.unique(result)) <= set(np.unique(labelmap))
    assert np.array_equal(result == -1, labelmap == -1)


@pytest.mark.parametrize("name", STEPS)
def test_steps_do_not_depend_on_which_number_a_label_has(name: str) -> None:
    labelmap = noisy_labels()
    renumber = np.array([0, 30, 10, 20, -1], dtype=np.int16)
    renamed = apply_steps(renumber[labelmap], SPACING_MM, [name])
    assert np.array_equal(renamed, renumber[apply_steps(labelmap, SPACING_MM, [name])])


@pytest.mark.parametrize("name", STEPS)
def test_steps_do_not_depend_on_the_place(name: str) -> None:
    wide = np.pad(noisy_labels(), 6)
    shifted = np.roll(wide, (1, -2, 3), (0, 1, 2))
    expected = np.roll(apply_steps(wide, SPACING_MM, [name]), (1, -2, 3), (0, 1, 2))
    assert np.array_equal(apply_steps(shifted, SPACING_MM, [name]), expected)


@pytest.mark.parametrize("name", ["keep_largest_component", "remove_small:min_volume_mm3=20", "fill_holes"])
def test_once_is_enough(name: str) -> None:
    once = apply_steps(noisy_labels(), SPACING_MM, [name])
    assert np.array_equal(apply_steps(once, SPACING_MM, [name]), once)


@pytest.mark.parametrize("name", STEPS)
def test_an_empty_labelmap_stays_empty(name: str) -> None:
    empty = np.zeros((4, 5, 6), dtype=np.uint8)
    assert np.array_equal(apply_steps(empty, SPACING_MM, [name]), empty)


def test_every_label_is_left_with_its_largest_component() -> None:
    labelmap = noisy_labels()
    result = KEEP(labelmap, SPACING_MM)
    for label in (1, 2, 3):
        components, _ = ndimage.label(labelmap == label, structure=np.ones((3, 3, 3)))
        sizes = np.bincount(components.ravel())[1:]
        assert len(sizes) > 1, "the case must have something to remove"
        assert (result == label).sum() == sizes.max()
        assert ndimage.label(result == label, structure=np.ones((3, 3, 3)))[1] == 1


def test_a_region_is_one_object_and_others_stay() -> None:
    labelmap = np.zeros((1, 3, 14), dtype=np.uint8)
    labelmap[0, 1, 0:3] = 1
    labelmap[0, 1, 3:5] = 2
    labelmap[0, 1, 6:10] = 1
    labelmap[0, 1, 11] = labelmap[0, 1, 13] = 3
    result = KEEP(labelmap, SPACING_MM, regions=((1, 2, 7),))
    expected = labelmap.copy()
    expected[0, 1, 6:10] = 0
    assert np.array_equal(result, expected)
    alone = KEEP(labelmap, SPACING_MM)
    assert alone[0, 1].tolist() == [0, 0, 0, 2, 2, 0, 1, 1, 1, 1, 0, 3, 0, 0]


def test_components_touch_by_corners() -> None:
    labelmap = np.zeros((3, 3, 3), dtype=np.uint8)
    labelmap[0, 0, 0] = labelmap[1, 1, 1] = 1
    assert np.array_equal(KEEP(labelmap, SPACING_MM), labelmap)


def test_remove_small_counts_cubic_millimetres_per_component_and_label() -> None:
    labelmap = np.zeros((3, 6, 20), dtype=np.uint8)
    labelmap[1, 2, 0:10] = 1  # 10 voxels of 1 mm3
    labelmap[1, 4, 0:9] = 1
    labelmap[1, 2, 10:19] = 2  # touches the first: a label of its own
    assert SPACING_MM[0] * SPACING_MM[1] * SPACING_MM[2] == 1
    result = SMALL(labelmap, SPACING_MM, min_volume_mm3=10.0)
    assert (result == 1).sum() == 10
    assert (result == 2).sum() == 0
    doubled = SMALL(labelmap, (4.0, 1.0, 0.5), min_volume_mm3=18.0)
    assert np.array_equal(doubled, labelmap)
    tenth = SMALL(labelmap, (0.1, 0.1, 0.1), min_volume_mm3=0.010)
    assert (tenth > 0).sum() == 10
    assert np.array_equal(SMALL(labelmap, SPACING_MM, min_volume_mm3=0.0), labelmap)


def test_holes_are_filled_by_what_encloses_them() -> None:
    labelmap = np.zeros((9, 9, 9), dtype=np.uint8)
    labelmap[0:9, 0:9, 0:9] = 1
    labelmap[2:7, 2:7, 2:7] = 0
    labelmap[3:6, 3:6, 3:6] = 2
    labelmap[4, 4, 4] = 0
    result = FILL(labelmap, SPACING_MM)
    assert (result[3:6, 3:6, 3:6] == 2).all()
    assert (result == 2).sum() == 27
    assert (result == 1).sum() == 9**3 - 27


def test_filling_equals_scipy_for_one_label() -> None:
    mask = (noisy_labels((14, 20, 20), seed=3) != 2).astype(np.uint8)
    filled = ndimage.binary_fill_holes(mask)
    assert filled.sum() > mask.sum()
    assert np.array_equal(FILL(mask, SPACING_MM), filled)
    by_slice = np.stack([ndimage.binary_fill_holes(plane) for plane in mask])
    assert by_slice.sum() > filled.sum()
    assert np.array_equal(FILL(mask, SPACING_MM, slicewise=True), by_slice)
    assert np.array_equal(FILL(mask[5:6], SPACING_MM), by_slice[5:6])


def test_smoothing_is_the_majority_of_gaussian_shares() -> None:
    labelmap = noisy_labels((12, 24, 30), seed=2)
    labelmap[:, :12, :15] = 0
    sigma_mm, sigmas = 1.5, [1.5 / step for step in SPACING_MM]
    shares = [
        ndimage.gaussian_filter(mask.astype(np.float64), sigmas, mode="nearest", truncate=3.0)
        for mask in (labelmap <= 0, labelmap == 1, labelmap == 2, labelmap == 3)
    ]
    ordered = np.sort(shares, axis=0)
    is_clear = (ordered[-1] - ordered[-2] > 1e-5) & (labelmap >= 0)
    expected = np.argmax(shares, axis=0)
    assert is_clear.mean() > 0.5
    assert np.array_equal(SMOOTH(labelmap, SPACING_MM, sigma_mm=sigma_mm)[is_clear], expected[is_clear])


def test_smoothing_leaves_planes_and_rounds_corners() -> None:
    labelmap = np.zeros((10, 16, 32), dtype=np.uint8)
    labelmap[:, :8] = 1
    assert np.array_equal(SMOOTH(labelmap, SPACING_MM, sigma_mm=2.0), labelmap)
    box = np.zeros((16, 32, 48), dtype=np.uint8)
    box[4:12, 8:24, 8:40] = 1
    rounded = SMOOTH(box, SPACING_MM, sigma_mm=2.0)
    assert rounded[4, 8, 8] == 0
    assert rounded[8, 16, 24] == 1
    assert (rounded <= box).all()


def test_steps_apply_in_their_order() -> None:
    labelmap = noisy_labels()
    both = apply_steps(labelmap, SPACING_MM, ["smooth:sigma_mm=1", "keep_largest_component"])
    assert np.array_equal(both, KEEP(SMOOTH(labelmap, SPACING_MM, sigma_mm=1.0), SPACING_MM))
    assert apply_steps(labelmap, SPACING_MM, []) is labelmap


@pytest.mark.parametrize(
    ("text", "name", "options"),
    [
        ("smooth", "smooth", {}),
        ("remove_small:min_volume_mm3=5e1", "remove_small", {"min_volume_mm3": 50.0}),
        (" fill_holes : slicewise = True ", "fill_holes", {"slicewise": True}),
        ("keep_largest_component:regions=1+2/3", "keep_largest_component", {"regions": ((1, 2), (3,))}),
    ],
)
def test_steps_are_read_with_their_types(text: str, name: str, options: dict[str, object]) -> None:
    assert parse_step(text) == (STEPS[name], options)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("smoothe", "unknown post-processing step 'smoothe': choose one of fill_holes"),
        ("smooth:", "ends after the colon"),
        ("smooth:2", "is not an option: write option=value"),
        ("smooth:sigma=2", "has no option 'sigma': its options are sigma_mm"),
        ("smooth:sigma_mm=2,sigma_mm=3", "sets sigma_mm twice"),
        ("smooth:sigma_mm=wide", "sigma_mm is 'wide': must be a number"),
        ("fill_holes:slicewise=1", "slicewise is '1': must be true or false"),
        ("keep_largest_component:regions=1+a", "must be labels joined by"),
    ],
)
def test_steps_that_cannot_be_read_say_why(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_step(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("smooth:sigma_mm=0", "sigma_mm is 0.0: must be above 0"),
        ("smooth:sigma_mm=nan", "sigma_mm is nan"),
        ("remove_small:min_volume_mm3=-1", "min_volume_mm3 is -1.0: must be 0 or more"),
        ("keep_largest_component:regions=1/1", "each in one region"),
        ("keep_largest_component:regions=0+1", "labels above 0"),
    ],
)
def test_options_out_of_range_are_refused(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        apply_steps(noisy_labels(), SPACING_MM, [text])


def test_labelmap_and_spacing_must_fit() -> None:
    with pytest.raises(InputError, match=r"must be integers \(D, H, W\)"):
        apply_steps(np.zeros((4, 4), dtype=np.uint8), SPACING_MM, ["smooth"])
    with pytest.raises(InputError, match=r"must be integers \(D, H, W\)"):
        apply_steps(np.zeros((4, 4, 4)), SPACING_MM, ["smooth"])  # type: ignore[arg-type]
    with pytest.raises(InputError, match="must be three positive numbers"):
        apply_steps(np.zeros((4, 4, 4), dtype=np.uint8), (1.0, 0.0, 1.0), ["smooth"])
