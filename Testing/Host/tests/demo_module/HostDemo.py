"""A small scripted module that uses what panels use; the host's tests drive it."""

import enum
from typing import Annotated, Optional

import numpy as np
import qt
import slicer
import vtk
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.parameterNodeWrapper import Choice, WithinRange, parameterNodeWrapper, parameterPack
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleTest,
    ScriptedLoadableModuleWidget,
)
from slicer.util import VTKObservationMixin


class HostDemo(ScriptedLoadableModule):
    def __init__(self, parent):
        super().__init__(parent)
        parent.title = _("Host demo")
        parent.categories = [translate("qSlicerAbstractCoreModule", "Segmentation")]
        parent.contributors = ["The developers"]
        parent.helpText = _("Cuts a volume at a threshold.")
        slicer.app.connect("startupCompleted()", self.onStartupCompleted)
        self.startups = 0

    def onStartupCompleted(self):
        self.startups += 1


class Side(enum.Enum):
    ABOVE = "above"
    BELOW = "below"


@parameterPack
class Smoothing:
    enabled: bool = False
    radius: Annotated[int, WithinRange(0, 9)] = 1


@parameterNodeWrapper
class HostDemoParameterNode:
    inputVolume: slicer.vtkMRMLScalarVolumeNode
    threshold: Annotated[float, WithinRange(0, 1)] = 0.5
    side: Side = Side.ABOVE
    color: Annotated[str, Choice(["red", "green", "blue"])] = "green"
    note: Optional[str]  # noqa: UP045 - `str | None` is younger than some Slicers
    labels: list[str]
    smoothing: Smoothing


class HostDemoWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
    def __init__(self, parent=None):
        ScriptedLoadableModuleWidget.__init__(self, parent)
        VTKObservationMixin.__init__(self)
        self.calls = []
        self._parameterNode = None
        self._guiTag = None

    def setup(self):
        super().setup()
        form = slicer.util.loadUI(self.resourcePath("UI/HostDemo.ui"))
        self.layout.addWidget(form)
        self.ui = slicer.util.childWidgetVariables(form)
        form.setMRMLScene(slicer.mrmlScene)
        self.logic = HostDemoLogic()
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.StartCloseEvent, self.onSceneStartClose)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.EndCloseEvent, self.onSceneEndClose)
        self.ui.applyButton.connect("clicked(bool)", self.onApply)
        self.initializeParameterNode()

    def cleanup(self):
        self.calls.append("cleanup")
        self.removeObservers()

    def enter(self):
        self.calls.append("enter")
        self.initializeParameterNode()

    def exit(self):
        self.calls.append("exit")
        self.setParameterNode(None)

    def onSceneStartClose(self, _caller, _event):
        self.setParameterNode(None)

    def onSceneEndClose(self, _caller, _event):
        if self.parent.isEntered:
            self.initializeParameterNode()

    def initializeParameterNode(self):
        self.setParameterNode(self.logic.getParameterNode())
        if not self._parameterNode.inputVolume:
            first = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLScalarVolumeNode")
            if first:
                self._parameterNode.inputVolume = first

    def setParameterNode(self, parameterNode):
        if self._parameterNode:
            self._parameterNode.disconnectGui(self._guiTag)
            self.removeObserver(self._parameterNode, vtk.vtkCommand.ModifiedEvent, self.checkCanApply)
        self._parameterNode = parameterNode
        if self._parameterNode:
            names = ("inputVolume", "threshold", "side", "color", "smoothing.enabled", "smoothing.radius")
            widgets = {name: getattr(self.ui, name.replace(".", "_")) for name in names}
            self._guiTag = self._parameterNode.connectParametersToGui(widgets)
            self.addObserver(self._parameterNode, vtk.vtkCommand.ModifiedEvent, self.checkCanApply)
            self.checkCanApply()

    def checkCanApply(self, _caller=None, _event=None):
        self.ui.applyButton.enabled = bool(self._parameterNode and self._parameterNode.inputVolume)

    def onApply(self):
        with slicer.util.tryWithErrorDisplay(_("Failed to cut the volume."), waitCursor=True):
            parameters = self._parameterNode
            segmentation = self.logic.cut(parameters.inputVolume, parameters.threshold, parameters.side)
            self.ui.segmentsTable.setSegmentationNode(segmentation)
            self.ui.show3DButton.setSegmentationNode(segmentation)


class HostDemoLogic(ScriptedLoadableModuleLogic):
    def getParameterNode(self):
        return HostDemoParameterNode(super().getParameterNode())

    def cut(self, volume, threshold, side):
        """Return a segmentation with the voxels above or below a fraction of the volume's range."""
        voxels = slicer.util.arrayFromVolume(volume)
        level = voxels.min() + threshold * (voxels.max() - voxels.min())
        mask = voxels > level if side == Side.ABOVE else voxels <= level
        segmentation = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", f"{volume.GetName()} cut")
        segmentation.CreateDefaultDisplayNodes()
        segmentation.SetReferenceImageGeometryParameterFromVolumeNode(volume)
        left = np.arange(mask.shape[2]) < mask.shape[2] // 2
        for name, color, part in (("Left half", (0.9, 0.3, 0.2), left), ("Right half", (0.2, 0.6, 0.9), ~left)):
            segment_id = segmentation.GetSegmentation().AddEmptySegment("", name, color)
            labels = (mask & part).astype(np.uint8)
            slicer.util.updateSegmentBinaryLabelmapFromArray(labels, segmentation, segment_id, volume)
        return segmentation


class HostDemoTest(ScriptedLoadableModuleTest):
    def setUp(self):
        slicer.mrmlScene.Clear()

    def runTest(self):
        self.setUp()
        self.check_cut()

    def check_cut(self):
        volume = slicer.util.addVolumeFromArray(np.arange(216).reshape(6, 6, 6).astype(np.int16))
        segmentation = HostDemoLogic().cut(volume, 0.5, Side.ABOVE)
        assert segmentation.GetSegmentation().GetNumberOfSegments() == 2
        self.delayDisplay(qt.QObject().tr("Test passed"))
