"""What conventions are: how a tool resamples an image to the network's grid, tiles it, and resamples the logits back.

A plan names its conventions; `conventions_of` returns them. Everything specific to a tool is in that tool's file: other
code calls these objects and never checks which conventions they are.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ..core.errors import InputError
from ..core.registry import Registry
from ..core.task import UNWATCHED, Task
from ..image.geometry import Array, AxisOrder, Volume
from ..planning.plan import Plan
from .parts.axes import network_shape, turn
from .parts.image_grid import labelmap_of_slabs, probabilities_on_grid
from .parts.nnunet_math import resample_labels_by_share
from .parts.resampling import resample_labels
from .parts.tiles import gaussian_weights, tile_starts

Sizes = tuple[int, int, int]
Box = tuple[slice, slice, slice]

OVERLAP = 0.5  # fraction of a tile, as in nnU-Net


@dataclass(frozen=True, kw_only=True)
class Tiling:
    """How an image larger than the patch is divided into tiles, which are blended with Gaussian weights.

    Attributes:
        patch_size: Sizes (D, H, W) of a tile.
        dimensions: 2 or 3; a 2D network takes the slices of a tile as its batch.
        overlap: Overlap of neighbouring tiles as a fraction.
        mirror_axes: Axes of (D, H, W); logits are averaged over mirrored copies along all combinations of them.
    """

    patch_size: Sizes
    dimensions: int = 3
    overlap: float = OVERLAP
    mirror_axes: tuple[int, ...] = ()

    @property
    def padding(self) -> str:
        """How an image smaller than a tile is padded: "constant" or "replicate"."""
        return "constant"

    def patch_for(self, shape: Sizes) -> Sizes:
        """Return the sizes (D, H, W) of a tile for an image of size `shape`."""
        del shape
        return self.patch_size

    def starts(self, size: int, patch: int) -> list[int]:
        """Return the first voxel of each tile along an axis of `size` voxels."""
        return tile_starts(size, patch, self.overlap)

    def weights(self, patch_size: Sizes) -> Tensor:
        """Return the blending weights (D, H, W) of a tile."""
        return gaussian_weights(patch_size)


@dataclass(frozen=True, kw_only=True)
class PreparedVolume:
    """A volume on the network's grid, with the mapping back; by default both have the same extent.

    Attributes:
        image: Normalised voxels (C, D, H, W), float32; a missing channel is NaN.
        padding: Value (C,) used outside the image.
        spacing_mm: Spacing (D, H, W) of the network's grid.
        shape: Sizes (D, H, W) after reorientation and cropping, before resampling.
        order: How the axes were reoriented.
        box: The cropped part of the reoriented volume.
        turned_shape: Sizes (D, H, W) of the reoriented volume.
    """

    image: Tensor
    padding: Tensor
    spacing_mm: tuple[float, float, float]
    shape: Sizes
    order: AxisOrder
    box: Box = (slice(None), slice(None), slice(None))
    turned_shape: Sizes

    @property
    def grid_shape(self) -> Sizes:
        """Sizes (D, H, W) of the network's grid."""
        depth, height, width = self.image.shape[1:]
        return depth, height, width

    def labels_on_grid(self, labels: Tensor) -> Tensor:
        """Return a labelmap (*shape) resampled to the network's grid, by nearest neighbour."""
        return resample_labels(labels, self.grid_shape)

    def values_on_image(self, values: Tensor) -> Tensor:
        """Return values (C, d, h, w) of the network's grid resampled linearly to (C, *shape)."""
        return F.interpolate(values[None], size=self.shape, mode="trilinear", align_corners=False)[0]

    def classes_on_image(self, slabs: Iterable[Tensor], *, output: str, task: Task = UNWATCHED) -> Array:
        """Return the class of every voxel (*shape).

        Args:
            slabs: Logits (K, rows, h, w) of the network's output, slab by slab, or in a single slab if the
                conventions need all logits.
            output: One of models.description.OUTPUTS.
            task: Polled for cancellation.

        Raises:
            CancelledError: The task was cancelled.
        """
        return labelmap_of_slabs(slabs, self.grid_shape[0], self.shape, output=output, task=task)

    def probabilities_on_image(self, logits: Tensor, *, output: str) -> Array:
        """Return probabilities (K, *shape), float16, background first.

        Args:
            logits: Output of the network, (K, d, h, w).
            output: One of models.description.OUTPUTS.
        """
        return probabilities_on_grid(logits, self.shape, output=output)

    def with_found_labels(self, labelmap: Array, label_values: Sequence[int]) -> Self:
        """Return the volume with an extra channel for each label value: 1 where it was found, 0 elsewhere.

        Args:
            labelmap: Labelmap (D, H, W) of a cascade's first stage, on the grid of the original volume.
            label_values: Label values, in the order of the channels.
        """
        labels = self.order.apply(labelmap)[self.box].astype(np.int32)
        resampled = self._found_on_grid(labels)
        found = torch.stack([torch.from_numpy(resampled == value) for value in label_values]).float()
        return replace(
            self,
            image=torch.cat([self.image, found]),
            padding=torch.cat([self.padding, self.padding.new_zeros(len(found))]),
        )

    def _found_on_grid(self, labels: Array) -> Array:
        return resample_labels_by_share(labels, self.grid_shape, across=None)

    def restore(self, array: Array, *, outside: Sequence[float] | float = 0) -> Array:
        """Return an array (..., *shape) on the grid of the original volume.

        Args:
            array: A result.
            outside: Value of voxels that were cropped away, or one value for each channel of (C, *shape).
        """
        if self.shape != self.turned_shape:
            whole = np.empty((*array.shape[:-3], *self.turned_shape), dtype=array.dtype)
            whole[...] = np.reshape(np.asarray(outside, dtype=array.dtype), (-1, 1, 1, 1)[-array.ndim :])
            whole[(..., *self.box)] = array
            array = whole
        return np.ascontiguousarray(self.order.undo(array))


class Conventions(ABC):
    """The preprocessing and postprocessing of one tool.

    Attributes:
        needs_all_logits: Postprocessing needs all logits at once, not slab by slab.
        may_shrink_tiles: Tiles smaller than the plan's patch give equally good results; imported models keep their
            patch, so that their results stay the same.

    Args:
        plan: The plan to prepare images with.
    """

    needs_all_logits: ClassVar[bool] = False
    may_shrink_tiles: ClassVar[bool] = False

    def __init__(self, plan: Plan) -> None:
        self.plan = plan

    def prepare(
        self,
        volume: Volume,
        *,
        found_first: Array | None = None,
        label_values: Sequence[int] = (),
        task: Task = UNWATCHED,
    ) -> PreparedVolume:
        """Reorient, normalise and resample a volume according to the plan.

        Args:
            volume: One channel for each normalization of the plan.
            found_first: Labelmap (D, H, W) of a cascade's first stage.
            label_values: Its label values that are input channels of the second stage.
            task: Polled for cancellation.

        Raises:
            InputError: The number of channels differs from the plan's, or the spacing is implausible.
            CancelledError: The task was cancelled.
        """
        if volume.channels != len(self.plan.normalization):
            raise InputError(
                f"the image has {volume.channels} channel(s), but the model needs {len(self.plan.normalization)}: "
                "give one file per channel, in the model's order"
            )
        turned, order = turn(volume, self.plan)
        labelled = None if found_first is None else order.apply(found_first) != 0
        prepared = self._prepare(turned, order, labelled=labelled, task=task)
        return prepared if found_first is None else prepared.with_found_labels(found_first, label_values)

    @abstractmethod
    def _prepare(self, turned: Volume, order: AxisOrder, *, labelled: Array | None, task: Task) -> PreparedVolume:
        """Normalise and resample a reoriented volume; `labelled` (D, H, W) is the foreground of a first stage."""

    def foreseen_shape(self, volume: Volume) -> Sizes:
        """Return the approximate sizes (D, H, W) of a prepared volume, from its geometry alone.

        Cropping to nonzero may give a smaller size; a grid with another extent may be one voxel larger.

        Args:
            volume: A volume, of which only the geometry is used.

        Raises:
            InputError: The spacing is implausible.
        """
        turned, _ = turn(volume, self.plan)
        return network_shape(turned, self.plan)

    @property
    def overlap(self) -> float:
        """Default overlap of neighbouring tiles as a fraction."""
        return OVERLAP

    def tiling(
        self,
        shape: Sequence[int],
        alignment: Sequence[int],
        *,
        overlap: float | None = None,
        is_mirrored: bool = False,
    ) -> Tiling:
        """Return the tiling of a prepared image.

        Args:
            shape: Its sizes (D, H, W).
            alignment: The network pads its input to multiples of these sizes.
            overlap: Overlap of neighbouring tiles as a fraction, or None for the default of the conventions.
            is_mirrored: Average over mirrored copies along the plan's axes.
        """
        return self._tiling(
            patch_size=self._tile_size(shape, alignment),
            dimensions=self.plan.dimensions,
            overlap=self.overlap if overlap is None else overlap,
            mirror_axes=self.plan.mirror_axes if is_mirrored else (),
        )

    def _tile_size(self, shape: Sequence[int], alignment: Sequence[int]) -> Sizes:
        del shape, alignment
        return self.plan.patch_size

    def _tiling(self, **options: Any) -> Tiling:
        return Tiling(**options)


CONVENTIONS: Registry[type[Conventions]] = Registry("set of conventions", "UNetSegmentationLib.conventions")


def conventions_of(plan: Plan) -> Conventions:
    """Return the conventions that a plan names."""
    return CONVENTIONS[plan.conventions](plan)


def prepare(volume: Volume, plan: Plan, *, task: Task = UNWATCHED) -> PreparedVolume:
    """Return a volume prepared for a plan's network; see Conventions.prepare."""
    return conventions_of(plan).prepare(volume, task=task)
