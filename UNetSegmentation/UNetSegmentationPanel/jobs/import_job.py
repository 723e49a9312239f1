"""An import: from a folder or zip archive to a model in the user's folder of models, made by the worker."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from slicer.i18n import tr as _

from UNetSegmentationLib.models.user_folder import new_incoming_folder
from UNetSegmentationLib.protocol.import_model import ImportRequest, ImportResult

from ..background.worker_process import WorkerProcess
from ..choices import wording
from .job import Outcome, Progress, removeFolder


class ImportJob:
    """Lets the worker import one model; `onFinished` is called exactly once."""

    def __init__(
        self,
        path: Path,
        *,
        modelsFolder: Path,
        worker: WorkerProcess,
        onProgress: Callable[[Progress], None],
        onFinished: Callable[[Outcome], None],
    ) -> None:
        self._path = path
        self._models = modelsFolder
        self._incoming = new_incoming_folder(modelsFolder)
        self._worker = worker
        self._onProgress = onProgress
        self._onFinished: Callable[[Outcome], None] | None = onFinished
        self._requestId: int | None = None

    @property
    def isRunning(self) -> bool:
        return self._onFinished is not None

    def start(self) -> None:
        self._onProgress(Progress(fraction=0.0, stage="" if self._worker.ready else _("Starting the worker")))
        request = ImportRequest(path=str(self._path), models=str(self._models), incoming=str(self._incoming))
        self._requestId = self._worker.request("import", request.to_dict(), self._onMessage)

    def cancel(self) -> None:
        """Give up; the job finishes as cancelled within a second, or as done where the model was in place already."""
        if self.isRunning and self._requestId is not None:
            self._onProgress(Progress(fraction=0.0, stage=_("Cancelling")))
            self._worker.cancel(self._requestId)

    def abandon(self, message: str) -> None:
        """Give up at once, saying why."""
        if self._requestId is not None:
            self._worker.cancel(self._requestId)
        self._finish(Outcome(kind="cancelled", message=message))

    def _onMessage(self, message: dict[str, Any]) -> None:
        event = message["event"]
        if event == "progress":
            if self.isRunning:
                stage = str(message["stage"]) if self._worker.ready else _("Starting the worker")
                self._onProgress(Progress(fraction=float(message["fraction"]), stage=stage))
            return
        self._requestId = None
        if self._incoming.exists():
            # A worker that was killed could not tidy up.
            removeFolder(self._incoming)
        self._finish(self._outcomeOf(message))

    def _outcomeOf(self, message: dict[str, Any]) -> Outcome:
        if message["event"] == "result":
            result = ImportResult.from_dict(message)
            return Outcome(kind="done", message="", modelFolder=result.folder, warnings=result.warnings)
        if message["event"] == "cancelled":
            return Outcome(kind="cancelled", message=_("Cancelled; nothing was imported."))
        sentence = wording.sentence(str(message["message"]))
        return Outcome(kind="failed", message=sentence, details=str(message.get("details", "")))

    def _finish(self, outcome: Outcome) -> None:
        onFinished, self._onFinished = self._onFinished, None
        if outcome.details:
            logging.error("%s\n%s", outcome.message, outcome.details)
        if onFinished is not None:
            onFinished(outcome)
