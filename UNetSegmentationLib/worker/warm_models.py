"""The models used last, in memory."""

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
    """The models used last, in memory, as long as their files do not change.

    Args:
        limit: How many are kept.
    """

    def __init__(self, limit: int = WARM_MODELS) -> None:
        self._limit = limit
        self._predictors: OrderedDict[tuple[Any, ...], Predictor] = OrderedDict()

    def get(self, folder: str, device: str) -> Predictor:
        """Return the predictor of a model folder on a device, loaded where it is not there yet.

        Raises:
            InputError: The folder is no usable model, or the machine has no such device.
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
        """Measure how the models' networks are best computed, the model used last first, as long as this is asked.

        What goes wrong here is nobody's loss: the models compute as before.
        """
        for predictor in reversed(list(self._predictors.values())):
            stages = (predictor, predictor.previous) if predictor.previous else (predictor,)
            for stage in stages:
                with suppress(Exception):
                    yield from stage.engine.improvements()

    def forget(self) -> None:
        """Let go of all models, so that their memory is free."""
        self._predictors.clear()


def _stamp(folder: str, name: str) -> tuple[int, int]:
    try:
        status = (Path(folder) / name).stat()
    except OSError:
        return (0, 0)
    return (status.st_mtime_ns, status.st_size)
