"""Recently used models, kept in memory."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Generator
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..inference.predictor import Predictor
from ..models.description import DESCRIPTION_FILE, PREVIOUS_FOLDER, WEIGHTS_FILE

WARM_MODELS = 3


class WarmModels:
    """Recently used models, kept in memory until their files change.

    Args:
        limit: Maximum number of models.
    """

    def __init__(self, limit: int = WARM_MODELS) -> None:
        self._limit = limit
        self._predictors: OrderedDict[tuple[Any, ...], Predictor] = OrderedDict()

    def get(self, folder: str, device: str) -> Predictor:
        """Return the predictor for a model folder on a device, loading it if necessary.

        Raises:
            InputError: The folder is not a valid model, or the machine has no such device.
        """
        files = (
            DESCRIPTION_FILE,
            WEIGHTS_FILE,
            f"{PREVIOUS_FOLDER}/{DESCRIPTION_FILE}",
            f"{PREVIOUS_FOLDER}/{WEIGHTS_FILE}",
        )
        key = (str(Path(folder).resolve()), device, *(_stamp(folder, name) for name in files))
        predictor = self._predictors.pop(key, None) or Predictor(folder, device=device)
        self._predictors[key] = predictor
        while len(self._predictors) > self._limit:
            self._predictors.popitem(last=False)
        return predictor

    def improvements(self) -> Generator[None, None, None]:
        """Measure the fastest backends for the models, most recently used first, while the caller iterates.

        Errors here are harmless: the models keep their current backend.
        """
        for predictor in reversed(list(self._predictors.values())):
            stages = (predictor, predictor.previous) if predictor.previous else (predictor,)
            for stage in stages:
                with suppress(Exception):
                    yield from stage.engine.improvements()

    def forget(self) -> None:
        """Drop all models to free their memory."""
        self._predictors.clear()


def _stamp(folder: str, name: str) -> tuple[int, int]:
    try:
        status = (Path(folder) / name).stat()
    except OSError:
        return (0, 0)
    return (status.st_mtime_ns, status.st_size)
