"""A segmentation run, from a volume in the scene to a segmentation in the scene."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import slicer
from slicer.i18n import tr as _

from UNetSegmentationLib.core.errors import InputError
from UNetSegmentationLib.protocol.arrays import ArrayFile, ChannelFile
from UNetSegmentationLib.protocol.segment import SegmentRequest, SegmentResult

from ..background.worker_process import WorkerProcess
from ..choices import wording
from ..scene import scene_exchange, segmentations, surfaces, uncertainty_maps
from ..scene.segmentations import Imported, Target
from .job import Outcome, Progress
from .worker_job import WorkerJob

# Progress at the end of each stage: reading the volume, the worker, adding the result and its maps to the scene.
READ_END, WORKER_END, IMPORT_END, MAPS_END = 0.05, 0.90, 0.94, 0.95


@dataclass(frozen=True, kw_only=True)
class SegmentSettings:
    """What to segment and how.

    Attributes:
        volumeId: ID of the volume node; the result has its geometry.
        channelIds: IDs of the volumes of the model's channels, None if missing; empty for a single channel.
        regionToWorld: 4x4 matrix that maps the cube from -1 to 1 onto the region; None for the whole volume.
        modelFolder: Folder of the model.
        target: Target segmentation; None for a new one.
        device: "auto" or the ID of a device offered by the worker.
        mirror: Average over mirrored copies.
        show3D: Create surfaces.
        withUncertainty: Create an uncertainty map.
        withProbabilities: Create a probability map for each segment.
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


class SegmentJob(WorkerJob):
    """One run: read the volume, segment it in the worker, add the result to the scene, create surfaces.

    Args:
        settings: What to segment and how.
        worker: The process that segments.
        onProgress: Called with the progress during the run.
        onFinished: Called with the outcome, exactly once.
    """

    kind: ClassVar[str] = "segment"
    usesScene: ClassVar[bool] = True

    def __init__(
        self,
        settings: SegmentSettings,
        *,
        worker: WorkerProcess,
        onProgress: Callable[[Progress], None],
        onFinished: Callable[[Outcome], None],
    ) -> None:
        super().__init__(worker=worker, onProgress=onProgress, onFinished=onFinished)
        self.settings = settings
        self._started = time.monotonic()
        self._result: SegmentResult | None = None
        self._imported: Imported | None = None

    def whyWait(self) -> str:
        return _("A run is in progress: wait for it to finish, or cancel it.")

    def cancel(self) -> None:
        """Cancel; the job ends within a second. A result that is already in the scene is kept."""
        if self._imported is not None:
            self._finishDone()
        else:
            super().cancel()

    def hasLostInput(self) -> bool:
        """Return whether a volume was removed before the result was added to the scene."""
        isGone = any(scene_exchange.nodeById(volumeId) is None for volumeId in self._volumeIds())
        return self._imported is None and isGone

    def _volumeIds(self) -> list[str]:
        """Return the unique IDs of all input volumes."""
        return list(dict.fromkeys([self.settings.volumeId, *(one for one in self.settings.channelIds if one)]))

    def _begin(self) -> None:
        stage = _("Reading the volume")
        self._report(stage, 0.0)
        work = scene_exchange.exportVolumes(self._volumeIds(), self._makeFolder())
        self._runSteps(work, stage=stage, share=(0.0, READ_END), onDone=self._onExported)

    def _onExported(self, files: dict[str, ArrayFile]) -> None:
        try:
            nodes = {volumeId: scene_exchange.existingVolume(volumeId) for volumeId in files}
        except InputError as error:
            self._onFailed(error)
            return
        affines = {volumeId: scene_exchange.worldAffine(node) for volumeId, node in nodes.items()}
        request = self._requestFor(files, affines)
        self._send("segment", request.to_dict(), stage=_("Segmenting"), share=(READ_END, WORKER_END))

    def _requestFor(self, files: dict[str, ArrayFile], affines: dict[str, Any]) -> SegmentRequest:
        settings, folder = self.settings, self._makeFolder()
        return SegmentRequest(
            model=settings.modelFolder,
            volume=files[settings.volumeId],
            affine_ras=affines[settings.volumeId],
            output=str(folder / "labelmap.raw"),
            device=settings.device,
            tta=settings.mirror,
            channels=tuple(
                None if one is None else ChannelFile(volume=files[one], affine_ras=affines[one])
                for one in settings.channelIds
            ),
            region_to_ras=settings.regionToWorld,
            uncertainty=str(folder / "uncertainty.raw") if settings.withUncertainty else None,
            probabilities=str(folder / "probabilities.raw") if settings.withProbabilities else None,
        )

    def _onResult(self, message: dict[str, Any]) -> None:
        self._result = SegmentResult.from_dict(message)
        if not any(segment.voxels for segment in self._result.segments):
            names = ", ".join(segment.label.name for segment in self._result.segments)
            text = _("Nothing was found; the model looks for {names}.").format(names=names)
            self._finish(Outcome(kind="done", message=text, warnings=self._allWarnings()))
            return
        work = segmentations.importSegmentation(
            self._result,
            volumeId=self.settings.volumeId,
            target=self.settings.target,
            channelIds=self.settings.channelIds,
        )
        stage = _("Adding the result to the scene")
        self._runSteps(work, stage=stage, share=(WORKER_END, IMPORT_END), onDone=self._onImported)

    def _onImported(self, imported: Imported) -> None:
        self._imported = imported
        segmentation = scene_exchange.nodeById(imported.segmentationId)
        volume = scene_exchange.nodeById(self.settings.volumeId)
        segmentations.showResult(volume, segmentation, isNew=imported.isNew)
        if imported.isNew and self.settings.target is not None:
            segmentations.hide(self.settings.target.segmentationId)
        surfaces.show3D(segmentation, self.settings.show3D)
        work = uncertainty_maps.importMaps(
            self._result, segmentationId=imported.segmentationId, volumeId=self.settings.volumeId
        )
        stage = _("Adding the result to the scene")
        self._runSteps(work, stage=stage, share=(IMPORT_END, MAPS_END), onDone=self._onMapsImported)

    def _onMapsImported(self, _nothing: None) -> None:
        # The files of the request are no longer needed, and surfaces may take a while.
        self._removeFolder()
        if not self.settings.show3D:
            self._finishDone()
            return
        work = surfaces.createSurfaces(self._imported.segmentationId)
        self._runSteps(work, stage=_("Creating 3D surfaces"), share=(MAPS_END, 1.0), onDone=self._onSurfacesMade)

    def _onSurfacesMade(self, _nothing: None) -> None:
        if self._imported.isNew and slicer.app.layoutManager() is not None:
            slicer.util.resetThreeDViews()
        self._finishDone()

    def _finishDone(self) -> None:
        segmentationId, former = self._imported.segmentationId, self._imported.former
        if scene_exchange.nodeById(segmentationId) is None:
            self._finish(Outcome(kind="cancelled", message=_("The result was removed from the scene.")))
            return
        message = wording.describeResult(
            self._result.segments,
            duration_s=time.monotonic() - self._started,
            isInNewSegmentation=self.settings.target is not None and former is None,
        )
        self._finish(
            Outcome(
                kind="done",
                message=message,
                segmentationId=segmentationId,
                former=former,
                warnings=self._allWarnings(),
            )
        )

    def _allWarnings(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(self._result.warnings))
