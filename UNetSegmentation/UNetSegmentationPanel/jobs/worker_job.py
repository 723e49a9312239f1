"""Base of jobs done by the worker: messages, cancellation and shared files."""

import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

from slicer.i18n import tr as _

from UNetSegmentationLib.core.errors import InputError

from ..background.steps import WAIT, Steps
from ..background.time_left import Pace
from ..background.worker_process import FINAL_EVENTS, WorkerProcess
from ..choices import wording
from .job import Job, Outcome, Progress, newFolder, removeFolder

# Reporting quick steps more often would take longer than the steps.
REPORT_INTERVAL_S = 0.1


class WorkerJob(Job):
    """A job whose main part is one request to the worker.

    In a subclass, `_begin` prepares the request and sends it with `_send`, and `_onResult` handles the result and ends
    the job with `_finish`. Work on the main thread before or after the request goes through `_runSteps`. Nodes are
    referenced by ID, since they may be removed while the job runs.

    Args:
        worker: The worker process.
        onProgress: Called with the progress while the job runs.
        onFinished: Called with the outcome, exactly once.
    """

    def __init__(
        self,
        *,
        worker: WorkerProcess,
        onProgress: Callable[[Progress], None],
        onFinished: Callable[[Outcome], None],
    ) -> None:
        super().__init__(onProgress=onProgress, onFinished=onFinished)
        self._worker = worker
        # Files shared with the worker; removed when both sides are done with them.
        self._folder: Path | None = None
        self._isWithWorker = False
        self._requestId: int | None = None
        self._workerShare = (0.0, 1.0)
        self._pace = Pace()
        self._steps: Steps | None = None

    def start(self) -> None:
        try:
            self._begin()
        except OSError as error:
            self._onFailed(error)

    def cancel(self) -> None:
        """Cancel; the job ends within a second, as done if the result arrives before the worker responds."""
        if not self.isRunning:
            return
        if self._isWithWorker:
            self._report(_("Cancelling"))
            self._worker.cancel(self._requestId)
        else:
            self._finishCancelled()

    def abandon(self, message: str) -> None:
        super().abandon(message)
        # Afterwards, because a worker that is still starting reports the cancellation at once.
        if self._isWithWorker:
            self._worker.cancel(self._requestId)

    def _begin(self) -> None:
        """Prepare and send the request; an OSError ends the job."""
        raise NotImplementedError

    def _onResult(self, message: dict[str, Any]) -> None:
        """Handle the fields of the result; call `_finish` now or after further steps."""
        raise NotImplementedError

    def _whenCancelled(self) -> str:
        """Return the message of a cancelled job."""
        return _("Cancelled; nothing was changed.")

    def _makeFolder(self) -> Path:
        """Return the folder for the files of this job, which is removed when it ends."""
        if self._folder is None:
            self._folder = newFolder()
        return self._folder

    def _removeFolder(self) -> None:
        folder, self._folder = self._folder, None
        if folder is not None:
            removeFolder(folder)

    def _runSteps(
        self,
        work: Generator[Any, None, Any],
        *,
        stage: str,
        share: tuple[float, float],
        onDone: Callable[[Any], None],
    ) -> None:
        """Work on the main thread without blocking the window.

        Args:
            work: Yields the completed fraction, (fraction, detail), or WAIT.
            stage: Name of the stage.
            share: Start and end of its part of the job's progress.
            onDone: Called with the generator's return value; an exception ends the job as failed.
        """
        self._steps = Steps(self._reporting(work, stage, share), onDone=onDone, onFailed=self._onFailed)

    def _send(
        self, operation: str, fields: dict[str, Any], *, stage: str, share: tuple[float, float] = (0.0, 1.0)
    ) -> None:
        """Send the request to the worker.

        Args:
            operation: Operation of the protocol.
            fields: Fields of the request.
            stage: Name of the worker's first stage.
            share: Start and end of the worker's part of the job's progress.
        """
        self._workerShare = share
        self._isWithWorker = True
        self._report(self._stageOfWorker(stage), share[0])
        self._requestId = self._worker.request(operation, fields, self._onMessage)

    def _onMessage(self, message: dict[str, Any]) -> None:
        event = message["event"]
        if event == "progress":
            self._onWorkerProgress(message)
        elif event in FINAL_EVENTS and self._isWithWorker:
            self._isWithWorker = False
            if self.isRunning:
                self._onFinalMessage(message)
            else:
                # The job was abandoned; the worker no longer uses the files, so they can be removed.
                self._removeFolder()

    def _onFinalMessage(self, message: dict[str, Any]) -> None:
        if message["event"] == "result":
            self._onResult(message)
        elif message["event"] == "cancelled":
            self._finishCancelled()
        else:
            sentence = wording.sentence(str(message["message"]))
            self._finish(Outcome(kind="failed", message=sentence, details=str(message.get("details", ""))))

    def _onWorkerProgress(self, message: dict[str, Any]) -> None:
        fraction, stage = float(message["fraction"]), str(message["stage"])
        start, end = self._workerShare
        left_s = self._pace.left_s(fraction, stage)
        self._report(self._stageOfWorker(stage), start + fraction * (end - start), left_s=left_s)

    def _stageOfWorker(self, stage: str) -> str:
        return stage if self._worker.ready else _("Starting the worker")

    def _onFailed(self, error: Exception) -> None:
        if isinstance(error, InputError):
            self._finish(Outcome(kind="failed", message=wording.sentence(str(error))))
        elif isinstance(error, OSError):
            message = _(
                "The folder for temporary files cannot be used ({error}): free up space or choose another folder."
            )
            self._finish(Outcome(kind="failed", message=message.format(error=error), details=repr(error)))
        else:
            message = _("Internal error in the panel ({error}): see the application log.").format(error=error)
            self._finish(Outcome(kind="failed", message=message, details=repr(error)))

    def _finishCancelled(self) -> None:
        self._finish(Outcome(kind="cancelled", message=self._whenCancelled()))

    def _finish(self, outcome: Outcome) -> None:
        self._stopSteps()
        if not self._isWithWorker:
            self._removeFolder()
        super()._finish(outcome)

    def _stopSteps(self) -> None:
        steps, self._steps = self._steps, None
        if steps is not None:
            steps.stop()

    def _reporting(self, work: Any, stage: str, share: tuple[float, float]) -> Generator[Any, None, Any]:
        """Run a generator and report its fractions as this part of the whole."""
        start, end = share
        reported = 0.0
        while True:
            try:
                value = next(work)
            except StopIteration as stop:
                return stop.value
            if value is not WAIT and time.monotonic() - reported > REPORT_INTERVAL_S:
                reported = time.monotonic()
                fraction = value[0] if isinstance(value, tuple) else value
                self._report(stage, start + (end - start) * fraction)
            yield value
