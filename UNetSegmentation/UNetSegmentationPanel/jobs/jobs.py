"""The jobs of the panel, of which one at a time may run, and the worker that they share."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import slicer
from slicer.i18n import tr as _
from slicer.util import VTKObservationMixin

from UNetSegmentationLib.models.installed import InstalledModel, list_models, user_models_folder

from ..background.steps import Steps
from ..background.worker_process import WorkerProcess
from ..scene import surfaces
from .import_job import ImportJob
from .job import Outcome, Progress
from .segment_job import SegmentJob, SegmentSettings


class Jobs(VTKObservationMixin):
    """The one job that may run, and the worker that all jobs share.

    Args:
        worker: The process that works; by default Slicer's Python with the library's worker.
        listModels: Returns the models that can be used.
        modelsFolder: Returns where imported models go.
    """

    def __init__(
        self,
        worker: WorkerProcess | None = None,
        *,
        listModels: Callable[[], list[InstalledModel]] = list_models,
        modelsFolder: Callable[[], Path] = user_models_folder,
    ) -> None:
        super().__init__()
        self.worker = worker or WorkerProcess()
        self.listModels = listModels
        self.modelsFolder = modelsFolder
        self._job: SegmentJob | None = None
        self._import: ImportJob | None = None
        self._surfaces: Steps | None = None

    @property
    def isRunning(self) -> bool:
        """Tell whether a segmentation is at work."""
        return self._job is not None and self._job.isRunning

    @property
    def isImporting(self) -> bool:
        return self._import is not None and self._import.isRunning

    def segment(
        self,
        settings: SegmentSettings,
        *,
        onProgress: Callable[[Progress], None],
        onFinished: Callable[[Outcome], None],
    ) -> None:
        """Start a job.

        Raises:
            RuntimeError: Another one is running.
        """
        self._checkIsFree()
        self._stopSurfaces()
        self.removeObservers()
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.NodeRemovedEvent, self._onNodeRemoved)
        self._job = SegmentJob(settings, worker=self.worker, onProgress=onProgress, onFinished=onFinished)
        self._job.start()

    def importModel(
        self, path: Path, *, onProgress: Callable[[Progress], None], onFinished: Callable[[Outcome], None]
    ) -> None:
        """Start to import a model from a folder or zip archive.

        Raises:
            RuntimeError: A job is running.
        """
        self._checkIsFree()
        self._import = ImportJob(
            path, modelsFolder=self.modelsFolder(), worker=self.worker, onProgress=onProgress, onFinished=onFinished
        )
        self._import.start()

    def cancelImport(self) -> None:
        """Give up the running import; its outcome follows within a second."""
        if self.isImporting:
            self._import.cancel()

    def cancel(self) -> None:
        """Give up the running job; its outcome follows within a second."""
        if self.isRunning:
            self._job.cancel()

    def abandon(self, message: str) -> None:
        """Give up what works on the scene, now, with a message that says why; an import goes on."""
        self._stopSurfaces()
        if self.isRunning:
            self._job.abandon(message)

    def _onNodeRemoved(self, _caller: Any, _event: str) -> None:
        if self.isRunning and self._job.isBereft():
            self._job.abandon(_("Cancelled: the volume was removed."))

    def show3D(self, segmentationNode: Any, isVisible: bool) -> None:
        """Show or hide surfaces, making those that are missing in the background."""
        self._stopSurfaces()
        surfaces.show3D(segmentationNode, isVisible)
        if isVisible and not surfaces.hasSurfaces(segmentationNode):
            self._surfaces = Steps(
                surfaces.createSurfaces(segmentationNode.GetID()),
                onDone=lambda _nothing: None,
                onFailed=lambda error: logging.error("Surfaces could not be made: %s", error),
            )

    def cleanup(self) -> None:
        """Stop everything and end the worker."""
        self.removeObservers()
        self.abandon(_("Cancelled: the panel was closed."))
        if self.isImporting:
            self._import.abandon(_("Cancelled: the panel was closed."))
        # Slicer keeps the widget of a module that is reloaded; it must not keep the panel by what a job calls back.
        self._job = self._import = None
        self.worker.release()

    def _checkIsFree(self) -> None:
        if self.isRunning or self.isImporting:
            raise RuntimeError("a job is running: cancel it first")

    def _stopSurfaces(self) -> None:
        steps, self._surfaces = self._surfaces, None
        if steps is not None:
            steps.stop()
