"""Uncertainty is the entropy of probabilities as a share of the largest possible."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import entropy

from UNetSegmentationLib.inference.uncertainty import most_uncertain, uncertainty_of


def random_probabilities(classes: int, seed: int = 0) -> np.ndarray:
    values = np.random.default_rng(seed).dirichlet(np.ones(classes), size=(3, 4, 5))
    return np.moveaxis(values, -1, 0).astype(np.float32)


@pytest.mark.parametrize("classes", [2, 3, 7])
def test_it_is_scipys_entropy_over_that_of_equal_probabilities(classes: int) -> None:
    probabilities = random_probabilities(classes)
    found = uncertainty_of(probabilities, output="labels")
    np.testing.assert_allclose(found, entropy(probabilities, axis=0, base=classes), atol=1e-5)


def test_a_sure_model_has_none_and_an_undecided_one_all_of_it() -> None:
    sure = np.zeros((3, 2, 2, 2), np.float16)
    sure[1] = 1
    assert uncertainty_of(sure, output="labels").max() == 0
    np.testing.assert_allclose(uncertainty_of(np.full_like(sure, 1 / 3), output="labels"), 1, atol=1e-6)


def test_of_independent_regions_the_most_uncertain_counts_and_the_background_does_not() -> None:
    probabilities = np.array([0.5, 1.0, 0.5, 0.9], np.float32).reshape(4, 1, 1, 1)
    assert uncertainty_of(probabilities, output="regions").item() == pytest.approx(1.0)
    certain = np.array([0.5, 1.0, 0.0, 0.9], np.float32).reshape(4, 1, 1, 1)
    assert uncertainty_of(certain, output="regions").item() == pytest.approx(entropy([0.9, 0.1], base=2), abs=1e-6)


def test_the_most_uncertain_slices_are_those_of_the_largest_sum_along_each_axis() -> None:
    uncertainty = np.zeros((5, 6, 7), np.float32)
    uncertainty[3, 1, 2] = 0.9
    uncertainty[3, 4, :] = 0.2
    assert most_uncertain(uncertainty) == (3, 4, 2)


def test_of_equal_slices_the_middle_one_is_taken() -> None:
    assert most_uncertain(np.zeros((5, 3, 1), np.float32)) == (2, 1, 0)
