"""A run: from a volume in the scene to a segmentation in the scene."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import slicer
from slicer.i18n import tr as _

from UNetSegmentationLib.core.errors import InputError
from UNetSegmentationLib.protocol.arrays import ArrayFile, ChannelFile
from UNetSegmentationLib.protocol.segment import SegmentRequest, SegmentResult

from ..background.steps import WAIT, Steps
from ..background.time_left import Pace
from ..background.worker_process import WorkerProcess
from ..choices import wording
from ..scene import scene_exchange, segmentations, surfaces, uncertainty_maps
from ..scene.segmentations import Imported, Target
from ..scene.undo import FormerContent
from .job import Outcome, Progress, newFolder, removeFolder

# Shares of the progress bar: reading the volume, the worker, bringing the result and its maps into the scene, surfaces.
READ_END, WORKER_END, IMPORT_END, MAPS_END = 0.05, 0.90, 0.94, 0.95


@dataclass(frozen=True, kw_only=True)
class SegmentSettings:
    """What to segment and how.

    Attributes:
        volumeId: ID of the volume node; the result lies on its grid.
        channelIds: IDs of the volumes of the model's channels, None where one is missing; empty: the volume is all.
        regionToWorld: 4x4 that maps the cube from -1 to 1 onto the only part to segment; None for all of it.
        modelFolder: Folder of the model.
        target: The chosen segmentation; None for a new one.
        device: "auto" or an id that the worker offered.
        mirror: Average over mirrored copies.
        show3D: Make surfaces.
        withUncertainty: Make a volume of the uncertainty.
        withProbabilities: Make a volume of probabilities for each segment.
    """

    volumeId: str
    modelFolder: str
    channelIds: tuple[str | None, ...] = ()
    regionToWorld: tuple[tuple[float, ...], ...] | None = None
    target: Target | None = None
    device: str = "auto"
    mirror: bool = False
    show3D: bool = True
    withUncertainty: bool = False
    withProbabilities: bool = False


class SegmentJob:
    """One run: read the volume, let the worker segment it, bring the result into the scene, make surfaces.

    `onFinished` is called exactly once; nodes are held by ID, since they may vanish while the job runs.
    """

    def __init__(
        self,
        settings: SegmentSettings,
        *,
        worker: WorkerProcess,
        onProgress: Callable[[Progress], None],
        onFinished: Callable[[Outcome], None],
    ) -> None:
        self.settings = settings
        self._worker = worker
        self._onProgress = onProgress
        self._onFinished: Callable[[Outcome], None] | None = onFinished
        self._folder: Path | None = None
        self._requestId: int | None = None
        self._steps: Steps | None = None
        self._started = time.monotonic()
        self._pace = Pace()
        self._result: SegmentResult | None = None
        self._segmentationId: str | None = None
        self._former: FormerContent | None = None

    @property
    def isRunning(self) -> bool:
        return self._onFinished is not None

    def start(self) -> None:
        self._tell(0.0, _("Reading the volume"))
        try:
            self._folder = newFolder()
        except OSError as error:
            self._failed(error)
            return
        work = self._reporting(
            scene_exchange.exportVolumes(self._volumeIds(), self._folder),
            _("Reading the volume"),
            (0.0, READ_END),
        )
        self._steps = Steps(work, onDone=self._exported, onFailed=self._failed)

    def cancel(self) -> None:
        """Give up; the job finishes as cancelled within a second. A result that is in the scene already stays."""
        if self._segmentationId is not None:
            self._stopSteps()
            self._done()
        elif self._requestId is not None:
            self._tell(None, _("Cancelling"))
            self._worker.cancel(self._requestId)
        else:
            self._stopSteps()
            self._cancelled()

    def abandon(self, message: str) -> None:
        """Give up at once, saying why: what the job works on is going away."""
        self._stopSteps()
        if self._requestId is not None:
            self._worker.cancel(self._requestId)
        self._finish(Outcome(kind="cancelled", message=message))

    def isBereft(self) -> bool:
        """Tell whether a volume is gone before the result is in the scene."""
        isGone = any(scene_exchange.nodeById(volumeId) is None for volumeId in self._volumeIds())
        return self._segmentationId is None and isGone

    def _volumeIds(self) -> list[str]:
        """Return the IDs of all volumes that are there, each once."""
        return list(dict.fromkeys([self.settings.volumeId, *(one for one in self.settings.channelIds if one)]))

    def _exported(self, files: dict[str, ArrayFile]) -> None:
        nodes = {volumeId: scene_exchange.nodeById(volumeId) for volumeId in files}
        if None in nodes.values():
            self._failed(InputError(_("The volume was removed from the scene before its result was there.")))
            return
        affines = {volumeId: scene_exchange.worldAffine(node) for volumeId, node in nodes.items()}
        request = SegmentRequest(
            model=self.settings.modelFolder,
            volume=files[self.settings.volumeId],
            affine_ras=affines[self.settings.volumeId],
            output=str(self._folder / "labelmap.raw"),
            device=self.settings.device,
            tta=self.settings.mirror,
            channels=tuple(
                None if one is None else ChannelFile(volume=files[one], affine_ras=affines[one])
                for one in self.settings.channelIds
            ),
            region_to_ras=self.settings.regionToWorld,
            uncertainty=str(self._folder / "uncertainty.raw") if self.settings.withUncertainty else None,
            probabilities=str(self._folder / "probabilities.raw") if self.settings.withProbabilities else None,
        )
        self._tell(READ_END, _("Starting the worker") if not self._worker.ready else _("Segmenting"))
        self._requestId = self._worker.request("segment", request.to_dict(), self._onMessage)

    def _onMessage(self, message: dict[str, Any]) -> None:
        event = message["event"]
        if event == "progress":
            self._onWorkerProgress(float(message["fraction"]), str(message["stage"]))
            return
        self._requestId = None
        if not self.isRunning:
            # Abandoned meanwhile; now that the worker has let go of the files they can be removed.
            self._removeFolder()
        elif event == "result":
            self._onResult(message)
        elif event == "cancelled":
            self._cancelled()
        else:
            sentence = wording.sentence(str(message["message"]))
            self._finish(Outcome(kind="failed", message=sentence, details=str(message.get("details", ""))))

    def _onWorkerProgress(self, fraction: float, stage: str) -> None:
        left_s = self._pace.left_s(fraction, stage)
        if not self._worker.ready:
            stage = _("Starting the worker")
        self._tell(READ_END + fraction * (WORKER_END - READ_END), stage, left_s)

    def _onResult(self, message: dict[str, Any]) -> None:
        self._result = SegmentResult.from_dict(message)
        if not any(segment.voxels for segment in self._result.segments):
            names = ", ".join(segment.label.name for segment in self._result.segments)
            message = _("Nothing was found: none of {names}.").format(names=names)
            self._finish(Outcome(kind="done", message=message, warnings=self._allWarnings()))
            return
        work = self._reporting(
            segmentations.importSegmentation(
                self._result,
                volumeId=self.settings.volumeId,
                target=self.settings.target,
                channelIds=self.settings.channelIds,
            ),
            _("Bringing the result into the scene"),
            (WORKER_END, IMPORT_END),
        )
        self._steps = Steps(work, onDone=self._imported, onFailed=self._failed)

    def _imported(self, imported: Imported) -> None:
        self._segmentationId, self._former, isNew = imported.segmentationId, imported.former, imported.isNew
        segmentation = scene_exchange.nodeById(self._segmentationId)
        volume = scene_exchange.nodeById(self.settings.volumeId)
        segmentations.showResult(volume, segmentation, isNew=isNew)
        if isNew and self.settings.target is not None:
            segmentations.hide(self.settings.target.segmentationId)
        surfaces.show3D(segmentation, self.settings.show3D)
        work = uncertainty_maps.importMaps(
            self._result, segmentationId=self._segmentationId, volumeId=self.settings.volumeId
        )
        work = self._reporting(work, _("Bringing the result into the scene"), (IMPORT_END, MAPS_END))
        self._steps = Steps(work, onDone=lambda _nothing: self._mapsDone(isNew), onFailed=self._failed)

    def _mapsDone(self, isNew: bool) -> None:
        # The request's files are not needed any more, and surfaces may take a while.
        self._removeFolder()
        if not self.settings.show3D:
            self._done()
            return
        work = self._reporting(
            surfaces.createSurfaces(self._segmentationId), _("Making the 3D surfaces"), (MAPS_END, 1.0)
        )
        self._steps = Steps(work, onDone=lambda _nothing: self._surfacesDone(isNew), onFailed=self._failed)

    def _surfacesDone(self, isNew: bool) -> None:
        if isNew and slicer.app.layoutManager() is not None:
            slicer.util.resetThreeDViews()
        self._done()

    def _done(self) -> None:
        node = scene_exchange.nodeById(self._segmentationId)
        if node is None:
            self._finish(Outcome(kind="cancelled", message=_("The result was removed from the scene.")))
            return
        message = wording.describeResult(
            self._result.segments,
            duration_s=time.monotonic() - self._started,
            isBesideAnother=self.settings.target is not None and self._former is None,
        )
        self._finish(
            Outcome(
                kind="done",
                message=message,
                segmentationId=self._segmentationId,
                former=self._former,
                warnings=self._allWarnings(),
            )
        )

    def _allWarnings(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(self._result.warnings))

    def _failed(self, error: Exception) -> None:
        if isinstance(error, InputError):
            self._finish(Outcome(kind="failed", message=wording.sentence(str(error))))
        elif isinstance(error, OSError):
            message = _("The folder for temporary files cannot be used ({error}): make room in it or choose another.")
            self._finish(Outcome(kind="failed", message=message.format(error=error), details=repr(error)))
        else:
            message = _("Something went wrong in the panel ({error}): see the application log.").format(error=error)
            self._finish(Outcome(kind="failed", message=message, details=repr(error)))

    def _cancelled(self) -> None:
        self._finish(Outcome(kind="cancelled", message=_("Cancelled; nothing was changed.")))

    def _finish(self, outcome: Outcome) -> None:
        onFinished, self._onFinished = self._onFinished, None
        self._stopSteps()
        if self._requestId is None:
            self._removeFolder()
        if outcome.details:
            logging.error("%s\n%s", outcome.message, outcome.details)
        if onFinished is not None:
            onFinished(outcome)

    def _tell(self, fraction: float | None, stage: str, left_s: float | None = None) -> None:
        if not self.isRunning:
            return
        if fraction is not None:
            self._fraction = fraction
        self._onProgress(Progress(fraction=self._fraction, stage=stage, left_s=left_s))

    def _reporting(self, work: Any, stage: str, share: tuple[float, float]) -> Any:
        """Run a generator and report the fractions that it yields as this share of the whole."""
        start, end = share
        reported = 0.0
        while True:
            try:
                value = next(work)
            except StopIteration as stop:
                return stop.value
            if value is not WAIT and time.monotonic() - reported > 0.1:
                reported = time.monotonic()
                fraction = value[0] if isinstance(value, tuple) else value
                self._tell(start + (end - start) * fraction, stage)
            yield value

    def _stopSteps(self) -> None:
        steps, self._steps = self._steps, None
        if steps is not None:
            steps.stop()

    def _removeFolder(self) -> None:
        if self._folder is None:
            return
        removeFolder(self._folder)
