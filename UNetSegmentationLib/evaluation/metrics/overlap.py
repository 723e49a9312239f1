"""Overlap and volume of two masks.

If both masks are empty there is nothing to measure: the ratios are NaN. If one is empty, Dice and IoU are 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf, nan, prod

import numpy as np
from numpy.typing import NDArray

from ...core.errors import InputError

Mask = NDArray[np.bool_]


def dice(prediction: Mask, reference: Mask) -> float:
    """Return twice the intersection over the sum of both, 0 to 1; NaN if both masks are empty."""
    check_masks(prediction, reference)
    total = np.count_nonzero(prediction) + np.count_nonzero(reference)
    return 2 * np.count_nonzero(prediction & reference) / total if total else nan


def iou(prediction: Mask, reference: Mask) -> float:
    """Return the intersection over the union (Jaccard), 0 to 1; NaN if both masks are empty."""
    check_masks(prediction, reference)
    union = np.count_nonzero(prediction | reference)
    return np.count_nonzero(prediction & reference) / union if union else nan


def volume_difference_mm3(prediction: Mask, reference: Mask, *, spacing_mm: Sequence[float]) -> float:
    """Return the volume of the prediction less that of the reference in mm³ (D = 1: the slice's thickness counts)."""
    check_masks(prediction, reference)
    return (np.count_nonzero(prediction) - np.count_nonzero(reference)) * prod(float(step) for step in spacing_mm)


def relative_volume_difference(prediction: Mask, reference: Mask) -> float:
    """Return (prediction - reference) / reference, -1 or more; NaN if both are empty, inf if only the reference is."""
    check_masks(prediction, reference)
    true = np.count_nonzero(reference)
    excess = np.count_nonzero(prediction) - true
    if true == 0:
        return inf if excess else nan
    return excess / true


def check_masks(prediction: Mask, reference: Mask) -> None:
    """Raise an InputError unless both are boolean and of one shape."""
    if prediction.shape != reference.shape:
        raise InputError(
            f"prediction {prediction.shape} and reference {reference.shape} differ in shape: resample one to the other"
        )
    if prediction.dtype != np.bool_ or reference.dtype != np.bool_:
        raise InputError(
            f"masks are {prediction.dtype} and {reference.dtype}: must be boolean, such as labelmap == value"
        )
