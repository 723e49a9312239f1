"""Uncertainty map of a segmentation, and the most uncertain slices."""

from __future__ import annotations

import numpy as np

from ..image.geometry import Array


def uncertainty_of(probabilities: Array, *, output: str) -> Array:
    """Return the entropy of probabilities relative to its maximum, from 0 (certain) to 1, float32 (D, H, W).

    Args:
        probabilities: (K, D, H, W), background first.
        output: "labels": the K classes are mutually exclusive; "regions": the K - 1 classes after the background are
            independent, and the most uncertain one counts.
    """
    uncertainty = np.zeros(probabilities.shape[1:], dtype=np.float32)
    for index in range(len(uncertainty)):
        # Slice by slice: single precision would double the memory of all classes.
        plane = probabilities[:, index].astype(np.float32)
        if output == "regions":
            entropy = (_surprise(plane[1:]) + _surprise(1 - plane[1:])).max(axis=0) / np.log(2)
        else:
            plane /= np.maximum(plane.sum(axis=0), np.finfo(np.float32).tiny)
            entropy = _surprise(plane).sum(axis=0) / np.log(len(plane))
        uncertainty[index] = np.clip(entropy, 0, 1)
    return uncertainty


def most_uncertain(uncertainty: Array) -> tuple[int, int, int]:
    """Return the slice with the largest total uncertainty along each axis (D, H, W), the middle one of ties."""
    sums = [uncertainty.sum(axis=axes, dtype=np.float64) for axes in ((1, 2), (0, 2), (0, 1))]
    first, second, third = (_middle_of_largest(values) for values in sums)
    return first, second, third


def _surprise(probabilities: Array) -> Array:
    # p log p goes to 0 with p; the logarithm alone does not.
    return np.asarray(-probabilities * np.log(np.maximum(probabilities, np.finfo(np.float32).tiny)))


def _middle_of_largest(values: Array) -> int:
    largest = np.flatnonzero(values == values.max())
    return int(largest[len(largest) // 2])
