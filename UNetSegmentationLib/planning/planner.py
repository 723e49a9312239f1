"""From a data set's fingerprint to its plan, mostly by nnU-Net's rules (doi:10.1038/s41592-020-01008-z)."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from ..core.errors import InputError
from ..presets import PRESETS
from .encoder_stages import StagePlan, plan_stages
from .fingerprint import Fingerprint
from .plan import Normalization, Plan

RESOLUTIONS = ("full", "low")


CT_NAMES = ("CT", "CBCT")


def normalization_of(
    preset: str, *, statistics: dict[str, float] | None = None, channel_name: str = ""
) -> Normalization:
    """Return the normalization for a preset.

    Args:
        preset: Registered name.
        statistics: mean, std, lower and upper of the training foreground; needed by "ct".
        channel_name: Name of the channel; a CT channel is normalised as CT in any preset, and a channel with another
            name never is.
    """
    scheme = PRESETS[preset].normalization
    if channel_name:
        is_ct = channel_name.upper() in CT_NAMES
        scheme = "ct" if is_ct else "zscore" if scheme == "ct" else scheme
    if scheme != "ct":
        return Normalization(scheme=scheme)
    values = {"mean": 0.0, "std": 1.0, "lower": 0.0, "upper": 1.0, **(statistics or {})}
    return Normalization(
        scheme=scheme, mean=values["mean"], std=values["std"], lower=values["lower"], upper=values["upper"]
    )


# Patch size for about half a second per training step on two CPU cores, with 16 features at full resolution.
PATCH_VOXELS = {2: 256 * 256, 3: 96 * 96 * 96}


FEATURES = {2: 32, 3: 16}


MAX_FEATURES = 256


# No axis of a patch is shrunk below this.
_SMALLEST_PATCH = 8


LONGEST_RADIOGRAPH_SIDE = 256


# As in nnU-Net: above this ratio of spacings, slices count as coarse.
ANISOTROPY = 3.0


COARSE_AXIS_PERCENTILE = 10


# As in nnU-Net: a patch that shows a smaller share of the image than this has too little context.
SMALLEST_SHARE = 0.25


# A stack with fewer slices than needed to halve once is segmented slice by slice, if the slices are large enough.
FEWEST_SLICES = 8


SMALLEST_SLICE = 64


_COARSENING = 1.03


def make_plan(
    fingerprint: Fingerprint,
    preset: str,
    *,
    batch_size: int = 2,
    patch_voxels: int | None = None,
    resolution: str = "full",
    dimensions: int | None = None,
) -> Plan:
    """Return the plan for a data set; the same arguments always give the same plan.

    The target spacing is the median, finer along coarse slices (see target_spacing_mm); the patch is the median size at
    that spacing, shrunk along its longest axes until it fits, then rounded up to multiples of the strides. Radiographs
    are resized to one size.

    Args:
        fingerprint: Fingerprint of the data set.
        preset: Registered name.
        batch_size: Patches in a training step in 3D; four times as many in 2D.
        patch_voxels: Maximum number of voxels in a patch; PATCH_VOXELS by default.
        resolution: "full", or "low": coarser, until the patch shows SMALLEST_SHARE of the median image.
        dimensions: 2 (axial slices) or 3; by default chosen by dimensions_for.

    Raises:
        InputError: Unknown resolution or preset, volumes with a preset for 2D images, or 2D images with 3 dimensions.
    """
    if resolution not in RESOLUTIONS:
        raise InputError(f"resolution is '{resolution}': choose {' or '.join(RESOLUTIONS)}")
    dimensions = dimensions_for(fingerprint, wanted=dimensions)
    is_flat = max(shape[0] for shape in fingerprint.shapes) == 1
    if not is_flat and PRESETS[preset].dimensions == (2,):
        volumes = ", ".join(name for name in PRESETS if 3 in PRESETS[name].dimensions)
        raise InputError(f"the images have several slices, but preset '{preset}' is for 2D images: choose {volumes}")
    is_radiograph = is_flat and PRESETS[preset].dimensions == (2,)
    limit = patch_voxels or PATCH_VOXELS[dimensions]
    spacing_mm = target_spacing_mm(fingerprint)
    size = _radiograph_size(fingerprint) if is_radiograph else size_at(fingerprint, spacing_mm)
    patch = _patch_size(size, spacing_mm, dimensions, limit)
    while resolution == "low" and dimensions == 3 and prod(patch) < SMALLEST_SHARE * prod(size):
        spacing_mm = _coarsened(spacing_mm)
        size = size_at(fingerprint, spacing_mm)
        patch = _patch_size(size, spacing_mm, dimensions, limit)
    stored = (0.0, spacing_mm[1], spacing_mm[2]) if not is_flat else (0.0, 0.0, 0.0)
    return Plan(
        dimensions=dimensions,
        spacing_mm=spacing_mm if dimensions == 3 else stored,
        patch_size=(patch[0], patch[1], patch[2]),
        batch_size=batch_size if dimensions == 3 else 4 * batch_size,
        orientation="stored" if is_flat else "RAS",
        normalization=_normalizations(fingerprint, preset),
        mirror_axes=() if is_flat or fingerprint.names_a_side else (2,),
        longest_side=LONGEST_RADIOGRAPH_SIDE if is_radiograph else 0,
    )


def dimensions_for(fingerprint: Fingerprint, *, wanted: int | None = None) -> int:
    """Return `wanted` if given, else 2 for 2D images and for axial stacks too thin to be halved once, else 3.

    Raises:
        InputError: `wanted` is neither 2 nor 3, or 3 for 2D images.
    """
    if wanted not in (None, 2, 3):
        raise InputError(f"dimensions is {wanted}: choose 2 or 3")
    if wanted == 3 and max(shape[0] for shape in fingerprint.shapes) == 1:
        raise InputError("the images are 2D and cannot be planned in 3D: choose 2 dimensions")
    if wanted is not None:
        return wanted
    depth, height, width = size_at(fingerprint, target_spacing_mm(fingerprint))
    return 2 if depth == 1 or (depth < FEWEST_SLICES and min(height, width) >= SMALLEST_SLICE) else 3


def target_spacing_mm(fingerprint: Fingerprint) -> tuple[float, float, float]:
    """Return the target spacing (D, H, W) of the images: the median along each axis.

    If slices are coarse (the largest spacing and the fewest voxels, both by more than ANISOTROPY), their axis uses the
    10th percentile instead, but no finer than the others, so that finer images keep their slices (nnU-Net's rule).
    """
    target = list(_median(fingerprint.spacings_mm))
    size = _median(fingerprint.content_shapes)
    axis = coarse_axis(fingerprint)
    if axis is not None:
        others = [index for index in range(3) if index != axis]
        fine = float(np.percentile([spacing[axis] for spacing in fingerprint.spacings_mm], COARSE_AXIS_PERCENTILE))
        if size[axis] * ANISOTROPY < min(size[index] for index in others):
            target[axis] = max(fine, *(target[index] for index in others))
    return target[0], target[1], target[2]


def coarse_axis(fingerprint: Fingerprint) -> int | None:
    """Return the axis (D, H, W) with a median spacing more than ANISOTROPY times each of the others, or None."""
    target = _median(fingerprint.spacings_mm)
    axis = max(range(3), key=lambda index: target[index])
    others = [target[index] for index in range(3) if index != axis]
    is_volume = max(shape[0] for shape in fingerprint.shapes) > 1
    return axis if is_volume and target[axis] > ANISOTROPY * max(others) else None


def size_at(fingerprint: Fingerprint, spacing_mm: Sequence[float]) -> list[int]:
    """Return the median size (D, H, W) of the images at a spacing."""
    extents = [
        [size * old / new for size, old, new in zip(shape, spacing, spacing_mm, strict=True)]
        for shape, spacing in zip(fingerprint.content_shapes, fingerprint.spacings_mm, strict=True)
    ]
    return [max(1, round(extent)) for extent in _median(extents)]


def network_shape_for(plan: Plan) -> dict[str, Any]:
    """Return features_per_stage, strides and kernel_sizes for a network trained with a plan, as JSON values."""
    stages = _stages_of(plan.patch_size, plan.spacing_mm, plan.dimensions)
    return {
        "features_per_stage": list(stages.features_per_stage),
        "strides": [list(stride) for stride in stages.strides],
        "kernel_sizes": [list(kernel) for kernel in stages.kernel_sizes],
    }


def _normalizations(fingerprint: Fingerprint, preset: str) -> tuple[Normalization, ...]:
    names = fingerprint.channel_names or ("",) * fingerprint.channels
    return tuple(
        normalization_of(preset, statistics=statistics, channel_name=name)
        for statistics, name in zip(fingerprint.foreground, names, strict=True)
    )


def _radiograph_size(fingerprint: Fingerprint) -> list[int]:
    """Return the median size with the longer side at LONGEST_RADIOGRAPH_SIDE."""
    _, height, width = _median(fingerprint.content_shapes)
    scale = LONGEST_RADIOGRAPH_SIDE / max(height, width)
    return [1, round(height * scale), round(width * scale)]


def _coarsened(spacing_mm: Sequence[float]) -> tuple[float, float, float]:
    """Enlarge the spacing a little: along the axes less than half as coarse as the coarsest, or along all."""
    coarsest = max(spacing_mm)
    is_finer = [coarsest / step > 2 for step in spacing_mm]
    depth, height, width = (
        step * (_COARSENING if finer or not any(is_finer) else 1.0)
        for step, finer in zip(spacing_mm, is_finer, strict=True)
    )
    return depth, height, width


def _stages_of(patch_size: Sequence[int], spacing_mm: Sequence[float], dimensions: int) -> StagePlan:
    first = 3 - dimensions
    spacing = [step or 1.0 for step in spacing_mm]
    return plan_stages(
        patch_size[first:], spacing[first:], base_features=FEATURES[dimensions], max_features=MAX_FEATURES
    )


def _patch_size(size: Sequence[int], spacing_mm: Sequence[float], dimensions: int, limit: int) -> list[int]:
    """Shrink the axis with the largest extent in mm until the patch fits, then round up to the strides."""
    patch = list(size)
    first = 3 - dimensions
    if dimensions == 2:
        patch[0] = 1
    while prod(patch) > max(limit, _SMALLEST_PATCH**dimensions):
        # A few thick slices remain the longest axis however few they become.
        axes = [axis for axis in range(first, 3) if patch[axis] > _SMALLEST_PATCH]
        longest = max(axes, key=lambda axis: patch[axis] * spacing_mm[axis])
        patch[longest] = round(patch[longest] * 0.9)
    return [*patch[:first], *_stages_of(patch, spacing_mm, dimensions).patch_size]


def _median(rows: Sequence[Sequence[float]]) -> tuple[float, float, float]:
    depth, height, width = (float(value) for value in np.median(np.array(rows, dtype=np.float64), axis=0))
    return depth, height, width
