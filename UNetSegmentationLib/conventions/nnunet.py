"""nnU-Net's conventions, for models trained with it (Isensee et al. 2021, doi:10.1038/s41592-020-01008-z).

Images are cropped to nonzero, resampled with splines (nearest neighbour across thick slices) and padded with zeros;
tile weights are centred on a voxel.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..core.task import UNWATCHED, Task
from ..image.geometry import Array, AxisOrder, Volume
from .contract import CONVENTIONS, Conventions, PreparedVolume, Sizes, Tiling
from .parts.axes import check_size, stack_channels, target_mm_of, turn
from .parts.image_grid import labelmap_of_slabs, probabilities_on_grid
from .parts.intensity import normalize
from .parts.nnunet_math import (
    content_mask,
    plane_axis,
    resample_labels_by_share,
    resample_spline,
    shape_at,
    spacing_for_rules,
    take_nearest_planes,
)
from .parts.tiles import gaussian_weights

SMALLEST_DEVIATION = 1e-8
# nnU-Net marks voxels outside the nonzero region with a separate label, which is resampled like the others.
_OUTSIDE = -1


@dataclass(frozen=True, kw_only=True)
class NNUNetTiling(Tiling):
    """For even sizes, the centre is the voxel after the middle; small weights are kept."""

    def weights(self, patch_size: Sizes) -> Tensor:
        """Return the blending weights (D, H, W) of a tile."""
        return gaussian_weights(patch_size, is_centred_on_voxel=True, smallest=0.0)


@dataclass(frozen=True, kw_only=True)
class NNUNetVolume(PreparedVolume):
    """A volume cropped to nonzero.

    Attributes:
        image_spacing_mm: Spacing (D, H, W) of the reoriented volume, as used by nnU-Net's rules.
        content: Nonzero voxels (D, H, W) of the cropped part.
    """

    image_spacing_mm: tuple[float, float, float]
    content: Array

    def classes_on_image(self, slabs: Iterable[Tensor], *, output: str, task: Task = UNWATCHED) -> Array:
        """Return the class of every voxel (*shape)."""
        return labelmap_of_slabs(
            slabs, self.grid_shape[0], self.shape, output=output, across=self._nearest_plane_axis, task=task
        )

    def probabilities_on_image(self, logits: Tensor, *, output: str) -> Array:
        """Return probabilities (K, *shape), float16, background first."""
        across = self._nearest_plane_axis
        planes = logits if across is None else take_nearest_planes(logits, across, self.shape[across])
        return probabilities_on_grid(planes, self.shape, output=output)

    @property
    def _nearest_plane_axis(self) -> int | None:
        """Axis along which logits use the nearest plane, or None if they are interpolated along all axes."""
        return plane_axis(self.spacing_mm, self.image_spacing_mm)

    def _found_on_grid(self, labels: Array) -> Array:
        labels[(labels == 0) & ~self.content] = _OUTSIDE
        across = plane_axis(self.image_spacing_mm, self.spacing_mm)
        return resample_labels_by_share(labels, self.grid_shape, across=across)


@CONVENTIONS.register("nnunet", title="nnU-Net")
class NNUNetConventions(Conventions):
    """Crop, normalise and resample in this order, as in nnU-Net."""

    def _prepare(self, turned: Volume, order: AxisOrder, *, labelled: Array | None, task: Task) -> NNUNetVolume:
        mask, box = content_mask(turned.array)
        mask = mask if labelled is None else mask | labelled[box]
        image_spacing_mm = self._rule_spacing_mm(turned)
        spacing_mm = target_mm_of(image_spacing_mm, self.plan)
        shape = shape_at(mask.shape, image_spacing_mm, spacing_mm)
        check_size(shape, turned)
        across = plane_axis(image_spacing_mm, spacing_mm)

        def channels() -> Iterator[Tensor]:
            for channel, scheme in zip(turned.array, self.plan.normalization, strict=True):
                task.check()
                normal = normalize(channel[box], scheme, mask=mask, smallest_deviation=SMALLEST_DEVIATION)
                yield torch.from_numpy(resample_spline(normal.numpy(), shape, across=across))

        return NNUNetVolume(
            image=stack_channels(channels(), turned.channels),
            padding=torch.zeros(turned.channels),
            spacing_mm=spacing_mm,
            shape=(mask.shape[0], mask.shape[1], mask.shape[2]),
            order=order,
            box=box,
            turned_shape=turned.shape,
            image_spacing_mm=image_spacing_mm,
            content=mask,
        )

    def foreseen_shape(self, volume: Volume) -> Sizes:
        """Return the approximate sizes (D, H, W) of a prepared volume, from its geometry alone."""
        turned, _ = turn(volume, self.plan)
        spacing_mm = self._rule_spacing_mm(turned)
        shape = shape_at(turned.shape, spacing_mm, target_mm_of(spacing_mm, self.plan))
        check_size(shape, turned)
        return shape

    def _tiling(self, **options: Any) -> NNUNetTiling:
        return NNUNetTiling(**options)

    def _rule_spacing_mm(self, turned: Volume) -> tuple[float, float, float]:
        is_picture = self.plan.dimensions == 2 and turned.shape[0] == 1
        return spacing_for_rules(turned.spacing_mm, is_picture=is_picture)
