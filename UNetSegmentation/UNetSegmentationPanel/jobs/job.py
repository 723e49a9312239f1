"""What all jobs of the panel have in common: how they stand, how they end, and the folders that they work in."""

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
    """Where a job stands: fraction 0 to 1, the stage in words, seconds left or None when they cannot be told."""

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
        segmentationId: ID of the segmentation that holds the result; None where the scene holds none.
        former: What that segmentation held before; None for a new one.
        warnings: What to know about the result, in sentences.
    """

    kind: str
    message: str
    details: str = ""
    segmentationId: str | None = None
    former: FormerContent | None = None
    warnings: tuple[str, ...] = ()


class Job:
    """Work that a person starts, follows and may cancel; `onFinished` is called exactly once.

    A kind of job is a subclass with `start`, `cancel` and `whyWait`; it ends by `_finish`.

    Args:
        onProgress: Called with the progress while the job runs.
        onFinished: Called with the outcome.

    Attributes:
        kind: Name of this kind of job.
        usesScene: Whether it works on nodes of the scene, so that it ends with them.
    """

    kind: ClassVar[str]
    usesScene: ClassVar[bool] = False

    def __init__(self, *, onProgress: Callable[[Progress], None], onFinished: Callable[[Outcome], None]) -> None:
        self._onProgress = onProgress
        self._onFinished: Callable[[Outcome], None] | None = onFinished
        self._fraction = 0.0

    @property
    def isRunning(self) -> bool:
        """Tell whether the job has not ended yet."""
        return self._onFinished is not None

    @property
    def canCancel(self) -> bool:
        """Tell whether the job can be cancelled at present."""
        return True

    def start(self) -> None:
        """Begin; where this fails, the job may have finished on return."""
        raise NotImplementedError

    def cancel(self) -> None:
        """Give up; the job finishes within a second."""
        raise NotImplementedError

    def whyWait(self) -> str:
        """Return why nothing else can be started meanwhile, in a sentence that says what to do."""
        raise NotImplementedError

    def abandon(self, message: str) -> None:
        """Give up at once, saying why: what the job works on, or the panel, is going away."""
        self._finish(Outcome(kind="cancelled", message=message))

    def hasLostInput(self) -> bool:
        """Tell whether something is gone from the scene without which the job cannot go on."""
        return False

    def _report(self, stage: str, fraction: float | None = None, *, left_s: float | None = None) -> None:
        """Tell the progress; without a fraction it stays where it was."""
        if not self.isRunning:
            return
        if fraction is not None:
            self._fraction = fraction
        self._onProgress(Progress(fraction=self._fraction, stage=stage, left_s=left_s))

    def _finish(self, outcome: Outcome) -> None:
        """End with an outcome, unless the job has ended already."""
        onFinished, self._onFinished = self._onFinished, None
        if onFinished is None:
            return
        if outcome.details:
            logging.error("%s\n%s", outcome.message, outcome.details)
        onFinished(outcome)


def newFolder() -> Path:
    """Return a new folder for a job's files; Slicer's own folder for such may have been tidied away meanwhile."""
    Path(slicer.app.temporaryPath).mkdir(parents=True, exist_ok=True)
    return Path(tempfile.mkdtemp(prefix="UNetSegmentation-", dir=slicer.app.temporaryPath))


def removeFolder(folder: Path) -> None:
    """Remove a folder, if it is there, without holding up the window; it is gone before the application ends."""
    if not folder.exists():
        return
    # Giving back the space of a large file takes the system a tenth of a second.
    work = inThread(lambda: shutil.rmtree(folder, ignore_errors=True), isNeeded=True)
    removal = Steps(
        work, onDone=lambda _nothing: _removals.discard(removal), onFailed=lambda _error: _removals.discard(removal)
    )
    _removals.add(removal)


_removals: set[Steps] = set()
