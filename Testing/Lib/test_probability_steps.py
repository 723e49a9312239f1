"""Laws of the dense CRF: equal to the sum over all pairs, and to itself under changes that must not matter."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from UNetSegmentationLib.core.errors import InputError
from UNetSegmentationLib.postprocess.probabilities import (
    PROBABILITY_STEPS,
    apply_probability_steps,
    parse_probability_step,
)
from UNetSegmentationLib.postprocess.probabilities.dense_crf import DenseCRF

CASES = [((1, 14, 11), (1.0, 1.0, 1.0)), ((1, 13, 12), (3.0, 0.7, 1.1)), ((5, 9, 8), (2.0, 0.8, 1.0))]


def scene(size: tuple[int, int, int], *, classes: int = 3, channels: int = 2, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Return noisy probabilities (K, D, H, W) and an image (C, D, H, W) whose edges follow the true classes."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.arange(size[1])[:, None] * classes // size[1]
    truth = (rows + (torch.arange(size[2]) > size[2] // 2)) % classes
    truth = truth.expand(size)
    image = truth.float() + 0.25 * torch.randn(channels, *size, generator=generator)
    scores = 1.5 * torch.nn.functional.one_hot(truth, classes).movedim(-1, 0)
    return (scores + torch.randn(classes, *size, generator=generator)).softmax(0), image


def brute_force(probabilities: Tensor, image: Tensor, crf: DenseCRF, spacing_mm: tuple[float, ...]) -> Tensor:
    """Return the mean field from the matrices of all pairs, in double precision."""
    size, classes = probabilities.shape[1:], probabilities.shape[0]
    axes = [torch.arange(n, dtype=torch.float64) * step for n, step in zip(size, spacing_mm, strict=True)]
    place = torch.stack(torch.meshgrid(*axes, indexing="ij")).reshape(3, -1).T
    features = image.double() / image.double().std((1, 2, 3), keepdim=True, correction=0)
    features = features.reshape(image.shape[0], -1).T
    distance, contrast = torch.cdist(place, place) ** 2, torch.cdist(features, features) ** 2
    smooth = torch.exp(-distance / (2 * crf.theta_smooth_mm**2))
    bilateral = torch.exp(-distance / (2 * crf.theta_bilateral_mm**2) - contrast / (2 * crf.theta_intensity**2))
    logarithms = probabilities.double().log().reshape(classes, -1)
    marginals = logarithms.softmax(0)
    for _ in range(crf.iterations):
        energy = logarithms.clone()
        for weight, kernel in ((crf.weight_smooth, smooth), (crf.weight_bilateral, bilateral)):
            scale = kernel.sum(1).rsqrt()
            energy += weight * (marginals * scale) @ kernel * scale
        marginals = energy.softmax(0)
    return marginals.reshape(classes, *size).float()


@pytest.mark.parametrize(("size", "spacing_mm"), CASES)
def test_unlimited_reach_equals_the_sum_over_all_pairs(
    size: tuple[int, int, int], spacing_mm: tuple[float, float, float]
) -> None:
    probabilities, image = scene(size)
    crf = DenseCRF(reach=100.0, uncertainty=0.0)
    got = crf.apply(probabilities, image, spacing_mm=spacing_mm)
    torch.testing.assert_close(got, brute_force(probabilities, image, crf, spacing_mm), atol=1e-5, rtol=0)


@pytest.mark.parametrize(("size", "spacing_mm"), [((1, 36, 40), (1.0, 1.0, 1.0)), ((8, 16, 14), (2.0, 0.8, 1.0))])
def test_reach_of_two_deviations_gives_the_same_labels(
    size: tuple[int, int, int], spacing_mm: tuple[float, float, float]
) -> None:
    probabilities, image = scene(size)
    crf = DenseCRF(reach=2.0, theta_smooth_mm=1.5, theta_bilateral_mm=2.5, uncertainty=0.0)
    got = crf.apply(probabilities, image, spacing_mm=spacing_mm)
    expected = brute_force(probabilities, image, crf, spacing_mm)
    assert float((got.argmax(0) == expected.argmax(0)).float().mean()) >= 0.99
    assert float((got - expected).abs().mean()) <= 0.005


def test_it_finds_the_edges_of_the_image() -> None:
    size = (1, 48, 48)
    truth = (torch.arange(48)[:, None] >= 24).long().expand(size[1:])[None]
    generator = torch.Generator().manual_seed(3)
    image = truth[None].float() + 0.1 * torch.randn(1, *size, generator=generator)
    blurred = torch.sigmoid((torch.arange(48.0)[:, None] - 21) / 3).expand(size[1:])[None]
    probabilities = torch.stack([1 - blurred, blurred])
    crf = DenseCRF(weight_bilateral=8.0, theta_bilateral_mm=4.0)
    refined = crf.apply(probabilities, image, spacing_mm=(1.0, 1.0, 1.0))
    before, after = ((p.argmax(0) != truth).sum().item() for p in (probabilities, refined))
    assert before >= 2 * 48
    assert after <= 24


@pytest.mark.parametrize("options", [{"weight_smooth": 0.0, "weight_bilateral": 0.0}, {"iterations": 0}])
def test_without_weight_nothing_changes(options: dict[str, Any]) -> None:
    probabilities, image = scene((3, 9, 8))
    got = DenseCRF(**options).apply(probabilities, image, spacing_mm=(1.0, 1.0, 1.0))
    torch.testing.assert_close(got, probabilities, atol=1e-6, rtol=0)


def test_the_result_is_a_distribution_of_the_same_type_and_the_input_stays() -> None:
    probabilities, image = scene((3, 9, 8))
    before = probabilities.clone()
    got = DenseCRF().apply(probabilities.half(), image.double(), spacing_mm=(1.0, 1.0, 1.0))
    assert got.dtype == torch.float16
    torch.testing.assert_close(got.float().sum(0), torch.ones(3, 9, 8), atol=2e-3, rtol=0)
    assert torch.equal(probabilities, before)


def test_classes_are_alike() -> None:
    probabilities, image = scene((3, 9, 8))
    order = torch.tensor([2, 0, 1])
    got = DenseCRF().apply(probabilities[order], image, spacing_mm=(1.0, 1.0, 1.0))
    expected = DenseCRF().apply(probabilities, image, spacing_mm=(1.0, 1.0, 1.0))[order]
    torch.testing.assert_close(got, expected, atol=1e-6, rtol=0)


def test_axes_are_alike_up_to_their_spacing() -> None:
    probabilities, image = scene((6, 9, 8))
    expected = DenseCRF().apply(probabilities, image, spacing_mm=(2.0, 0.8, 1.0))
    turned = [t.permute(0, 3, 1, 2) for t in (probabilities, image)]
    got = DenseCRF().apply(turned[0], turned[1], spacing_mm=(1.0, 2.0, 0.8))
    torch.testing.assert_close(got, expected.permute(0, 3, 1, 2), atol=1e-5, rtol=0)


def test_only_the_ratio_of_reach_and_spacing_matters() -> None:
    probabilities, image = scene((6, 9, 8))
    crf = DenseCRF(theta_smooth_mm=1.0, theta_bilateral_mm=2.0)
    larger = replace(crf, theta_smooth_mm=4.0, theta_bilateral_mm=8.0)
    expected = crf.apply(probabilities, image, spacing_mm=(2.0, 0.5, 1.0))
    assert torch.equal(larger.apply(probabilities, image, spacing_mm=(8.0, 2.0, 4.0)), expected)


def test_the_scale_of_the_image_does_not_matter() -> None:
    probabilities, image = scene((6, 9, 8))
    expected = DenseCRF().apply(probabilities, image, spacing_mm=(1.0, 1.0, 1.0))
    got = DenseCRF().apply(probabilities, 40 * image - 900, spacing_mm=(1.0, 1.0, 1.0))
    torch.testing.assert_close(got, expected, atol=1e-4, rtol=0)


def test_certain_regions_stay_and_do_not_cost() -> None:
    size = (4, 30, 32)
    probabilities, image = scene(size, classes=2)
    certain = torch.zeros_like(probabilities)
    certain[0] = 1.0
    spacing_mm = (2.0, 1.0, 1.0)
    assert torch.equal(DenseCRF().apply(certain, image, spacing_mm=spacing_mm), certain)
    certain[:, :, 10:14, 12:18] = probabilities[:, :, 10:14, 12:18]
    got = DenseCRF().apply(certain, image, spacing_mm=spacing_mm)
    whole = DenseCRF(uncertainty=0.0).apply(certain, image, spacing_mm=spacing_mm)
    changed = (got != certain).any(0).nonzero()
    assert changed[:, 1].min() >= 10 - 4
    assert changed[:, 2].max() < 18 + 4
    assert float((got.argmax(0) == whole.argmax(0)).float().mean()) >= 0.999


def test_little_memory_gives_the_same_labels() -> None:
    probabilities, image = scene((3, 60, 10))
    spacing_mm = (1.0, 1.0, 1.0)
    expected = DenseCRF().apply(probabilities, image, spacing_mm=spacing_mm)
    recomputed = DenseCRF(memory_mb=0.5).apply(probabilities, image, spacing_mm=spacing_mm)
    assert torch.equal(recomputed, expected), "weights computed again are the same weights"
    slabs = DenseCRF(memory_mb=0.1).apply(probabilities, image, spacing_mm=spacing_mm)
    assert not torch.equal(slabs, expected)
    assert float((slabs.argmax(0) == expected.argmax(0)).float().mean()) >= 0.999


def test_steps_are_found_by_name_with_options() -> None:
    assert parse_probability_step("dense_crf") == DenseCRF()
    assert parse_probability_step("dense_crf:iterations=2,reach=1.5") == DenseCRF(iterations=2, reach=1.5)
    probabilities, image = scene((3, 9, 8))
    got = apply_probability_steps(probabilities, image, spacing_mm=(1, 1, 1), names=["dense_crf:iterations=2"])
    assert torch.equal(got, DenseCRF(iterations=2).apply(probabilities, image, spacing_mm=(1, 1, 1)))


@pytest.mark.parametrize("name", PROBABILITY_STEPS)
def test_every_step_keeps_shape_and_sum(name: str) -> None:
    for size in ((1, 12, 10), (3, 6, 7)):
        probabilities, image = scene(size)
        got = PROBABILITY_STEPS[name]().apply(probabilities, image, spacing_mm=(1.0, 1.0, 1.0))
        torch.testing.assert_close(got.sum(0), torch.ones(size), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("dense", "unknown probability step 'dense': choose one of dense_crf"),
        ("dense_crf:theta=2", "has no option 'theta': its options are weight_smooth"),
        ("dense_crf:iterations=2.5", "iterations is '2.5': must be a whole number"),
        ("dense_crf:weight_smooth=-1", "weight_smooth is -1.0: must be 0 or more"),
        ("dense_crf:weight_bilateral=-1", "weight_bilateral is -1.0"),
        ("dense_crf:theta_smooth_mm=0", "theta_smooth_mm is 0.0: must be above 0"),
        ("dense_crf:theta_bilateral_mm=0", "theta_bilateral_mm is 0.0"),
        ("dense_crf:theta_intensity=0", "theta_intensity is 0.0"),
        ("dense_crf:iterations=-1", "iterations is -1: must be 0 or more"),
        ("dense_crf:reach=0", "reach is 0.0: must be above 0"),
        ("dense_crf:uncertainty=0.5", "uncertainty is 0.5: must be 0 to below 0.5"),
        ("dense_crf:memory_mb=0", "memory_mb is 0.0: must be above 0"),
    ],
)
def test_steps_that_cannot_be_used_say_why(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_probability_step(text)


def test_inputs_must_fit() -> None:
    probabilities, image = scene((3, 9, 8))
    with pytest.raises(InputError, match="on the same grid"):
        apply_probability_steps(probabilities, image[:, :2], spacing_mm=(1, 1, 1), names=[])
    with pytest.raises(InputError, match="must be three positive numbers"):
        apply_probability_steps(probabilities, image, spacing_mm=(1, 1), names=[])
