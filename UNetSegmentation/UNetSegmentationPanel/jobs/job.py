"""What all jobs of the panel have in common: how they stand, how they end, and the folders that they work in."""

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import slicer

from ..background.steps import Steps, beside
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
        details: Traceback or last words, for the log.
        segmentationId: ID of the result, of a segmentation job.
        former: What its segmentation held before; None for a new one.
        modelFolder: Where the model lies, of an import.
        warnings: What to know about the result, in sentences.
    """

    kind: str
    message: str
    details: str = ""
    segmentationId: str | None = None
    former: FormerContent | None = None
    modelFolder: str | None = None
    warnings: tuple[str, ...] = ()


def newFolder() -> Path:
    """Return a new folder for a job's files; Slicer's own folder for such may have been tidied away meanwhile."""
    Path(slicer.app.temporaryPath).mkdir(parents=True, exist_ok=True)
    return Path(tempfile.mkdtemp(prefix="UNetSegmentation-", dir=slicer.app.temporaryPath))


def removeFolder(folder: Path) -> None:
    """Remove a folder without holding up the window; it is gone before the application ends."""
    # Giving back the space of a large file takes the system a tenth of a second.
    work = beside(lambda: shutil.rmtree(folder, ignore_errors=True), isNeeded=True)
    removal = Steps(
        work, onDone=lambda _nothing: _removals.discard(removal), onFailed=lambda _error: _removals.discard(removal)
    )
    _removals.add(removal)


_removals: set[Steps] = set()
