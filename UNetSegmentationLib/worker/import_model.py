"""Import of a model into a folder of models."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..importers.parts.add_model import add_model
from ..inference.predictor import Progress
from ..protocol.import_model import ImportRequest, ImportResult
from .contract import OPERATIONS
from .warm_models import WarmModels


@OPERATIONS.register("import", title="Import a model")
def import_model(
    values: dict[str, Any], _models: WarmModels, *, on_progress: Progress, is_cancelled: Callable[[], bool]
) -> dict[str, Any]:
    """Serve an "import" request and return the fields of its result.

    Args:
        values: The request as it came.
        on_progress: Called with the stage in words; how far it is cannot be told.
        is_cancelled: Asked between the stages.

    Raises:
        InputError: The request cannot be understood, or the model cannot be imported.
        CancelledError: `is_cancelled` said so.
    """
    request = ImportRequest.from_dict(values)
    model, warnings = add_model(
        Path(request.path),
        models_folder=Path(request.models),
        incoming=Path(request.incoming),
        on_stage=lambda stage: on_progress(0.0, stage),
        is_cancelled=is_cancelled,
    )
    return ImportResult(folder=str(model.folder), warnings=warnings).to_dict()
