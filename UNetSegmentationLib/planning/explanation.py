"""Explanation of a plan: one sentence per decision, derived from the fingerprint and the plan alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

from .fingerprint import Fingerprint
from .plan import Normalization, Plan
from .planner import (
    ANISOTROPY,
    COARSE_AXIS_PERCENTILE,
    FEWEST_SLICES,
    SMALLEST_SHARE,
    coarse_axis,
    dimensions_for,
    network_shape_for,
    size_at,
    target_spacing_mm,
)

_AXES = ("depth", "height", "width")
_RARE_CLASS = 1e-3
_SCALING = {
    "zscore": "is normalised to mean 0 and standard deviation 1 per image, since its scale is arbitrary",
    "percentile": "is scaled from its 1st to its 99th percentile per image, since its scale is arbitrary",
    "rescale": "is scaled from its minimum to its maximum per image",
    "rgb": "is divided by 255, since all colour images use the same scale",
    "none": "is kept as stored, since the network uses the values themselves",
}


def explain(
    fingerprint: Fingerprint, plan: Plan, *, network: str = "U-Net", shape: Mapping[str, Any] | None = None
) -> tuple[str, ...]:
    """Return one sentence for each decision in a plan.

    Args:
        fingerprint: Fingerprint of the data set that the plan was made for.
        plan: The plan.
        network: Display name of the network that the plan was made for.
        shape: Its features_per_stage, strides and kernel_sizes, if they differ from those of the plan.
    """
    return (
        _data(fingerprint),
        _dimensions(fingerprint, plan),
        _spacing(fingerprint, plan),
        _patch(fingerprint, plan),
        _coverage(fingerprint, plan),
        _batch(plan),
        _stages(plan, network, shape or network_shape_for(plan)),
        *_normalizations(fingerprint, plan),
        _orientation(plan),
        _mirroring(fingerprint, plan),
        *_classes(fingerprint),
    )


def _data(fingerprint: Fingerprint) -> str:
    count = len(fingerprint.shapes)
    whose = f"{count} cases of {fingerprint.subjects or count} subjects"
    size = _times(_median(fingerprint.shapes))
    cropped = _times(_median(fingerprint.content_shapes))
    border = "" if cropped == size else f", {cropped} without empty borders"
    few = "" if count >= 20 else "; with so few cases, the metrics of any model are uncertain"
    return f"Data: {whose}, {fingerprint.channels} channel(s), median size {size} voxels (D x H x W){border}{few}."


def _dimensions(fingerprint: Fingerprint, plan: Plan) -> str:
    depth = size_at(fingerprint, target_spacing_mm(fingerprint))[0]
    if plan.dimensions == 3 and dimensions_for(fingerprint) == 2:
        return f"Dimensions: 3D as requested, although {depth} slices are too few; halving once needs {FEWEST_SLICES}."
    if plan.dimensions == 3:
        return f"Dimensions: 3D, since {depth} slices are enough to learn across slices."
    if max(shape[0] for shape in fingerprint.shapes) == 1:
        return "Dimensions: 2D, since the images are 2D."
    if dimensions_for(fingerprint) == 3:
        return f"Dimensions: 2D, axial slices as requested, although {depth} slices would allow 3D."
    return f"Dimensions: 2D, since {depth} slices are too few; halving once needs {FEWEST_SLICES}."


def _spacing(fingerprint: Fingerprint, plan: Plan) -> str:
    if plan.longest_side:
        return (
            f"Resolution: the longer side is resized to {plan.longest_side} pixels, since radiographs seldom state "
            "their pixel size."
        )
    if not any(plan.spacing_mm):
        return "Resolution: as stored, since 2D images seldom state their pixel size."
    spacing, full = _millimetres(plan.spacing_mm), target_spacing_mm(fingerprint)
    if plan.dimensions == 3 and prod(plan.spacing_mm) > 1.001 * prod(full):
        return (
            f"Resolution: {spacing}, coarser than the median {_millimetres(full)}, so that a patch "
            f"shows {SMALLEST_SHARE:.0%} of the image."
        )
    axis = coarse_axis(fingerprint)
    medians = _median_of(fingerprint.spacings_mm)
    if plan.dimensions == 3 and axis is not None and abs(full[axis] - medians[axis]) > 1e-9:
        return (
            f"Resolution: {spacing}, the median, except along {_AXES[axis]}: it is more than "
            f"{ANISOTROPY:g} times coarser with few slices, so the {COARSE_AXIS_PERCENTILE}th percentile "
            f"({full[axis]:.3g} mm instead of {medians[axis]:.3g} mm) keeps the slices of the finer images."
        )
    coarse = "" if axis is None else f"; {_AXES[axis]} is more than {ANISOTROPY:g} times coarser than the others"
    return f"Resolution: {spacing}, the median of the cases{coarse}."


def _patch(fingerprint: Fingerprint, plan: Plan) -> str:
    size = _size(fingerprint, plan)
    patch, image = _times(plan.patch_size), _times(size)
    total = _total_stride(plan, network_shape_for(plan))
    if all(extent >= whole for extent, whole in zip(plan.patch_size[3 - plan.dimensions :], size, strict=True)):
        return f"Patch: {patch}, the median image ({image}) rounded up to multiples of the strides {_times(total)}."
    return (
        f"Patch: {patch}, the median image ({image}) shrunk along its longest axes until a training step fits the "
        f"device's memory and time, then rounded up to multiples of the strides {_times(total)}."
    )


def _coverage(fingerprint: Fingerprint, plan: Plan) -> str:
    share = min(1.0, prod(plan.patch_size) / prod(_size(fingerprint, plan)))
    if plan.dimensions == 2 or share >= SMALLEST_SHARE:
        return f"Field of view: a patch shows {share:.0%} of the median image, enough at this resolution."
    return (
        f"Field of view: a patch shows only {share:.0%} of the median image; if the position of a structure in the "
        "body matters, low resolution may do better (train --configurations full low compares the two)."
    )


def _batch(plan: Plan) -> str:
    return (
        f"Batch: {plan.batch_size} patches per step; instance norm does not need more, and in a given time more steps "
        "help more than larger batches."
    )


def _stages(plan: Plan, title: str, shape: Mapping[str, Any]) -> str:
    first, total = 3 - plan.dimensions, _total_stride(plan, shape)
    bottom = [extent // step for extent, step in zip(plan.patch_size[first:], total, strict=True)]
    halvings = ", ".join(f"{step.bit_length() - 1}" for step in total)
    flat = [list(kernel) for kernel in shape["kernel_sizes"] if min(kernel) == 1]
    size = max(max(kernel) for kernel in shape["kernel_sizes"])
    kernels = (
        f"the first {len(flat)} stage(s) do not convolve along the coarse axis"
        if flat
        else f"the kernel size is {size} along each axis"
    )
    return (
        f"Network: {title} with {len(shape['strides'])} stages, features "
        f"{', '.join(str(count) for count in shape['features_per_stage'])}; the axes are halved {halvings} times while "
        f"they are fine and long enough, down to {_times(bottom)}; {kernels}."
    )


def _normalizations(fingerprint: Fingerprint, plan: Plan) -> list[str]:
    names = fingerprint.channel_names or tuple(f"channel {index + 1}" for index in range(len(plan.normalization)))
    return [f"Intensity: {name} {_scaling(scheme)}." for name, scheme in zip(names, plan.normalization, strict=True)]


def _scaling(scheme: Normalization) -> str:
    if scheme.scheme != "ct":
        return _SCALING[scheme.scheme]
    return (
        f"is clipped to {scheme.lower:.0f} to {scheme.upper:.0f} and normalised by the mean {scheme.mean:.0f} and "
        f"standard deviation {scheme.std:.0f} of the labelled voxels, since Hounsfield units mean the same in every "
        "image"
    )


def _orientation(plan: Plan) -> str:
    if plan.orientation == "RAS":
        return "Orientation: axes are reoriented to RAS, so that all scans have the same orientation."
    return "Orientation: as stored, since 2D images have no anatomical orientation."


def _mirroring(fingerprint: Fingerprint, plan: Plan) -> str:
    if plan.mirror_axes:
        return "Mirroring: left to right, since no label is specific to a side and the body is nearly symmetric."
    if fingerprint.names_a_side:
        return "Mirroring: none, since a label is specific to a side."
    return "Mirroring: none, since a mirrored image of this kind is not plausible."


def _classes(fingerprint: Fingerprint) -> list[str]:
    shares = fingerprint.class_shares or {}
    if not shares:
        return []
    names = dict(zip(sorted(shares), fingerprint.label_names, strict=False))
    parts = ", ".join(f"{names.get(value, value)} {share:.2%}" for value, share in sorted(shares.items()))
    rare = [str(names.get(value, value)) for value, share in sorted(shares.items()) if share < _RARE_CLASS]
    advice = (
        f" Half of the patches are centred on labelled voxels, so that {', '.join(rare)} is sampled." if rare else ""
    )
    return [f"Classes (share of all voxels): {parts}.{advice}"]


def _size(fingerprint: Fingerprint, plan: Plan) -> list[int]:
    """Return the median size in the network's dimensions, on its grid."""
    if plan.longest_side:
        _, height, width = _median_of(fingerprint.content_shapes)
        scale = plan.longest_side / max(height, width)
        return [round(height * scale), round(width * scale)]
    full = target_spacing_mm(fingerprint)
    grid = [step or own for step, own in zip(plan.spacing_mm, full, strict=True)]
    return size_at(fingerprint, grid)[3 - plan.dimensions :]


def _total_stride(plan: Plan, shape: Mapping[str, Any]) -> list[int]:
    return [prod(stride[axis] for stride in shape["strides"]) for axis in range(plan.dimensions)]


def _median(rows: Sequence[Sequence[int]]) -> list[int]:
    return [round(value) for value in _median_of(rows)]


def _median_of(rows: Sequence[Sequence[float]]) -> list[float]:
    columns = [sorted(column) for column in zip(*rows, strict=True)]
    return [(column[(len(column) - 1) // 2] + column[len(column) // 2]) / 2 for column in columns]


def _times(sizes: Sequence[int]) -> str:
    return " x ".join(str(size) for size in sizes)


def _millimetres(spacing_mm: Sequence[float]) -> str:
    """Return a spacing in words; only the in-plane spacing if the plan has none across slices."""
    axes = "H x W" if not spacing_mm[0] else "D x H x W"
    return " x ".join(f"{step:.3g}" for step in spacing_mm if step) + f" mm ({axes})"
