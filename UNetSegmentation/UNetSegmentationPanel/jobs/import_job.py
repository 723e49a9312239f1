"""Import of a model from a folder or zip archive into the user's models folder, by the worker."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from slicer.i18n import tr as _

from UNetSegmentationLib.models.user_folder import new_incoming_folder
from UNetSegmentationLib.protocol.import_model import ImportRequest, ImportResult

from ..background.worker_process import WorkerProcess
from .job import Outcome, Progress
from .worker_job import WorkerJob


@dataclass(frozen=True, kw_only=True)
class ImportOutcome(Outcome):
    """Outcome of a successful import.

    Attributes:
        modelFolder: Folder of the model.
    """

    modelFolder: Path


class ImportJob(WorkerJob):
    """Lets the worker import one model.

    Args:
        path: Folder or zip archive of the model.
        modelsFolder: The user's models folder, which receives the model.
        worker: The process that imports.
        onProgress: Called with the progress during the import.
        onFinished: Called exactly once: with an ImportOutcome on success, otherwise with an Outcome.
    """

    kind: ClassVar[str] = "import"

    def __init__(
        self,
        path: Path,
        *,
        modelsFolder: Path,
        worker: WorkerProcess,
        onProgress: Callable[[Progress], None],
        onFinished: Callable[[Outcome], None],
    ) -> None:
        super().__init__(worker=worker, onProgress=onProgress, onFinished=onFinished)
        self._path = path
        self._models = modelsFolder
        # The worker cleans up after itself unless it is killed.
        self._folder = new_incoming_folder(modelsFolder)

    def whyWait(self) -> str:
        return _("A model is being imported: wait for it to finish, or cancel the import.")

    def _begin(self) -> None:
        request = ImportRequest(path=str(self._path), models=str(self._models), incoming=str(self._folder))
        self._send("import", request.to_dict(), stage="")

    def _onResult(self, message: dict[str, Any]) -> None:
        result = ImportResult.from_dict(message)
        folder = Path(result.folder)
        self._finish(ImportOutcome(kind="done", message="", modelFolder=folder, warnings=result.warnings))

    def _whenCancelled(self) -> str:
        return _("Cancelled; nothing was imported.")
