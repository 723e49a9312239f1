"""The current job of the panel, and the worker shared by all jobs."""

from typing import Any

import slicer
from slicer.i18n import tr as _
from slicer.util import VTKObservationMixin

from ..background.worker_process import WorkerProcess
from .job import Job


class Jobs(VTKObservationMixin):
    """Starts, tracks and cancels jobs; at most one runs at a time.

    Args:
        worker: The worker process; by default, Slicer's Python running the library's worker.
    """

    def __init__(self, worker: WorkerProcess | None = None) -> None:
        super().__init__()
        self.worker = worker or WorkerProcess()
        self._job: Job | None = None

    @property
    def current(self) -> Job | None:
        """The running job, or None."""
        return self._job if self._job is not None and self._job.isRunning else None

    @property
    def isRunning(self) -> bool:
        """Whether a job is running."""
        return self.current is not None

    @property
    def currentKind(self) -> str:
        """Kind of the running job; empty if none is running."""
        return self.current.kind if self.current is not None else ""

    @property
    def isSceneInUse(self) -> bool:
        """Whether the running job uses the scene."""
        return self.current is not None and self.current.usesScene

    def whyWait(self) -> str:
        """Return why no other job can be started, in one sentence; empty if none is running."""
        return self.current.whyWait() if self.current is not None else ""

    def start(self, job: Job) -> None:
        """Start a job; if it fails at once, it has finished on return.

        Raises:
            RuntimeError: Another job is running.
        """
        if self.isRunning:
            raise RuntimeError(f"a job is running ({self.currentKind}): cancel it first")
        self.removeObservers()
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.NodeRemovedEvent, self._onNodeRemoved)
        self._job = job
        job.start()

    def cancel(self) -> None:
        """Cancel the current job if possible; its outcome follows within a second."""
        job = self.current
        if job is not None and job.canCancel:
            job.cancel()

    def abandonSceneJob(self, message: str) -> None:
        """Cancel the current job at once with a message if it uses the scene; other jobs continue."""
        if self.isSceneInUse:
            self.current.abandon(message)

    def cleanup(self) -> None:
        """Stop everything and end the worker."""
        self.removeObservers()
        job = self.current
        if job is not None:
            job.abandon(_("Cancelled: the panel was closed."))
        # Slicer keeps the widget of a reloaded module; callbacks of a job must not keep the panel alive with it.
        self._job = None
        self.worker.release()

    def _onNodeRemoved(self, _caller: Any, _event: str) -> None:
        job = self.current
        if job is not None and job.hasLostInput():
            job.abandon(_("Cancelled: the volume was removed."))
