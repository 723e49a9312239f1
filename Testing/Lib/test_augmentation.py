"""Laws of augmentation: geometry from coordinate ramps, statistics of the intensity steps, replay."""

from __future__ import annotations

import json
from dataclasses import replace
from math import cos, radians, sin
from typing import Any

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor

from UNetSegmentationLib.augmentation import (
    AugmentationConfig,
    IntensityParams,
    SpatialParams,
    apply_intensity,
    apply_spatial,
    augment_patch,
    draw_intensity,
    draw_spatial,
    source_size,
)
from UNetSegmentationLib.augmentation.intensity import STEPS
from UNetSegmentationLib.core.errors import InputError

SPATIAL_ONLY = {"rotation_probability": 1.0, "scaling_probability": 1.0, "elastic_probability": 1.0}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def coordinates_mm(size: tuple[int, int, int], spacing_mm: tuple[float, float, float]) -> Tensor:
    """Return an image (3, D, H, W) of every voxel's distance in mm from the centre."""
    axes = [(torch.arange(n) - (n - 1) / 2) * step for n, step in zip(size, spacing_mm, strict=True)]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"))


def blobs(size: tuple[int, int, int], labels: tuple[int, ...] = (0, 1, 2, 3)) -> Tensor:
    """Return labels (D, H, W) in a few large pieces."""
    place = coordinates_mm(size, (1.0, 1.0, 1.0))
    piece = (place[1] > 0).long() + 2 * (place[2] > place[0]).long()
    return torch.tensor(labels)[piece]


def test_nothing_switched_on_is_the_centre_of_the_source() -> None:
    image, labels = torch.randn(2, 9, 12, 11, generator=seeded()), blobs((9, 12, 11))
    got_image, got_labels = augment_patch(
        image, labels, output_size=(6, 12, 7), config=AugmentationConfig.none(), generator=seeded()
    )
    assert torch.equal(got_image, image[:, 1:7, :, 2:9])
    assert torch.equal(got_labels, labels[1:7, :, 2:9])


@pytest.mark.parametrize("size", [(8, 12, 10), (1, 16, 12)])
def test_a_seed_decides_the_result(size: tuple[int, int, int]) -> None:
    config = AugmentationConfig(**SPATIAL_ONLY, **{f"{name}_probability": 1.0 for name in STEPS})
    image, labels = torch.randn(2, *size, generator=seeded()), blobs(size)
    first = augment_patch(image, labels, output_size=size, config=config, generator=seeded(5))
    second = augment_patch(image, labels, output_size=size, config=config, generator=seeded(5))
    other = augment_patch(image, labels, output_size=size, config=config, generator=seeded(6))
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])
    assert not torch.equal(first[0], other[0])


def test_what_was_drawn_can_be_applied_again() -> None:
    config = AugmentationConfig(**SPATIAL_ONLY, raw_channels=(1,), **{f"{name}_probability": 1.0 for name in STEPS})
    image, labels = torch.randn(2, 10, 12, 10, generator=seeded()), blobs((10, 12, 10))
    spatial = draw_spatial(config, seeded(1), output_size=(8, 8, 8))
    intensity = draw_intensity(config, seeded(2), channels=2)
    assert draw_spatial(config, seeded(1), output_size=(8, 8, 8)) == spatial
    assert draw_intensity(config, seeded(2), channels=2) == intensity
    moved, moved_labels = apply_spatial(image, labels, spatial)
    again, labels_again = apply_spatial(image, labels, spatial)
    assert torch.equal(moved_labels, labels_again)
    assert torch.equal(apply_intensity(moved, intensity), apply_intensity(again, intensity))


def test_configuration_survives_json() -> None:
    config = AugmentationConfig(spacing_mm=(3.0, 1.0, 0.5), mirror_axes=(1, 2))
    assert AugmentationConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


@pytest.mark.parametrize("plane", [(0, 1), (0, 2), (1, 2)])
def test_interpolated_quarter_turn_is_rot90(plane: tuple[int, int]) -> None:
    a, b = plane
    rows = [[float(i == j) for j in range(3)] for i in range(3)]
    rows[a][a] = rows[b][b] = 0.0
    # Output voxel (p_a, p_b) shows source voxel (p_b, -p_a): the content turns from the first axis to the second.
    rows[a][b], rows[b][a] = 1.0, -1.0
    image, labels = torch.randn(1, 7, 7, 7, generator=seeded()), torch.randint(0, 4, (7, 7, 7), generator=seeded())
    params = SpatialParams(output_size=(7, 7, 7), spacing_mm=(1.0, 1.0, 1.0), matrix=tuple(map(tuple, rows)))
    got_image, got_labels = apply_spatial(image, labels, params)
    torch.testing.assert_close(got_image, torch.rot90(image, 1, (a + 1, b + 1)), atol=1e-5, rtol=0)
    assert torch.equal(got_labels, torch.rot90(labels, 1, plane))


def test_right_angles_permute_voxels_of_equal_axes_only() -> None:
    config = AugmentationConfig.none(right_angle_probability=1.0)
    image, labels = torch.randn(1, 6, 5, 5, generator=seeded()), torch.randint(0, 4, (6, 5, 5), generator=seeded())
    seen = set()
    for seed in range(20):
        params = draw_spatial(config, seeded(seed), output_size=(6, 5, 5))
        got_image, got_labels = apply_spatial(image, labels, params)
        first, second, quarters = params.turn
        seen.add((first, second, quarters))
        assert torch.equal(got_image[0], torch.rot90(image[0], quarters, (first, second)))
        assert torch.equal(got_labels, torch.rot90(labels, quarters, (first, second)))
    assert seen == {(1, 2, 1), (1, 2, 2), (1, 2, 3)}
    unequal = AugmentationConfig.none(right_angle_probability=1.0, spacing_mm=(1.0, 1.0, 2.0))
    assert draw_spatial(unequal, seeded(), output_size=(6, 5, 5)).turn[2] == 0


@pytest.mark.parametrize("axes", [(0,), (1,), (0, 2), (0, 1, 2)])
def test_flips_mirror_the_named_axes(axes: tuple[int, ...]) -> None:
    image, labels = torch.randn(1, 4, 6, 5, generator=seeded()), blobs((4, 6, 5))
    params = SpatialParams(output_size=(4, 6, 5), spacing_mm=(1.0, 1.0, 1.0), flips=axes)
    once = apply_spatial(image, labels, params)
    assert torch.equal(once[0], image.flip([axis + 1 for axis in axes]))
    assert torch.equal(once[1], labels.flip(axes))
    twice = apply_spatial(*once, params)
    assert torch.equal(twice[0], image)
    drawn = {axis for seed in range(40) for axis in _flips(seed, axes)}
    assert drawn == set(axes)


def _flips(seed: int, axes: tuple[int, ...]) -> tuple[int, ...]:
    config = AugmentationConfig.none(mirror_axes=axes)
    return draw_spatial(config, seeded(seed), output_size=(4, 6, 5)).flips


@pytest.mark.parametrize("spacing_mm", [(1.0, 1.0, 1.0), (2.5, 1.0, 1.3)])
def test_rotation_and_scaling_act_in_millimetres(spacing_mm: tuple[float, float, float]) -> None:
    # Linear interpolation reproduces a linear function: an image of its own coordinates shows the map itself.
    config = AugmentationConfig.none(spacing_mm=spacing_mm, rotation_probability=1.0, scaling_probability=1.0)
    size = (6, 9, 8)
    source = source_size(size, config)
    for seed in range(5):
        params = draw_spatial(config, seeded(seed), output_size=size)
        matrix = torch.tensor(params.matrix)
        scale = torch.linalg.det(matrix) ** (-1 / 3)
        torch.testing.assert_close(matrix @ matrix.T * scale**2, torch.eye(3))
        image, labels = coordinates_mm(source, spacing_mm), torch.ones(source, dtype=torch.int64)
        shown, kept = apply_spatial(image, labels, params)
        expected = torch.einsum("ij,jdhw->idhw", matrix, coordinates_mm(size, spacing_mm))
        torch.testing.assert_close(shown, expected, atol=1e-4, rtol=0)
        assert (kept == 1).all(), "source_size leaves room for every rotation"


def test_a_scale_above_one_enlarges() -> None:
    size = (24, 24, 24)
    labels = (coordinates_mm(size, (1.0, 1.0, 1.0)).norm(dim=0) < 6).long()
    config = AugmentationConfig.none(scaling_probability=1.0, scale_range=(1.5, 1.5))
    _, larger = apply_spatial(labels[None].float(), labels, draw_spatial(config, seeded(), output_size=size))
    assert float(larger.sum() / labels.sum()) == pytest.approx(1.5**3, rel=0.05)


def test_elastic_deformation_does_not_fold() -> None:
    config = AugmentationConfig.none(elastic_probability=1.0, elastic_range=(0.2, 0.2))
    size, source = (20, 24, 20), (40, 44, 40)
    for seed in range(5):
        params = draw_spatial(config, seeded(seed), output_size=size)
        shown, _ = apply_spatial(
            coordinates_mm(source, (1.0, 1.0, 1.0)), torch.zeros(source, dtype=torch.int32), params
        )
        displacement = shown - coordinates_mm(size, (1.0, 1.0, 1.0))
        assert 0.1 < float(displacement.abs().max()) < 8
        gradients = [torch.stack(torch.gradient(component)) for component in shown]
        jacobian = torch.stack(gradients).permute(2, 3, 4, 0, 1)
        assert float(torch.linalg.det(jacobian).min()) > 0


@pytest.mark.parametrize("size", [(16, 20, 18), (1, 40, 36)])
def test_image_and_labels_move_together_and_labels_stay_labels(size: tuple[int, int, int]) -> None:
    labels = blobs(size, labels=(0, 2, 5, -1)).to(torch.int16)
    for seed in range(8):
        config = AugmentationConfig.none(
            **SPATIAL_ONLY, rotation_deg=60.0, mirror_axes=(0, 1, 2), right_angle_probability=0.5, outside_label=0
        )
        params = draw_spatial(config, seeded(seed), output_size=size)
        one_hot = torch.stack([labels == label for label in (0, 2, 5, -1)]).float()
        shares, moved = apply_spatial(one_hot, labels, params)
        assert moved.dtype == labels.dtype
        assert set(moved.unique().tolist()) <= {0, 2, 5, -1}
        inside, all_ones = apply_spatial(one_hot, torch.ones(size, dtype=torch.int16), params)
        assert torch.equal(inside, shares)
        for channel, label in enumerate((0, 2, 5, -1)):
            certain = (shares[channel] > 0.999) & (all_ones == 1)
            assert (moved[certain] == label).all()


@pytest.mark.parametrize("outside_label", [-1, 0])
def test_outside_is_the_border_and_the_outside_label(outside_label: int) -> None:
    size = (12, 12, 12)
    config = AugmentationConfig.none(scaling_probability=1.0, scale_range=(0.5, 0.5), outside_label=outside_label)
    image, labels = apply_spatial(
        torch.full((1, *size), 3.0),
        torch.ones(size, dtype=torch.int32),
        draw_spatial(config, seeded(), output_size=size),
    )
    torch.testing.assert_close(image, torch.full_like(image, 3.0))
    assert set(labels.unique().tolist()) == {outside_label, 1}
    assert labels[0, 0, 0] == outside_label
    assert labels[6, 6, 6] == 1


@pytest.mark.parametrize(
    ("size", "spacing_mm", "flat"),
    [((1, 20, 16), (1.0, 1.0, 1.0), 0), ((5, 20, 16), (5.0, 1.0, 1.2), 0), ((12, 14, 5), (1.0, 1.0, 4.0), 2)],
)
def test_two_dimensions_and_thick_slices_move_in_their_plane(
    size: tuple[int, int, int], spacing_mm: tuple[float, float, float], flat: int
) -> None:
    config = AugmentationConfig.none(**SPATIAL_ONLY, rotation_deg=45.0, spacing_mm=spacing_mm)
    source = tuple(n if axis == flat else 4 * n for axis, n in enumerate(size))
    params = draw_spatial(config, seeded(3), output_size=size)
    shown, labels = apply_spatial(coordinates_mm(source, spacing_mm), blobs(source), params)
    still = coordinates_mm(size, spacing_mm)
    torch.testing.assert_close(shown[flat], still[flat])
    assert all((shown[axis] - still[axis]).abs().max() > 0.5 for axis in range(3) if axis != flat)
    assert tuple(labels.shape) == size


def test_slices_equal_the_general_interpolation() -> None:
    size, spacing_mm = (5, 20, 16), (5.0, 1.0, 1.2)
    config = AugmentationConfig.none(**SPATIAL_ONLY, rotation_deg=45.0, spacing_mm=spacing_mm)
    params = draw_spatial(config, seeded(3), output_size=size)
    general = replace(params, flat_axis=None)
    image, labels = torch.randn(2, *size, generator=seeded()), blobs(size)
    by_slices, whole = apply_spatial(image, labels, params), apply_spatial(image, labels, general)
    torch.testing.assert_close(by_slices[0], whole[0], atol=1e-4, rtol=0)
    assert (by_slices[1] == whole[1]).float().mean() > 0.999


def test_rotation_in_the_plane_has_its_angle() -> None:
    config = AugmentationConfig.none(rotation_probability=1.0, rotation_deg=180.0)
    matrix = draw_spatial(config, seeded(7), output_size=(1, 8, 8)).matrix
    angle = torch.atan2(torch.tensor(matrix[2][1]), torch.tensor(matrix[1][1])).item()
    expected = torch.tensor([[1, 0, 0], [0, cos(angle), -sin(angle)], [0, sin(angle), cos(angle)]])
    torch.testing.assert_close(torch.tensor(matrix), expected)
    assert abs(angle) > radians(1)


# Intensity


def drawn(name: str, channels: int = 2, seed: int = 0, **options: Any) -> IntensityParams:
    config = AugmentationConfig.none(**{f"{name}_probability": 1.0}, **options)
    params = draw_intensity(config, seeded(seed), channels=channels)
    assert [step.step for step in params.steps] == [name]
    return params


@pytest.fixture
def image() -> Tensor:
    noise = torch.randn(2, 16, 18, 20, generator=seeded(11))
    return noise * torch.tensor([1.0, 3.0]).reshape(2, 1, 1, 1) + torch.tensor([0.0, 50.0]).reshape(2, 1, 1, 1)


@pytest.mark.parametrize("name", STEPS)
def test_steps_leave_their_input_and_give_finite_values(name: str, image: Tensor) -> None:
    before = image.clone()
    changed = apply_intensity(image, drawn(name))
    assert torch.equal(image, before)
    assert changed.shape == image.shape
    assert changed.dtype == torch.float32
    assert torch.isfinite(changed).all()
    assert not torch.equal(changed, image)


@pytest.mark.parametrize("name", STEPS)
def test_steps_accept_constant_and_flat_images(name: str) -> None:
    for constant in (torch.zeros(1, 6, 7, 8), torch.full((1, 1, 9, 9), 4.0)):
        assert torch.isfinite(apply_intensity(constant, drawn(name, channels=1))).all()


@pytest.mark.parametrize("name", STEPS)
def test_steps_happen_as_often_as_asked(name: str) -> None:
    config = AugmentationConfig.none(**{f"{name}_probability": 0.3})
    generator = seeded(4)
    happened = sum(len(draw_intensity(config, generator, channels=1).steps) for _ in range(600))
    assert 0.22 < happened / 600 < 0.38


@pytest.mark.parametrize("name", STEPS)
def test_raw_channels_change_in_sharpness_and_noise_only(name: str, image: Tensor) -> None:
    changed = apply_intensity(image, drawn(name, raw_channels=(1,)))
    assert torch.equal(changed[1], image[1]) == (name not in ("blur", "low_resolution", "noise"))
    assert torch.equal(changed[0], apply_intensity(image, drawn(name))[0])


@pytest.mark.parametrize("name", ["gamma", "remap"])
def test_tone_curves_keep_mean_and_deviation(name: str, image: Tensor) -> None:
    changed = apply_intensity(image, drawn(name))
    torch.testing.assert_close(changed.mean((1, 2, 3)), image.mean((1, 2, 3)), atol=1e-3, rtol=1e-4)
    torch.testing.assert_close(changed.std((1, 2, 3)), image.std((1, 2, 3)), atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("invert_probability", [0.0, 1.0])
def test_gamma_keeps_the_order_of_intensities(invert_probability: float, image: Tensor) -> None:
    changed = apply_intensity(image, drawn("gamma", gamma_invert_probability=invert_probability))
    for before, after in zip(image, changed, strict=True):
        in_order = after.flatten()[before.flatten().argsort()]
        assert (in_order.diff() >= -1e-3 * after.std()).all()


def test_gamma_is_the_power_law_up_to_mean_and_deviation(image: Tensor) -> None:
    changed = apply_intensity(image, drawn("gamma", gamma_range=(2.0, 2.0), gamma_invert_probability=0.0))
    squared = (image[0] - image[0].min()) ** 2
    assert float(torch.corrcoef(torch.stack([squared.flatten(), changed[0].flatten()]))[0, 1]) > 0.99999


def test_brightness_shifts_by_a_share_of_the_deviation(image: Tensor) -> None:
    changed = apply_intensity(image, drawn("brightness", brightness_range=(0.25, 0.25)))
    shift = (0.25 * image.std((1, 2, 3), correction=0)).reshape(2, 1, 1, 1)
    torch.testing.assert_close(changed - image, shift.expand_as(image), atol=1e-4, rtol=1e-4)


def test_contrast_stretches_about_the_mean_within_the_extremes(image: Tensor) -> None:
    lower = apply_intensity(image, drawn("contrast", contrast_range=(0.8, 0.8)))
    torch.testing.assert_close(lower.mean((1, 2, 3)), image.mean((1, 2, 3)), atol=1e-3, rtol=1e-4)
    torch.testing.assert_close(lower.std((1, 2, 3)), 0.8 * image.std((1, 2, 3)), atol=1e-4, rtol=1e-4)
    higher = apply_intensity(image, drawn("contrast", contrast_range=(1.2, 1.2)))
    assert torch.equal(higher.amax((1, 2, 3)), image.amax((1, 2, 3)))
    assert torch.equal(higher.amin((1, 2, 3)), image.amin((1, 2, 3)))


def test_remap_is_piecewise_linear_between_the_percentiles() -> None:
    ramp = torch.linspace(0, 1, 20**3).reshape(1, 20, 20, 20)
    changed = apply_intensity(ramp, drawn("remap", channels=1, seed=2)).flatten()
    bends = (changed.diff().diff().abs() > 1e-4).nonzero().flatten()
    knots = torch.linspace(0.005, 0.995, 6) * 20**3
    # Beyond the percentiles the curve is level; its slope changes at the knots only.
    assert changed[:30].std() < 1e-5
    assert changed[-30:].std() < 1e-5
    distance = (bends[:, None] - knots).abs().min(1).values
    assert len(bends) >= 4
    assert float(distance.max()) < 8


def test_bias_field_is_a_smooth_positive_factor(image: Tensor) -> None:
    positive = image - image.amin((1, 2, 3), keepdim=True)
    changed = apply_intensity(positive, drawn("bias_field", bias_field_range=(0.3, 0.3)))
    factor = (changed / positive)[0][positive[0] > 0.5]
    assert float(factor.min()) > 0.2
    assert 0.05 < float(factor.log().std()) < 0.3
    whole = apply_intensity(
        torch.ones(1, 16, 16, 16).index_fill_(1, torch.tensor(0), 0.0), drawn("bias_field", channels=1)
    )
    assert float(whole[0, 1:].diff(dim=1).abs().max()) < 0.2


def test_blur_is_the_gaussian_of_scipy(image: Tensor) -> None:
    params = drawn("blur", blur_sigma_range=(1.0, 1.0), spacing_mm=(2.0, 1.0, 1.0))
    expected = [ndimage.gaussian_filter(c, (0.5, 1.0, 1.0), mode="nearest", truncate=3.0) for c in image.numpy()]
    torch.testing.assert_close(apply_intensity(image, params), torch.from_numpy(np.stack(expected)))


def test_low_resolution_loses_detail_and_keeps_thick_slices_apart() -> None:
    image = torch.randn(1, 8, 16, 16, generator=seeded())
    options = {"low_resolution_range": (0.5, 0.5), "spacing_mm": (5.0, 1.0, 1.0)}
    params = drawn("low_resolution", channels=1, **options)
    changed = apply_intensity(image, params)
    assert changed.diff(dim=3).abs().mean() < 0.7 * image.diff(dim=3).abs().mean()
    one_slice = apply_intensity(image[:, 3:4], params)
    torch.testing.assert_close(changed[:, 3:4], one_slice)
    whole = drawn("low_resolution", channels=1, low_resolution_range=(1.0, 1.0))
    torch.testing.assert_close(apply_intensity(image, whole), image)


def test_noise_has_its_deviation_and_no_structure() -> None:
    image = 5 * torch.randn(2, 24, 24, 24, generator=seeded(1))
    noise = apply_intensity(image, drawn("noise", noise_range=(0.2, 0.2))) - image
    torch.testing.assert_close(noise.std((1, 2, 3)), torch.full((2,), 1.0), atol=0.05, rtol=0)
    assert float(noise.mean().abs()) < 0.05
    neighbours = torch.corrcoef(torch.stack([noise[..., 1:].flatten(), noise[..., :-1].flatten()]))[0, 1]
    assert abs(float(neighbours)) < 0.03


# Errors


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gamma_probability": 1.5}, "gamma_probability is 1.5: must be 0 to 1"),
        ({"scale_range": (1.2, 0.8)}, "scale_range is .*: must be two numbers, the lower first"),
        ({"scale_range": (0.0, 0.8)}, "need positive numbers"),
        ({"spacing_mm": (1.0, 0.0, 1.0)}, "spacing_mm is .*: must be three positive numbers"),
        ({"mirror_axes": (3,)}, "mirror_axes is .*: choose from 0, 1 and 2"),
        ({"rotation_deg": 200.0}, "rotation_deg is 200.0: must be 0 to 180"),
        ({"elastic_points": 1}, "elastic_points is 1: must be at least 2"),
        ({"remap_knots": 1}, "remap_knots is 1: must be at least 2"),
        ({"anisotropy_limit": 0.5}, "anisotropy_limit is 0.5: must be at least 1"),
        ({"raw_channels": (-1,)}, "raw_channels is .*: must be 0 or more"),
        ({"outside_label": 3}, "outside_label is 3: must be -1"),
        ({"elastic_range": (-1.0, 1.0)}, "elastic_range"),
        ({"bias_field_range": (-1.0, 1.0)}, "bias_field_range"),
        ({"noise_range": (-1.0, 1.0)}, "noise_range"),
        ({"low_resolution_range": (0.5, 1.5)}, "low_resolution_range"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        AugmentationConfig(**options)


def test_a_misspelt_option_lists_the_known_ones() -> None:
    with pytest.raises(InputError, match=r"no field rotation: choose from .*rotation_deg"):
        AugmentationConfig.from_dict({"rotation": 3})


@pytest.mark.parametrize(
    ("image", "labels", "message"),
    [
        (torch.zeros(1, 4, 4, 4), torch.zeros(4, 4, 5, dtype=torch.int32), "do not fit"),
        (torch.zeros(4, 4, 4), torch.zeros(4, 4, 4, dtype=torch.int32), "do not fit"),
        (torch.zeros(1, 4, 4, 4), torch.zeros(4, 4, 4), "integer labels"),
        (torch.zeros(1, 4, 4, 4).double(), torch.zeros(4, 4, 4, dtype=torch.int32), "float32 image"),
        (torch.zeros(1, 4, 4, 3), torch.zeros(4, 4, 3, dtype=torch.int32), "smaller than the output"),
        (torch.zeros(1, 4, 4, 4), torch.zeros(4, 4, 4, dtype=torch.uint8), "cannot hold the ignore label"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(image: Tensor, labels: Tensor, message: str) -> None:
    config = AugmentationConfig.none(rotation_probability=1.0)
    with pytest.raises(InputError, match=message):
        augment_patch(image, labels, output_size=(4, 4, 4), config=config, generator=seeded())
