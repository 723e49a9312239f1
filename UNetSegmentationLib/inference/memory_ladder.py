"""Applying a network to a prepared image within the free memory."""

from __future__ import annotations

import gc
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from ..backends.parts.devices import is_out_of_memory
from ..backends.parts.engine import Engine
from ..backends.parts.timing import default_backend
from ..conventions import PreparedVolume, Tiling, conventions_of
from ..core.errors import InputError
from ..core.messages import sentence
from ..core.task import UNWATCHED, Task
from ..image.geometry import Array
from ..models.description import ModelDescription
from .memory import Need, Way, Workload, check_fits, fits, need_of, surely_fits, ways
from .sliding_window import logit_slabs, predict_logits

if TYPE_CHECKING:
    from ..networks import SegmentationNetwork


def apply_network(
    engine: Engine,
    description: ModelDescription,
    prepared: PreparedVolume,
    workload: Workload,
    *,
    tiling: Tiling,
    task: Task = UNWATCHED,
) -> tuple[Tensor | None, Array | None, str]:
    """Return all logits, or the class of every voxel of the image; and a warning if memory was short.

    If the estimate exceeds the free memory, a way that needs less is used from the start; if memory runs out anyway,
    the next one is tried.

    Args:
        engine: The network on its device.
        description: The model.
        prepared: The network's input.
        workload: Its memory-related properties; `is_whole` requests all logits.
        tiling: Tiling of the image if memory suffices.
        task: Receives progress; polled for cancellation.

    Raises:
        InputError: Not even the way that needs the least memory fits.
        CancelledError: The task was cancelled.
    """
    left = _ways(engine, description, workload)
    first = left[0]
    if not surely_fits(description, workload, first):
        check_fits(*_first_that_fits(description, workload, left))
    while True:
        way = left.pop(0)
        try:
            logits, classes = _apply(engine, description, prepared, workload, way, tiling=tiling, task=task)
        except Exception as error:
            if not left or not is_out_of_memory(error):
                raise
        else:
            changes = way.changes(first)
            said = (
                sentence(f"memory is low: computed {changes}, which may change the result slightly") if changes else ""
            )
            return logits, classes, said
        # Only after the error is gone, whose traceback keeps the tensors of the failed attempt.
        gc.collect()
        if engine.device.type == "cuda":
            torch.cuda.empty_cache()


@dataclass(frozen=True, kw_only=True)
class Foresight:
    """How a segmentation would be computed with the currently free memory.

    Attributes:
        need: Peak memory, or None if it certainly fits and was not computed.
        way: How it would be computed.
        shortage: Changes due to low memory, in words, or "".
        refusal: Why it would be refused, as a sentence, or "".
    """

    need: Need | None
    way: Way
    shortage: str = ""
    refusal: str = ""


def foresee(engine: Engine, description: ModelDescription, workload: Workload, *, is_exact: bool = False) -> Foresight:
    """Return how `apply_network` would compute a workload now.

    Args:
        engine: The network on its device.
        description: The model.
        workload: The segmentation.
        is_exact: Compute the need even if it certainly fits.
    """
    left = _ways(engine, description, workload)
    first = left[0]
    if not is_exact and surely_fits(description, workload, first):
        return Foresight(need=None, way=first)
    need, way = _first_that_fits(description, workload, left)
    try:
        check_fits(need, way)
    except InputError as error:
        return Foresight(need=need, way=way, refusal=str(error))
    return Foresight(need=need, way=way, shortage=way.changes(first))


def _first_that_fits(description: ModelDescription, workload: Workload, left: list[Way]) -> tuple[Need, Way]:
    """Return the first way that fits (or the last one) with its need; earlier ones are removed from the list."""
    while True:
        need = need_of(description, workload, left[0])
        if len(left) == 1 or fits(need, left[0].device):
            return need, left[0]
        left.pop(0)


def _ways(engine: Engine, description: ModelDescription, workload: Workload) -> list[Way]:
    conventions = conventions_of(description.plan)
    alignment = cast("SegmentationNetwork", engine.network).alignment
    tile = conventions.tiling(workload.shape, alignment).patch_size
    first = Way(tile=tile, device=str(engine.device), backend=engine.forced_backend)
    return list(ways(first, may_shrink=conventions.may_shrink_tiles, alignment=alignment))


def _apply(
    engine: Engine,
    description: ModelDescription,
    prepared: PreparedVolume,
    workload: Workload,
    way: Way,
    *,
    tiling: Tiling,
    task: Task,
) -> tuple[Tensor | None, Array | None]:
    applied = engine
    if way.device != str(engine.device):
        device = torch.device(way.device)
        applied = Engine(deepcopy(engine.network).to(device), device=device, backend=default_backend(device))
        # So that the engine reports how it was computed.
        engine.used, engine.computed_on = applied.used, device
    image = prepared.image.to("cpu" if way.is_on_host else way.device)
    tiling = replace(tiling, patch_size=way.tile)
    dtype = torch.float16 if way.is_half else torch.float32
    options: dict[str, Any] = {"padding": prepared.padding, "dtype": dtype, "device": torch.device(way.device)}
    if workload.is_whole:
        return predict_logits(applied, image, tiling, **options, task=task), None
    slabs = logit_slabs(applied, image, tiling, **options, task=task)
    return None, prepared.classes_on_image(slabs, output=description.output, task=task)
