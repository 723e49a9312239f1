"""Base of all jobs of the panel: progress, outcome and temporary folders."""

import logging
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import slicer

from ..background.steps import Steps, inThread
from ..scene.undo import FormerContent


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Progress of a job: fraction 0 to 1, name of the stage, and seconds left or None if unknown."""

    fraction: float
    stage: str
    left_s: float | None = None


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a job ended.

    Attributes:
        kind: "done", "cancelled" or "failed".
        message: One or two sentences for the panel.
        details: Traceback or last output, for the log.
        segmentationId: ID of the segmentation with the result, or None.
        former: Previous content of that segmentation; None for a new one.
        warnings: Warnings about the result, in sentences.
    """

    kind: str
    message: str
    details: str = ""
    segmentationId: str | None = None
    former: FormerContent | None = None
    warnings: tuple[str, ...] = ()


class Job:
    """Work that the user starts, follows and may cancel; `onFinished` is called exactly once.

    Subclasses implement `start`, `cancel` and `whyWait`, and end by calling `_finish`.

    Args:
        onProgress: Called with the progress while the job runs.
        onFinished: Called with the outcome.

    Attributes:
        kind: Name of this kind of job.
        usesScene: Whether it uses nodes of the scene, so that it is cancelled if they are removed.
    """

    kind: ClassVar[str]
    usesScene: ClassVar[bool] = False

    def __init__(self, *, onProgress: Callable[[Progress], None], onFinished: Callable[[Outcome], None]) -> None:
        self._onProgress = onProgress
        self._onFinished: Callable[[Outcome], None] | None = onFinished
        self._fraction = 0.0

    @property
    def isRunning(self) -> bool:
        """Whether the job has not ended yet."""
        return self._onFinished is not None

    @property
    def canCancel(self) -> bool:
        """Whether the job can be cancelled now."""
        return True

    def start(self) -> None:
        """Start the job; if this fails, it may have finished on return."""
        raise NotImplementedError

    def cancel(self) -> None:
        """Cancel the job; it finishes within a second."""
        raise NotImplementedError

    def whyWait(self) -> str:
        """Return why no other job can be started now, in one sentence that says what to do."""
        raise NotImplementedError

    def abandon(self, message: str) -> None:
        """Cancel at once with a message: the input of the job, or the panel, is being removed."""
        self._finish(Outcome(kind="cancelled", message=message))

    def hasLostInput(self) -> bool:
        """Return whether a node that the job needs was removed from the scene."""
        return False

    def _report(self, stage: str, fraction: float | None = None, *, left_s: float | None = None) -> None:
        """Report the progress; without a fraction, the previous one is kept."""
        if not self.isRunning:
            return
        if fraction is not None:
            self._fraction = fraction
        self._onProgress(Progress(fraction=self._fraction, stage=stage, left_s=left_s))

    def _finish(self, outcome: Outcome) -> None:
        """End with an outcome, unless the job has already ended."""
        onFinished, self._onFinished = self._onFinished, None
        if onFinished is None:
            return
        if outcome.details:
            logging.error("%s\n%s", outcome.message, outcome.details)
        onFinished(outcome)


def newFolder() -> Path:
    """Return a new folder for a job's files; creates Slicer's temporary folder again if it was removed."""
    Path(slicer.app.temporaryPath).mkdir(parents=True, exist_ok=True)
    return Path(tempfile.mkdtemp(prefix="UNetSegmentation-", dir=slicer.app.temporaryPath))


def removeFolder(folder: Path) -> None:
    """Remove a folder, if it exists, without blocking the window; removed before the application exits."""
    if not folder.exists():
        return
    # Deleting a large file takes a tenth of a second.
    work = inThread(lambda: shutil.rmtree(folder, ignore_errors=True), isNeeded=True)
    removal = Steps(
        work, onDone=lambda _nothing: _removals.discard(removal), onFailed=lambda _error: _removals.discard(removal)
    )
    _removals.add(removal)


_removals: set[Steps] = set()
