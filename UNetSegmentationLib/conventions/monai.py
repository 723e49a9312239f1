"""MONAI's conventions, for models from its bundles (arXiv:2211.02701): defined by the plan's recipe."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..core.errors import InputError
from ..core.task import UNWATCHED, Task
from ..image.geometry import Array, AxisOrder, Volume
from ..planning.monai_recipe import MonaiRecipe
from ..planning.monai_recipe import Tiling as TilingRecipe
from ..planning.plan import Plan
from .contract import CONVENTIONS, Conventions, PreparedVolume, Sizes, Tiling
from .parts.axes import check_size
from .parts.image_grid import labelmap_on_grid, probabilities_on_grid
from .parts.monai_math import (
    SteppedGrid,
    follow,
    grid_for,
    linear_at,
    nearest_at,
    spacing_for,
    tile_starts,
    tile_weights,
)


@dataclass(frozen=True, kw_only=True)
class MonaiTiling(Tiling):
    """Tiles at regular steps.

    Attributes:
        recipe: Weights and padding.
    """

    recipe: TilingRecipe

    @property
    def padding(self) -> str:
        """How an image smaller than a tile is padded."""
        return self.recipe.padding

    def patch_for(self, shape: Sizes) -> Sizes:
        """Return the sizes (D, H, W) of a tile for an image of size `shape`."""
        return self.recipe.patch_for(shape, self.patch_size)

    def starts(self, size: int, patch: int) -> list[int]:
        """Return the first voxel of each tile along an axis of `size` voxels."""
        return tile_starts(size, patch, self.overlap)

    def weights(self, patch_size: Sizes) -> Tensor:
        """Return the blending weights (D, H, W) of a tile."""
        return tile_weights(patch_size, kind=self.recipe.weights, sigma_ratio=self.recipe.sigma_ratio)


@dataclass(frozen=True, kw_only=True)
class MonaiVolume(PreparedVolume):
    """A volume on a grid that may differ from the extent of the image.

    Attributes:
        grid: The network's grid.
        restored: One of monai_recipe.RESTORED: what is resampled to the image's grid.
    """

    grid: SteppedGrid
    restored: str

    def labels_on_grid(self, labels: Tensor) -> Tensor:
        """Return a labelmap (*shape) resampled to the network's grid, by nearest neighbour."""
        return self.grid.labels(labels)

    def values_on_image(self, values: Tensor) -> Tensor:
        """Return values (C, d, h, w) of the network's grid resampled linearly to (C, *shape)."""
        return linear_at(self.grid.whole(values), self.grid.back_positions)

    def classes_on_image(self, slabs: Iterable[Tensor], *, output: str, task: Task = UNWATCHED) -> Array:
        """Return the class of every voxel (*shape); all logits come in one slab."""
        (logits,) = slabs
        grid = self.grid
        if self.restored == "classes":
            depth, height, width = logits.shape[1:]
            classes = labelmap_on_grid(logits, (depth, height, width), output=output, task=task)
            whole = grid.whole(torch.from_numpy(classes)[None])[0]
            found: Array = nearest_at(whole, grid.back_positions).numpy()
            return found
        scores = self._scores(logits, output=output, is_activated=self.restored == "probabilities")
        if output == "regions" and self.restored == "probabilities":
            scores = scores - 0.5
        return labelmap_on_grid(scores, grid.shape, output=output, positions=grid.back_positions, task=task)

    def probabilities_on_image(self, logits: Tensor, *, output: str) -> Array:
        """Return probabilities (K, *shape), float16, background first."""
        scores = self._scores(logits, output=output, is_activated=True)
        return probabilities_on_grid(
            scores, self.grid.shape, output=output, positions=self.grid.back_positions, is_activated=True
        )

    def _scores(self, logits: Tensor, *, output: str, is_activated: bool) -> Tensor:
        """Return logits or probabilities on the whole grid, 0 outside the network's input."""
        if is_activated:
            logits = logits.sigmoid() if output == "regions" else logits.softmax(dim=0)
        return self.grid.whole(logits)


@CONVENTIONS.register("monai", title="MONAI")
class MonaiConventions(Conventions):
    """Follows the recipe of a plan."""

    needs_all_logits = True

    def __init__(self, plan: Plan) -> None:
        super().__init__(plan)
        if plan.recipe is None:
            raise InputError("the plan has the conventions 'monai' but no recipe: import the bundle again")
        self._recipe: MonaiRecipe = plan.recipe

    def _prepare(self, turned: Volume, order: AxisOrder, *, labelled: Array | None, task: Task) -> MonaiVolume:
        del labelled
        spacing_mm = spacing_for(turned.spacing_mm, self.plan.spacing_mm)
        axes_mm = turned.affine_ras[:3, 2::-1]
        image, grid, box = follow(
            self._recipe,
            torch.from_numpy(np.array(turned.array, dtype=np.float32, order="C")),
            grid_of=lambda shape: grid_for(shape, axes_mm, spacing_mm),
            check_size=lambda shape: check_size(shape, turned),
            task=task,
        )
        return MonaiVolume(
            image=image,
            padding=torch.full((len(image),), self._recipe.tiling.padding_value),
            spacing_mm=spacing_mm,
            shape=grid.shape,
            order=order,
            box=box,
            turned_shape=turned.shape,
            grid=grid,
            restored=self._recipe.restored,
        )

    @property
    def overlap(self) -> float:
        """Default overlap of neighbouring tiles as a fraction."""
        return self._recipe.tiling.overlap

    def _tiling(self, **options: Any) -> MonaiTiling:
        return MonaiTiling(**options, recipe=self._recipe.tiling)
