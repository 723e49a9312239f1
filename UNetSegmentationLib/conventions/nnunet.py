"""nnU-Net's conventions, for weights from there (Isensee et al. 2021, doi:10.1038/s41592-020-01008-z).

Images are cropped to what is not zero, resampled by splines and across thick slices by the nearest, and padded with
zeros; tiles' weights are centred on a voxel.
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
# nnU-Net marks what lies outside the content as a label of its own, which takes its share when it is resampled.
_OUTSIDE = -1


@dataclass(frozen=True, kw_only=True)
class NNUNetTiling(Tiling):
    """Even sizes have their centre on the voxel after the middle, and no weight is too small."""

    def weights(self, patch_size: Sizes) -> Tensor:
        """Return the blending weights (D, H, W) of a tile."""
        return gaussian_weights(patch_size, is_centred_on_voxel=True, smallest=0.0)


@dataclass(frozen=True, kw_only=True)
class NNUNetVolume(PreparedVolume):
    """A volume cropped to its content.

    Attributes:
        image_spacing_mm: Spacing (D, H, W) of the turned volume that nnU-Net's rules go by.
        content: Voxels (D, H, W) of the cropped part that are not empty.
    """

    image_spacing_mm: tuple[float, float, float]
    content: Array

    def classes_on_image(self, slabs: Iterable[Tensor], *, output: str, task: Task = UNWATCHED) -> Array:
        """Return the class of every voxel (*shape)."""
        return labelmap_of_slabs(
            slabs, self.grid_shape[0], self.shape, output=output, across=self._across_on_the_way_back, task=task
        )

    def probabilities_on_image(self, logits: Tensor, *, output: str) -> Array:
        """Return probabilities (K, *shape), float16, background first."""
        across = self._across_on_the_way_back
        planes = logits if across is None else take_nearest_planes(logits, across, self.shape[across])
        return probabilities_on_grid(planes, self.shape, output=output)

    @property
    def _across_on_the_way_back(self) -> int | None:
        """Axis along which logits take the nearest plane; None: they are interpolated along all."""
        return plane_axis(self.spacing_mm, self.image_spacing_mm)

    def _found_on_grid(self, labels: Array) -> Array:
        labels[(labels == 0) & ~self.content] = _OUTSIDE
        across = plane_axis(self.image_spacing_mm, self.spacing_mm)
        return resample_labels_by_share(labels, self.grid_shape, across=across)


@CONVENTIONS.register("nnunet", title="nnU-Net")
class NNUNetConventions(Conventions):
    """Crop, normalise and resample as nnU-Net does, in this order."""

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
        """Return about which sizes (D, H, W) `prepare` will give a volume, by its geometry alone."""
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
