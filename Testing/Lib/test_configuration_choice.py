"""The best configuration is kept, the cheapest where chance may have made the difference, and its figure is honest."""

from __future__ import annotations

import numpy as np
import pytest

from UNetSegmentationLib.planning.configurations import CONFIGURATION_LINES, CONFIGURATIONS
from UNetSegmentationLib.planning.fingerprint import Fingerprint
from UNetSegmentationLib.planning.planner import make_plan
from UNetSegmentationLib.training.search.configurations import (
    choose_configuration,
    sensible_configurations,
)

SUBJECTS = [f"s{index:02d}" for index in range(20)]
COSTS = {"full": 900.0, "low": 100.0, "slices": 400.0}


def scores(**means: float) -> dict[str, dict[str, float]]:
    """Return scores by configuration that differ by the same from subject to subject."""
    spread = np.linspace(-0.1, 0.1, len(SUBJECTS))
    return {name: dict(zip(SUBJECTS, mean + spread, strict=True)) for name, mean in means.items()}


@pytest.mark.parametrize("best", CONFIGURATIONS)
def test_the_better_wins(best):
    choice = choose_configuration(scores(**{name: 0.8 + 0.02 * (name == best) for name in CONFIGURATIONS}), COSTS)
    assert choice.chosen == best
    by_name = {row["name"]: row for row in choice.rows}
    assert [row["name"] for row in choice.rows if row["is_chosen"]] == [best]
    assert all(by_name[name]["behind"] == (0 if name == best else 0.02) for name in CONFIGURATIONS)
    # Every half chooses the same: nothing was won by luck.
    assert choice.cross_fitted == by_name[best]["mean_dice"] == 0.82


def test_a_tie_goes_to_the_cheapest():
    # Less than the third decimal is no difference, whatever the subjects say.
    assert choose_configuration(scores(full=0.8009, low=0.8, slices=0.7), COSTS).chosen == "low"
    assert choose_configuration(scores(full=0.8011, low=0.8, slices=0.7), COSTS).chosen == "full"
    # Ahead by 0.02 in the mean, but by no more than a standard error: +0.4 and -0.36 in turn.
    even = scores(full=0.5, low=0.5)
    for index, name in enumerate(SUBJECTS):
        even["full"][name] += 0.4 if index % 2 else -0.36
    choice = choose_configuration(even, COSTS)
    (row,) = [row for row in choice.rows if row["name"] == "low"]
    # Deviation 0.38 * sqrt(20 / 19), over the root of 20.
    assert (row["behind"], row["error"]) == (pytest.approx(0.02), pytest.approx(0.38 / 19**0.5, abs=1e-4))
    assert choice.chosen == "low"
    # The same difference in every subject is none of chance.
    assert choose_configuration(scores(full=0.52, low=0.5), COSTS).chosen == "full"


def test_luck_does_not_raise_the_cross_fitted_figure():
    """Of configurations that differ by chance alone the best looks better than it is, in the mean of many trials."""
    rng = np.random.default_rng(0)
    flattered, honest = [], []
    for _ in range(100):
        lucky = {name: dict(zip(SUBJECTS, rng.normal(0.5, 0.1, 20), strict=True)) for name in CONFIGURATIONS}
        choice = choose_configuration(lucky, dict.fromkeys(CONFIGURATIONS, 1.0))
        flattered.append(next(row["mean_dice"] for row in choice.rows if row["is_chosen"]))
        honest.append(choice.cross_fitted)
    error = 0.1 / 20**0.5 / 100**0.5
    assert np.mean(flattered) > 0.5 + 4 * error
    assert np.mean(honest) == pytest.approx(0.5, abs=4 * error)


def test_one_subject_tells_a_difference_but_no_error():
    choice = choose_configuration({"full": {"a": 0.8}, "low": {"a": 0.7}}, COSTS)
    assert choice.chosen == "full"
    assert choice.cross_fitted is None
    assert [row["error"] for row in choice.rows] == [None, None]


def fingerprint(shape: tuple[int, int, int], spacing_mm: tuple[float, float, float]) -> Fingerprint:
    statistics = {"mean": 40.0, "std": 20.0, "lower": -100.0, "upper": 300.0}
    return Fingerprint(shapes=(shape,), spacings_mm=(spacing_mm,), channels=1, foreground=(statistics,))


@pytest.mark.parametrize(
    ("shape", "spacing_mm", "expected"),
    [
        ((35, 50, 36), (1.0, 1.0, 1.0), ["full"]),  # a patch shows all
        ((300, 512, 512), (1.5, 0.8, 0.8), ["full", "low"]),
        ((30, 128, 128), (4.0, 1.0, 1.0), ["full", "slices"]),
        ((60, 512, 512), (5.0, 0.7, 0.7), ["full", "low", "slices"]),
        ((512, 60, 512), (0.7, 5.0, 0.7), ["full", "low"]),  # coarse along another axis: axial slices show it least
        ((12, 96, 96), (1.5, 1.0, 1.0), ["full", "slices"]),
        ((12, 40, 40), (4.0, 1.0, 1.0), ["full"]),  # slices too small to learn from
        ((6, 256, 216), (10.0, 1.4, 1.4), ["full"]),  # in 2D already
        ((1, 512, 512), (1.0, 1.0, 1.0), ["full"]),
    ],
)
def test_configurations_suit_the_data(shape, spacing_mm, expected):
    data = fingerprint(shape, spacing_mm)
    plan = make_plan(data, "mri")
    reasons = sensible_configurations(data, plan)
    assert list(reasons) == expected
    # Each is another plan than the full one.
    plans = [make_plan(data, "mri", **CONFIGURATIONS[name]) for name in reasons]
    assert plans[0] == plan
    assert all(plan != other for other in plans[1:])


def test_every_configuration_is_explained():
    assert set(CONFIGURATION_LINES) == set(CONFIGURATIONS)
