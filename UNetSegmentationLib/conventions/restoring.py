"""From logits on the network's grid to a labelmap and probabilities on the image's, as the plan's conventions do it."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from ..core.task import UNWATCHED, Task
from ..image.geometry import Array
from ..planning.plan import Plan
from .image_grid import labelmap_of_slabs, labelmap_on_grid, probabilities_on_grid
from .monai_math import SteppedGrid, nearest_at
from .own import PreparedVolume


def classes_on_image(
    slabs: Iterable[Tensor],
    prepared: PreparedVolume,
    plan: Plan,
    *,
    output: str,
    task: Task = UNWATCHED,
) -> Array:
    """Return the class of every voxel (*prepared.shape) of an image whose axes are turned.

    Args:
        slabs: Logits (K, rows, h, w) of what the network saw, slab by slab; by MONAI's conventions all in one.
        prepared: Where that lies in the image.
        plan: By which it was prepared.
        output: One of model_folder.OUTPUTS.
        task: Asked often whether to go on.

    Raises:
        CancelledError: The task was cancelled.
    """
    grid = prepared.grid
    if grid is None or plan.recipe is None:
        return labelmap_of_slabs(
            slabs,
            prepared.image.shape[1],
            prepared.shape,
            output=output,
            across=prepared.across,
            task=task,
        )
    (logits,) = slabs
    if plan.recipe.restored == "classes":
        depth, height, width = logits.shape[1:]
        classes = labelmap_on_grid(logits, (depth, height, width), output=output, task=task)
        whole = grid.whole(torch.from_numpy(classes)[None])[0]
        found: Array = nearest_at(whole, grid.back_positions).numpy()
        return found
    scores = _scores(logits, grid, output=output, is_activated=plan.recipe.restored == "probabilities")
    if output == "regions" and plan.recipe.restored == "probabilities":
        scores = scores - 0.5
    return labelmap_on_grid(scores, grid.shape, output=output, positions=grid.back_positions, task=task)


def probabilities_on_image(logits: Tensor, prepared: PreparedVolume, *, output: str) -> Array:
    """Return probabilities, float16, background first, on the grid (*prepared.shape).

    Args:
        logits: Of what the network saw, (K, d, h, w).
        prepared: Where that lies in the image.
        output: One of model_folder.OUTPUTS.
    """
    grid = prepared.grid
    if grid is None:
        return probabilities_on_grid(prepared.on_planes(logits), prepared.shape, output=output)
    scores = _scores(logits, grid, output=output, is_activated=True)
    return probabilities_on_grid(scores, grid.shape, output=output, positions=grid.back_positions, is_activated=True)


def _scores(logits: Tensor, grid: SteppedGrid, *, output: str, is_activated: bool) -> Tensor:
    """Return logits or probabilities on the whole grid, 0 where the network saw nothing."""
    if is_activated:
        logits = logits.sigmoid() if output == "regions" else logits.softmax(dim=0)
    return grid.whole(logits)
