"""The one current job of the panel, and the worker that all jobs share."""

from typing import Any

import slicer
from slicer.i18n import tr as _
from slicer.util import VTKObservationMixin

from ..background.worker_process import WorkerProcess
from .job import Job


class Jobs(VTKObservationMixin):
    """Says whether a job is running and which one, and ends it; at most one runs at a time.

    Args:
        worker: The process that works; by default Slicer's Python with the library's worker.
    """

    def __init__(self, worker: WorkerProcess | None = None) -> None:
        super().__init__()
        self.worker = worker or WorkerProcess()
        self._job: Job | None = None

    @property
    def current(self) -> Job | None:
        """The job that is running, or None."""
        return self._job if self._job is not None and self._job.isRunning else None

    @property
    def isRunning(self) -> bool:
        """Tell whether a job is running."""
        return self.current is not None

    @property
    def currentKind(self) -> str:
        """Kind of the job that is running; empty when none is."""
        return self.current.kind if self.current is not None else ""

    @property
    def isSceneInUse(self) -> bool:
        """Tell whether a job is running that works on the scene."""
        return self.current is not None and self.current.usesScene

    def whyWait(self) -> str:
        """Return why no other job can be started, in a sentence; empty when one can."""
        return self.current.whyWait() if self.current is not None else ""

    def start(self, job: Job) -> None:
        """Start a job; where it fails at once, it has finished on return.

        Raises:
            RuntimeError: Another one is running.
        """
        if self.isRunning:
            raise RuntimeError(f"a job is running ({self.currentKind}): cancel it first")
        self.removeObservers()
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.NodeRemovedEvent, self._onNodeRemoved)
        self._job = job
        job.start()

    def cancel(self) -> None:
        """Give up the current job, where it can be; its outcome follows within a second."""
        job = self.current
        if job is not None and job.canCancel:
            job.cancel()

    def abandonSceneJob(self, message: str) -> None:
        """Give up what works on the scene, now, with a message that says why; any other job goes on."""
        if self.isSceneInUse:
            self.current.abandon(message)

    def cleanup(self) -> None:
        """Stop everything and end the worker."""
        self.removeObservers()
        job = self.current
        if job is not None:
            job.abandon(_("Cancelled: the panel was closed."))
        # Slicer keeps the widget of a module that is reloaded; it must not keep the panel by what a job calls back.
        self._job = None
        self.worker.release()

    def _onNodeRemoved(self, _caller: Any, _event: str) -> None:
        job = self.current
        if job is not None and job.hasLostInput():
            job.abandon(_("Cancelled: the volume was removed."))
