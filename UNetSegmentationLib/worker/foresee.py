"""Checks whether a segmentation would fit into memory."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..core.errors import InputError
from ..core.messages import sentence
from ..core.task import Task
from ..image.geometry import Volume, crop_to_region
from ..protocol.foresee import ForeseeRequest, ForeseeResult
from .contract import OPERATIONS
from .warm_models import WarmModels


@OPERATIONS.register("foresee", title="Check whether a volume fits into memory")
def foresee(values: dict[str, Any], models: WarmModels, *, task: Task) -> dict[str, Any]:
    """Serve a "foresee" request and return the fields of its result; the model stays in memory.

    Args:
        values: The raw request.
        models: Models in memory.
        task: Checked for cancellation once, before the model is loaded.

    Raises:
        InputError: The request is invalid, or the volume or its region does not fit the model.
        CancelledError: The task was cancelled.
    """
    request = ForeseeRequest.from_dict(values)
    task.check()
    volume = _empty_volume(request)
    if request.region_to_ras is not None:
        volume, _where = crop_to_region(volume, np.array(request.region_to_ras))
    predictor = models.get(request.model, request.device)
    found = predictor.foresee(volume, tta=request.tta, with_probabilities=request.with_probabilities)
    warning = found.refusal
    if found.shortage:
        warning = sentence(f"memory is low: it will be computed {found.shortage}")
    return ForeseeResult(warning=warning).to_dict()


def _empty_volume(request: ForeseeRequest) -> Volume:
    """Return a volume of the right sizes that takes no memory."""
    try:
        return Volume(np.broadcast_to(np.int8(0), request.shape), np.array(request.affine_ras))
    except ValueError as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"the foresee request is invalid: {error}") from error
