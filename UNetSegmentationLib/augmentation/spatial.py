"""Spatial augmentation in one interpolation; flips and right angles are exact."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from math import ceil, cos, prod, radians, sin

import torch
from torch import Tensor
from torch.nn import functional as F

from ..core.errors import InputError
from ..core.json_dataclass import JsonDataclass
from .bspline import bspline_field
from .config import AugmentationConfig
from .draws import Draws

Size = tuple[int, int, int]
Row = tuple[float, float, float]
Matrix = tuple[Row, Row, Row]

IDENTITY: Matrix = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))


@dataclass(frozen=True, kw_only=True)
class SpatialParams(JsonDataclass):
    """One drawn spatial change.

    Attributes:
        output_size: (D, H, W) of the result.
        spacing_mm: Voxel size (D, H, W).
        matrix: Maps millimetres from the centre of the result to millimetres from the centre in the source.
        elastic_size: Control points (D, H, W) of the deformation; (0, 0, 0) for none.
        elastic_mm: Their displacements, D, H and W components one after the other, flattened.
        flat_axis: Axis that rotation and deformation leave alone, or None.
        turn: (first axis, second axis, quarter turns from the first towards the second).
        flips: Axes mirrored, after everything else.
        outside_label: Label of voxels outside the source.
    """

    output_size: Size
    spacing_mm: tuple[float, float, float]
    matrix: Matrix = IDENTITY
    elastic_size: Size = (0, 0, 0)
    elastic_mm: tuple[float, ...] = ()
    flat_axis: int | None = None
    turn: tuple[int, int, int] = (1, 2, 0)
    flips: tuple[int, ...] = ()
    outside_label: int = -1

    @property
    def interpolates(self) -> bool:
        """Whether any voxel moves by a fraction of a voxel."""
        return self.matrix != IDENTITY or bool(self.elastic_mm)


def draw_spatial(
    config: AugmentationConfig, generator: torch.Generator, *, output_size: Sequence[int]
) -> SpatialParams:
    """Draw the spatial change of one patch.

    Args:
        config: Probabilities and ranges.
        generator: CPU generator.
        output_size: (D, H, W); with D = 1 everything stays in the plane.
    """
    draws = Draws(generator)
    size: Size = (int(output_size[0]), int(output_size[1]), int(output_size[2]))
    flat_axis = _flat_axis(config, size)
    angles_deg = _draw_angles(draws, config, flat_axis)
    scale = _draw_scale(draws, config)
    elastic_size, elastic_mm = _draw_elastic(draws, config, size, flat_axis)
    return SpatialParams(
        output_size=size,
        spacing_mm=config.spacing_mm,
        matrix=_matrix(angles_deg, scale, flat_axis),
        elastic_size=elastic_size,
        elastic_mm=elastic_mm,
        flat_axis=flat_axis,
        turn=_draw_turn(draws, config, size),
        flips=tuple(axis for axis in config.mirror_axes if draws.happens(0.5) and size[axis] > 1),
        outside_label=config.outside_label,
    )


def apply_spatial(image: Tensor, labels: Tensor, params: SpatialParams) -> tuple[Tensor, Tensor]:
    """Sample image (C, D, H, W) linearly and labels (D, H, W) at the nearest voxel.

    Args:
        image: float32; at least `params.output_size`. The excess is a margin for rotations to sample from.
        labels: Integers of the image's size.
        params: From `draw_spatial`.

    Returns:
        Image (C, *output_size) and labels (*output_size) of the input types.

    Raises:
        InputError: The source is smaller than the output, or its labels cannot hold `outside_label`.
    """
    start = _start(labels.shape, params.output_size)
    if params.interpolates:
        if params.outside_label < 0 and not labels.dtype.is_signed:
            raise InputError(
                f"labels of type {labels.dtype} cannot hold the ignore label -1: pass int16, int32 or int64"
            )
        image, labels = _sample(image, labels, params, start)
    else:
        window = tuple(slice(s, s + extent) for s, extent in zip(start, params.output_size, strict=True))
        image, labels = image[(slice(None), *window)], labels[window]
    first, second, quarters = params.turn
    if quarters:
        image = torch.rot90(image, quarters, (first + 1, second + 1))
        labels = torch.rot90(labels, quarters, (first, second))
    if params.flips:
        image = image.flip([axis + 1 for axis in params.flips])
        labels = labels.flip(params.flips)
    return image.contiguous(), labels.contiguous()


def source_size(output_size: Sequence[int], config: AugmentationConfig) -> Size:
    """Return the size (D, H, W) of a source large enough for every rotation and scaling of `config`."""
    size: Size = (int(output_size[0]), int(output_size[1]), int(output_size[2]))
    flat_axis = _flat_axis(config, size)
    largest = config.rotation_deg if config.rotation_probability > 0 else 0.0
    steps = sorted({0.0, largest, *(min(angle, largest) for angle in (22.5, 45.0, 67.5, 90.0))})
    scale = min(config.scale_range[0], 1.0) if config.scaling_probability > 0 else 1.0
    reach = list(size)
    half_mm = [(extent - 1) * step for extent, step in zip(size, config.spacing_mm, strict=True)]
    for angles in product(steps, repeat=3):
        matrix = _matrix(_in_plane(angles, flat_axis), scale, flat_axis)
        for axis, row in enumerate(matrix):
            span_mm = sum(abs(weight) * extent for weight, extent in zip(row, half_mm, strict=True))
            needed = ceil(span_mm / config.spacing_mm[axis] - 1e-6) + 1
            # The margin must be even to be equal on both sides.
            reach[axis] = max(reach[axis], needed + (needed - size[axis]) % 2)
    return (reach[0], reach[1], reach[2])


def _flat_axis(config: AugmentationConfig, size: Size) -> int | None:
    if size[0] == 1:
        return 0
    coarsest = max(range(3), key=lambda axis: config.spacing_mm[axis])
    is_flat = config.spacing_mm[coarsest] > config.anisotropy_limit * min(config.spacing_mm)
    return coarsest if is_flat else None


def _in_plane(angles_deg: Sequence[float], flat_axis: int | None) -> Row:
    kept = [angle if flat_axis in (None, axis) else 0.0 for axis, angle in enumerate(angles_deg)]
    return (kept[0], kept[1], kept[2])


def _draw_angles(draws: Draws, config: AugmentationConfig, flat_axis: int | None) -> Row:
    rotates = draws.happens(config.rotation_probability)
    angles = draws.uniforms(3, -config.rotation_deg, config.rotation_deg)
    return _in_plane(angles, flat_axis) if rotates else (0.0, 0.0, 0.0)


def _draw_scale(draws: Draws, config: AugmentationConfig) -> float:
    scales = draws.happens(config.scaling_probability)
    factor = draws.uniform(*config.scale_range)
    return factor if scales else 1.0


def _draw_elastic(
    draws: Draws, config: AugmentationConfig, size: Size, flat_axis: int | None
) -> tuple[Size, tuple[float, ...]]:
    if not draws.happens(config.elastic_probability):
        return (0, 0, 0), ()
    extents_mm = [(extent - 1) * step for extent, step in zip(size, config.spacing_mm, strict=True)]
    moving = [axis for axis in range(3) if axis != flat_axis]
    distance_mm = max(extents_mm[axis] for axis in moving) / (config.elastic_points - 1)
    if distance_mm == 0:
        return (0, 0, 0), ()
    # A cubic B-spline reaches one control point past the ends.
    points = [1 if axis == flat_axis else max(1, ceil(extents_mm[axis] / distance_mm - 1e-6)) + 3 for axis in range(3)]
    deviation_mm = draws.uniform(*config.elastic_range) * distance_mm
    each = prod(points)
    normals = draws.normals(3 * each)
    displacements = tuple(0.0 if i // each == flat_axis else value * deviation_mm for i, value in enumerate(normals))
    return (points[0], points[1], points[2]), displacements


def _draw_turn(draws: Draws, config: AugmentationConfig, size: Size) -> tuple[int, int, int]:
    planes = [
        (a, b)
        for a, b in ((0, 1), (0, 2), (1, 2))
        if size[a] == size[b] > 1 and abs(config.spacing_mm[a] / config.spacing_mm[b] - 1) < 1e-3
    ]
    if not (draws.happens(config.right_angle_probability) and planes):
        return (1, 2, 0)
    return (*planes[draws.integer(len(planes))], 1 + draws.integer(3))


def _matrix(angles_deg: Row, scale: float, flat_axis: int | None) -> Matrix:
    """Return the rotations about axes 2, 1 and 0, one after the other, divided by the scale outside the flat axis."""
    matrix = torch.eye(3, dtype=torch.float64)
    for axis, angle in enumerate(angles_deg):
        if angle:
            matrix = matrix @ torch.tensor(_rotation(axis, radians(angle)), dtype=torch.float64)
    if scale != 1.0:
        matrix = matrix / scale
        if flat_axis is not None:
            matrix[flat_axis, flat_axis] = 1.0
    rows = matrix.tolist()
    return ((*rows[0],), (*rows[1],), (*rows[2],))


def _rotation(axis: int, angle: float) -> list[list[float]]:
    first, second = (a for a in range(3) if a != axis)
    rows = [list(row) for row in IDENTITY]
    rows[first][first] = rows[second][second] = cos(angle)
    rows[first][second], rows[second][first] = -sin(angle), sin(angle)
    return rows


def _start(source: Sequence[int], output_size: Size) -> Size:
    if any(extent < wanted for extent, wanted in zip(source, output_size, strict=True)):
        raise InputError(f"patch {tuple(source)} is smaller than the output {output_size}: pad the patch first")
    first, second, third = ((extent - wanted) // 2 for extent, wanted in zip(source, output_size, strict=True))
    return (first, second, third)


def _sample(image: Tensor, labels: Tensor, params: SpatialParams, start: Size) -> tuple[Tensor, Tensor]:
    grid = _source_grid(params, start, labels.shape, image.device)
    # Shifted by the outside label, so that zero padding stands for it.
    shifted = (labels - params.outside_label).to(torch.float32)[None]
    flat = params.flat_axis
    if flat is None:
        moved, moved_labels = _grid_sample(image, shifted, grid)
    else:
        # All slices across the flat axis are sampled at the same in-plane positions: they become channels.
        extent = params.output_size[flat]
        stacks = [t.narrow(flat + 1, start[flat], extent).movedim(flat + 1, 1).flatten(0, 1) for t in (image, shifted)]
        sampled = _grid_sample(stacks[0], stacks[1], grid)
        moved, moved_labels = (t.reshape(-1, extent, *t.shape[1:]).movedim(1, flat + 1) for t in sampled)
    return moved, moved_labels[0].to(labels.dtype) + params.outside_label


def _grid_sample(image: Tensor, labels: Tensor, grid: Tensor) -> tuple[Tensor, Tensor]:
    """Sample channels (C, ...) at positions (..., axes): image linearly, labels at the nearest voxel."""
    moved = F.grid_sample(image[None], grid[None], mode="bilinear", padding_mode="border", align_corners=True)[0]
    moved_labels = F.grid_sample(labels[None], grid[None], mode="nearest", padding_mode="zeros", align_corners=True)[0]
    return moved, moved_labels


def _source_grid(params: SpatialParams, start: Size, source: Sequence[int], device: torch.device) -> Tensor:
    """Return each output voxel's position in the source in `grid_sample` coordinates: -1 to 1, last axis first.

    The shape is (D, H, W, 3); a flat axis is left out of both size and positions.
    """
    axes = [axis for axis in (2, 1, 0) if axis != params.flat_axis]
    size = [1 if axis == params.flat_axis else extent for axis, extent in enumerate(params.output_size)]
    spacings = torch.tensor(params.spacing_mm, device=device)
    # An axis of one voxel has one position, 0.
    factors = torch.tensor([2 / (extent - 1) if extent > 1 else 0.0 for extent in source], device=device)
    centre = torch.tensor([s + (extent - 1) / 2 for s, extent in zip(start, size, strict=True)], device=device)
    weights = torch.tensor(params.matrix, device=device) * spacings * (factors / spacings)[:, None]
    grid = (centre * factors - (factors > 0).float())[axes, None, None, None]
    for axis, extent in enumerate(size):
        offsets = torch.arange(extent, device=device, dtype=torch.float32) - (extent - 1) / 2
        view = [len(axes), 1, 1, 1]
        view[axis + 1] = extent
        grid = grid + (weights[axes, axis, None] * offsets).reshape(view)
    if params.elastic_mm:
        control = torch.tensor(params.elastic_mm, device=device).reshape(3, *params.elastic_size)
        grid = grid + bspline_field((control * (factors / spacings)[:, None, None, None])[axes], size)
    if params.flat_axis is not None:
        grid = grid.squeeze(params.flat_axis + 1)
    return grid.movedim(0, -1)
