"""Import of a model into a folder of models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..core.task import Task
from ..importers.parts.add_model import add_model
from ..protocol.import_model import ImportRequest, ImportResult
from .contract import OPERATIONS
from .warm_models import WarmModels


@OPERATIONS.register("import", title="Import a model")
def import_model(values: dict[str, Any], _models: WarmModels, *, task: Task) -> dict[str, Any]:
    """Serve an "import" request and return the fields of its result.

    Args:
        values: The raw request.
        task: Receives the stage, without a fraction; polled for cancellation between stages.

    Raises:
        InputError: The request is invalid, or the model cannot be imported.
        CancelledError: The task was cancelled.
    """
    request = ImportRequest.from_dict(values)
    model, warnings = add_model(
        Path(request.path),
        models_folder=Path(request.models),
        incoming=Path(request.incoming),
        task=task,
    )
    return ImportResult(folder=str(model.folder), warnings=warnings).to_dict()
