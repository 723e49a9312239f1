"""All metrics of a case by label, and their summary over cases.

| metric | unit, range | both empty | one empty |
|---|---|---|---|
| dice, iou | 0 to 1 | NaN | 0 |
| hd_mm, hd95_mm, assd_mm | mm | NaN | inf |
| surface_dice | 0 to 1 | NaN | 0 |
| volume_difference_mm3 | mm³, prediction less reference | 0 | the other's volume |
| relative_volume_difference | of the reference's volume | NaN | -1; inf if the reference is empty |

NaN means undefined: a label in neither map says nothing about the quality of a segmentation, so summaries omit and
count it. A label that is missed or invented altogether does count, hence 0 and infinity.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import find_objects

from ...core.errors import InputError
from ...image.labels import Label
from .overlap import Mask, dice, iou, relative_volume_difference, volume_difference_mm3
from .surface_distance import measure_surfaces

Labelmap = NDArray[np.integer[Any]]
Box = tuple[slice, ...]


def evaluate_case(
    prediction: Labelmap,
    reference: Labelmap,
    labels: Iterable[int | Label],
    spacing_mm: Sequence[float],
    *,
    tolerance_mm: float = 1.0,
    with_surfaces: bool = True,
) -> dict[int, dict[str, float]]:
    """Return every metric of the table above for every label.

    Args:
        prediction: Integers (D, H, W); D = 1 is measured as 2D.
        reference: Integers of the same shape.
        labels: Label values above 0, or labels.
        spacing_mm: Size of a voxel along (D, H, W).
        tolerance_mm: Distance within which surfaces agree, for surface_dice.
        with_surfaces: False leaves out hd_mm, hd95_mm, assd_mm and surface_dice, which take most of the time.

    Raises:
        InputError: Maps that are not integers, 3D and of one shape, or a label below 1.
    """
    values = [label.value if isinstance(label, Label) else int(label) for label in labels]
    _check_case(prediction, reference, values, spacing_mm)
    highest = max(values, default=0)
    boxes = [find_objects(labelmap, max_label=highest) if highest else [] for labelmap in (prediction, reference)]
    measures = {}
    for value in values:
        box = _join(boxes[0][value - 1], boxes[1][value - 1], prediction.shape)
        masks = (prediction[box] == value, reference[box] == value)
        measures[value] = _measure(*masks, spacing_mm, tolerance_mm if with_surfaces else None)
    return measures


def summarize(cases: Iterable[Mapping[int, Mapping[str, float]]]) -> dict[int, dict[str, dict[str, float]]]:
    """Return the figures over all cases, by label and metric.

    `mean` and `median` are over the defined values: one infinite distance makes the mean infinite. `finite_mean` is
    over the finite ones. `count` is the number of defined values, `undefined` that of NaN, `infinite` that of
    infinities. Figures without any value are NaN.

    Args:
        cases: Results of `evaluate_case`.
    """
    gathered: dict[int, dict[str, list[float]]] = {}
    for case in cases:
        for label, measures in case.items():
            for name, value in measures.items():
                gathered.setdefault(label, {}).setdefault(name, []).append(value)
    return {
        label: {name: _summarize_values(np.array(values, dtype=np.float64)) for name, values in measures.items()}
        for label, measures in sorted(gathered.items())
    }


def _measure(
    prediction: Mask, reference: Mask, spacing_mm: Sequence[float], tolerance_mm: float | None
) -> dict[str, float]:
    measures = {"dice": dice(prediction, reference), "iou": iou(prediction, reference)}
    if tolerance_mm is not None:
        distances = measure_surfaces(prediction, reference, spacing_mm=spacing_mm)
        measures["hd_mm"] = distances.hausdorff_mm()
        measures["hd95_mm"] = distances.hausdorff_mm(95)
        measures["assd_mm"] = distances.average_mm()
        measures["surface_dice"] = distances.surface_dice(tolerance_mm)
    measures["volume_difference_mm3"] = volume_difference_mm3(prediction, reference, spacing_mm=spacing_mm)
    measures["relative_volume_difference"] = relative_volume_difference(prediction, reference)
    return measures


def _summarize_values(values: NDArray[np.float64]) -> dict[str, float]:
    defined = values[~np.isnan(values)]
    finite = defined[np.isfinite(defined)]
    return {
        "mean": float(defined.mean()) if defined.size else np.nan,
        "median": _median(defined),
        "finite_mean": float(finite.mean()) if finite.size else np.nan,
        "count": defined.size,
        "undefined": values.size - defined.size,
        "infinite": defined.size - finite.size,
    }


def _median(values: NDArray[np.float64]) -> float:
    """Return the median; numpy's turns two infinities in the middle into NaN."""
    if not values.size:
        return np.nan
    low, high = np.sort(values)[[(values.size - 1) // 2, values.size // 2]]
    return float(low if low == high else (low + high) / 2)


def _join(one: Box | None, other: Box | None, shape: tuple[int, ...]) -> Box:
    """Return the smallest box around both (either may be missing), with a margin of one voxel inside the map.

    The margin distinguishes an object in a single slice of a volume from a 2D image.
    """
    boxes = [box for box in (one, other) if box is not None]
    if not boxes:
        return (slice(0, 0),) * len(shape)
    return tuple(
        slice(max(min(s.start for s in axis) - 1, 0), min(max(s.stop for s in axis) + 1, extent))
        for axis, extent in zip(zip(*boxes, strict=True), shape, strict=True)
    )


def _check_case(prediction: Labelmap, reference: Labelmap, values: list[int], spacing_mm: Sequence[float]) -> None:
    if prediction.shape != reference.shape or prediction.ndim != 3:
        raise InputError(
            f"prediction {prediction.shape} and reference {reference.shape} differ in shape or are not (D, H, W): "
            f"resample one to the other; 2D images need D = 1"
        )
    if prediction.dtype.kind not in "iu" or reference.dtype.kind not in "iu":
        raise InputError(f"labelmaps are {prediction.dtype} and {reference.dtype}: must be integers")
    if min(values, default=1) < 1:
        raise InputError(f"label {min(values)} cannot be evaluated: must be above 0")
    if len(spacing_mm) != 3 or not min(spacing_mm) > 0:
        raise InputError(f"spacing_mm is {tuple(spacing_mm)}: must be three numbers above 0")
