"""What conventions are: how one tool brings an image to a network's grid, divides it, and brings the logits back.

A plan names its conventions; `conventions_of` returns them. Everything that depends on the tool is decided in its own
file: a flow asks these objects and never which conventions they are.
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

OVERLAP = 0.5  # of neighbouring tiles, as in nnU-Net


@dataclass(frozen=True, kw_only=True)
class Tiling:
    """How an image larger than the patch is divided into tiles, and how these are blended: by a Gaussian.

    Attributes:
        patch_size: Sizes (D, H, W) of a tile.
        dimensions: 2 or 3; a 2D network takes the slices of a tile as its batch.
        overlap: Share of a tile that neighbours have in common.
        mirror_axes: Logits are averaged over mirrored copies along all combinations of these axes of (D, H, W).
    """

    patch_size: Sizes
    dimensions: int = 3
    overlap: float = OVERLAP
    mirror_axes: tuple[int, ...] = ()

    @property
    def padding(self) -> str:
        """How an image smaller than a tile is enlarged: "constant" or "replicate"."""
        return "constant"

    def patch_for(self, shape: Sizes) -> Sizes:
        """Return the sizes (D, H, W) of a tile of an image of sizes `shape`."""
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
    """A volume on the network's grid, and the way back; by default both cover the same extent.

    Attributes:
        image: Normalised voxels (C, D, H, W), float32; a missing channel is NaN.
        padding: Value (C,) that stands for what lies outside the image.
        spacing_mm: Spacing (D, H, W) of the network's grid.
        shape: Sizes (D, H, W) after turning the axes and cropping, before resampling.
        order: How the axes were turned.
        box: Where the cropped part lies in the turned volume.
        turned_shape: Sizes (D, H, W) of that volume.
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
        """Return a labelmap (*shape) brought to the network's grid, by the nearest voxel."""
        return resample_labels(labels, self.grid_shape)

    def values_on_image(self, values: Tensor) -> Tensor:
        """Return values (C, d, h, w) of the network's grid on (C, *shape), linearly."""
        return F.interpolate(values[None], size=self.shape, mode="trilinear", align_corners=False)[0]

    def classes_on_image(self, slabs: Iterable[Tensor], *, output: str, task: Task = UNWATCHED) -> Array:
        """Return the class of every voxel (*shape).

        Args:
            slabs: Logits (K, rows, h, w) of what the network saw, slab by slab; all in one where the conventions need
                all logits.
            output: One of models.description.OUTPUTS.
            task: Asked often whether to go on.

        Raises:
            CancelledError: The task was cancelled.
        """
        return labelmap_of_slabs(slabs, self.grid_shape[0], self.shape, output=output, task=task)

    def probabilities_on_image(self, logits: Tensor, *, output: str) -> Array:
        """Return probabilities (K, *shape), float16, background first.

        Args:
            logits: Of what the network saw, (K, d, h, w).
            output: One of models.description.OUTPUTS.
        """
        return probabilities_on_grid(logits, self.shape, output=output)

    def with_found_labels(self, labelmap: Array, label_values: Sequence[int]) -> Self:
        """Return the volume with a further channel for each label value: 1 where it was found, 0 elsewhere.

        Args:
            labelmap: What the first network of a cascade found (D, H, W), on the grid of the volume that was prepared.
            label_values: Which values, in the order of the channels.
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
        """Return an array (..., *shape) on the grid of the volume that was prepared.

        Args:
            array: A result.
            outside: Value of the voxels that were cropped away; one for each channel of (C, *shape).
        """
        if self.shape != self.turned_shape:
            whole = np.empty((*array.shape[:-3], *self.turned_shape), dtype=array.dtype)
            whole[...] = np.reshape(np.asarray(outside, dtype=array.dtype), (-1, 1, 1, 1)[-array.ndim :])
            whole[(..., *self.box)] = array
            array = whole
        return np.ascontiguousarray(self.order.undo(array))


class Conventions(ABC):
    """One tool's way to a network and back.

    Attributes:
        needs_all_logits: The way back looks at all logits at once, not slab by slab.
        may_shrink_tiles: Tiles smaller than the plan's patch give as good a result; imported models keep their patch,
            and with it their results.

    Args:
        plan: By which images are prepared.
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
        """Turn the axes, normalise and resample as the plan says.

        Args:
            volume: One channel for each normalization of the plan.
            found_first: Labelmap (D, H, W) of the first network of a cascade.
            label_values: Those of its values that the second network takes a channel of.
            task: Asked often whether to go on.

        Raises:
            InputError: Another number of channels than the plan's, or a spacing that is out of all proportion.
            CancelledError: The task was cancelled.
        """
        if volume.channels != len(self.plan.normalization):
            raise InputError(
                f"the image has {volume.channels} channel(s), the model needs {len(self.plan.normalization)}: "
                "give one file per channel, in the model's order"
            )
        turned, order = turn(volume, self.plan)
        labelled = None if found_first is None else order.apply(found_first) != 0
        prepared = self._prepare(turned, order, labelled=labelled, task=task)
        return prepared if found_first is None else prepared.with_found_labels(found_first, label_values)

    @abstractmethod
    def _prepare(self, turned: Volume, order: AxisOrder, *, labelled: Array | None, task: Task) -> PreparedVolume:
        """Normalise and resample a turned volume; `labelled` (D, H, W) is where a first network found something."""

    def foreseen_shape(self, volume: Volume) -> Sizes:
        """Return about which sizes (D, H, W) `prepare` will give a volume, by its geometry alone.

        Cropping to the content may leave less; a grid that does not keep the extent may be one voxel larger.

        Args:
            volume: Of whose voxels nothing but their number is looked at.

        Raises:
            InputError: A spacing that is out of all proportion.
        """
        turned, _ = turn(volume, self.plan)
        return network_shape(turned, self.plan)

    @property
    def overlap(self) -> float:
        """Share of a tile that neighbours have in common unless the user says otherwise."""
        return OVERLAP

    def tiling(
        self,
        shape: Sequence[int],
        alignment: Sequence[int],
        *,
        overlap: float | None = None,
        is_mirrored: bool = False,
    ) -> Tiling:
        """Return how a prepared image is divided.

        Args:
            shape: Its sizes (D, H, W).
            alignment: Sizes that the network pads to multiples of, along its axes.
            overlap: Share of a tile that neighbours have in common; None: as the conventions have it.
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
    """Return a volume as a plan's network takes it; see Conventions.prepare."""
    return conventions_of(plan).prepare(volume, task=task)
