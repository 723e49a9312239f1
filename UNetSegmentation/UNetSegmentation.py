"""The UNetSegmentation module for Slicer: module, widget, logic and self test."""

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import slicer
import vtk
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleTest,
    ScriptedLoadableModuleWidget,
)
from slicer.util import VTKObservationMixin

try:
    import UNetSegmentationLib  # noqa: F401
except ModuleNotFoundError:
    # When installed, the library is on the path; in the source tree it is next to the module's folder.
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from UNetSegmentationPanel.background.worker_process import WorkerProcess
from UNetSegmentationPanel.choices.parameters import UNetSegmentationParameterNode
from UNetSegmentationPanel.jobs.job import Outcome
from UNetSegmentationPanel.jobs.jobs import Jobs
from UNetSegmentationPanel.jobs.segment_job import SegmentJob, SegmentSettings
from UNetSegmentationPanel.panel import Panel
from UNetSegmentationPanel.scene import samples, scene_exchange

POLL_S = 0.005


class UNetSegmentation(ScriptedLoadableModule):
    """Module description shown by Slicer."""

    def __init__(self, parent: Any) -> None:
        ScriptedLoadableModule.__init__(self, parent)
        parent.title = _("UNet Segmentation")
        parent.categories = [translate("qSlicerAbstractCoreModule", "Segmentation")]
        parent.dependencies = []
        parent.contributors = ["UNetSegmentation contributors"]
        parent.helpText = _(
            "Segments CT, MRI and X-ray images with networks of the U-Net family, on the GPU or CPU."
            "<ol><li>Choose a volume.</li><li>Check the suggested modality and model.</li>"
            "<li>Press Apply.</li></ol>The result is a segmentation with named segments and the geometry of the volume."
        )
        parent.acknowledgementText = _(
            "Built on PyTorch and 3D Slicer. Each model card states the training data and their licence."
        )
        slicer.app.connect("startupCompleted()", samples.register)


class UNetSegmentationWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
    """Loads the form and keeps the panel in sync with the scene."""

    def __init__(self, parent: Any = None) -> None:
        ScriptedLoadableModuleWidget.__init__(self, parent)
        VTKObservationMixin.__init__(self)
        self.logic: UNetSegmentationLogic | None = None
        self.panel: Panel | None = None
        self._parameterNode: Any = None

    def setup(self) -> None:
        ScriptedLoadableModuleWidget.setup(self)
        form = slicer.util.loadUI(self.resourcePath(f"UI/{self.moduleName}.ui"))
        self.layout.addWidget(form)
        form.setMRMLScene(slicer.mrmlScene)
        self.logic = UNetSegmentationLogic()
        self.panel = Panel(form, self.logic.jobs, requirements=Path(self.resourcePath("requirements.txt")))
        self.ui = self.panel.ui
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.StartCloseEvent, self.onSceneStartClose)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.EndCloseEvent, self.onSceneEndClose)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.StartImportEvent, self.onSceneStartImport)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.EndImportEvent, self.onSceneEndImport)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.NodeAddedEvent, self.onNodeAdded)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.NodeRemovedEvent, self.onNodeRemoved)
        self.initializeParameterNode()

    def cleanup(self) -> None:
        panel, self.panel = self.panel, None
        if panel is None:
            # On exit, Slicer cleans up panels again that were already removed by a reload, together with their widgets.
            return
        self.removeObservers()
        self._parameterNode = None
        panel.follow(None)
        panel.cleanup()
        self.logic = None

    def enter(self) -> None:
        self.initializeParameterNode()
        self.panel.enter()

    def onReload(self) -> None:
        # Slicer reloads only this file; the modules it imports must be reloaded as well.
        for name in [name for name in sys.modules if name.partition(".")[0] == "UNetSegmentationPanel"]:
            del sys.modules[name]
        ScriptedLoadableModuleWidget.onReload(self)

    def onSceneStartClose(self, _caller: Any, _event: str) -> None:
        self.setParameterNode(None)
        self.logic.jobs.abandonSceneJob(_("Cancelled: the scene was closed."))

    def onSceneEndClose(self, _caller: Any, _event: str) -> None:
        if self.parent.isEntered:
            self.initializeParameterNode()

    def onSceneStartImport(self, _caller: Any, _event: str) -> None:
        # The imported scene may contain other choices, which a result must not mix with.
        self.setParameterNode(None)
        self.logic.jobs.abandonSceneJob(_("Cancelled: another scene was loaded."))

    def onSceneEndImport(self, _caller: Any, _event: str) -> None:
        # The wrapper caches nodes, and looked them up before they were loaded.
        self.setParameterNode(None)
        if self.parent.isEntered:
            self.initializeParameterNode()

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def onNodeAdded(self, _caller: Any, _event: str, node: Any) -> None:
        # The first volume added is selected automatically; users choose later ones themselves.
        isWaiting = self._parameterNode is not None and self._parameterNode.inputVolume is None
        if isWaiting and self.parent.isEntered and scene_exchange.isInput(node):
            self._parameterNode.inputVolume = node
        elif self._parameterNode is not None and scene_exchange.isInput(node):
            # The volume may be a channel of the model.
            self.panel.refresh()

    def onNodeRemoved(self, _caller: Any, _event: str) -> None:
        # The node may have been a result, a region or a map.
        self.panel.refresh()

    def initializeParameterNode(self) -> None:
        """Use the scene's parameter node; select the displayed volume if none is selected."""
        parameterNode = self.logic.getParameterNode()
        if parameterNode.inputVolume is None:
            parameterNode.inputVolume = self.logic.suggestedVolume()
        self.setParameterNode(parameterNode)

    def setParameterNode(self, parameterNode: Any) -> None:
        """Show a parameter node in the panel; None shows none."""
        self._parameterNode = parameterNode
        self.panel.follow(parameterNode)


class UNetSegmentationLogic(ScriptedLoadableModuleLogic):
    """Parameter node and jobs, for the panel and for scripts.

    Args:
        worker: Process that segments; by default, Slicer's Python running the library's worker.
    """

    def __init__(self, worker: WorkerProcess | None = None) -> None:
        ScriptedLoadableModuleLogic.__init__(self)
        self.jobs = Jobs(worker)

    def getParameterNode(self) -> UNetSegmentationParameterNode:
        return UNetSegmentationParameterNode(ScriptedLoadableModuleLogic.getParameterNode(self))

    def suggestedVolume(self) -> Any:
        """Return the displayed volume, else the first one in the scene, else None."""
        selection = slicer.app.applicationLogic().GetSelectionNode()
        active = slicer.mrmlScene.GetNodeByID(selection.GetActiveVolumeID() or "") if selection is not None else None
        candidates = [active, *scene_exchange.inputVolumes()]
        return next((node for node in candidates if scene_exchange.isInput(node)), None)

    def segment(
        self,
        volumeNode: Any,
        modelFolder: Path | str,
        *,
        device: str = "auto",
        channels: Sequence[Any] = (),
        region: Any = None,
    ) -> Outcome:
        """Segment a volume and wait for the result while the window stays responsive; for scripts.

        Args:
            volumeNode: Volume to segment; the result has its geometry.
            modelFolder: Folder of the model.
            device: "auto", "cpu" or the id of one of the worker's devices.
            channels: For multi-channel models, the volume of each channel, or None if it is missing.
            region: Markups ROI that limits the run.

        Returns:
            Outcome of the run; `segmentationId` is the ID of the result.
        """
        outcomes: list[Outcome] = []
        settings = SegmentSettings(
            volumeId=volumeNode.GetID(),
            modelFolder=str(modelFolder),
            device=device,
            channelIds=tuple(None if node is None else node.GetID() for node in channels),
            regionToWorld=None if region is None else scene_exchange.regionToWorld(region),
        )
        job = SegmentJob(
            settings, worker=self.jobs.worker, onProgress=lambda _progress: None, onFinished=outcomes.append
        )
        self.jobs.start(job)
        while not outcomes:
            slicer.app.processEvents()
            # Leave the processor to the worker.
            time.sleep(POLL_S)
        return outcomes[0]


class UNetSegmentationTest(ScriptedLoadableModuleTest):
    """Self test: everything except the worker without torch; a real segmentation with torch and a model."""

    def setUp(self) -> None:
        slicer.mrmlScene.Clear()

    def runTest(self, **_options: Any) -> None:
        from UNetSegmentationPanel import self_test

        for check in self_test.CHECKS:
            self.setUp()
            self.delayDisplay(check(UNetSegmentationLogic))
