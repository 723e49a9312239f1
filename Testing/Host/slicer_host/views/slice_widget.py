"""Look-alikes of the slice widget and of the bar that moves through the slices."""

import vtk

from slicer_host.look_alikes import look_alike, stored_property
from slicer_host.pythonqt import QtCore, QtGui
from slicer_host.views.view_widgets import qMRMLAbstractViewWidget, qMRMLSliceView, qMRMLViewControllerBar
from slicer_host.widgets.mrml_numbers import qMRMLSliderWidget
from slicer_host.widgets.mrml_widget import Observers

_SMALLEST_STEP_MM = 1e-3


@look_alike(signals={"nodeAboutToBeEdited(vtkMRMLNode*)": "nodeAboutToBeEdited"})
class qMRMLSliceControllerWidget(qMRMLViewControllerBar):
    """The bar over a slice view with the offset slider."""

    renderRequested = QtCore.Signal()
    nodeAboutToBeEdited = QtCore.Signal(object)

    def __init__(self, parent=None):
        super().__init__(parent)
        self._logic, self._updating = None, False
        self._observers = Observers(self)
        self._offset_slider = qMRMLSliderWidget(self._bar)
        self._offset_slider.suffix = "mm"
        self._offset_slider.decimals = 2
        self._bar_layout.addWidget(self._offset_slider, 1)
        self._offset_slider.valueChanged.connect(self.setSliceOffsetValue)

    def setSliceLogic(self, logic):
        """Move the slices of this logic."""
        self._observers.stop()
        self._logic = logic
        self._observers.observe(logic, vtk.vtkCommand.ModifiedEvent, self._on_modified)
        self._observers.observe(logic.GetSliceNode(), vtk.vtkCommand.ModifiedEvent, self._on_modified)
        self._on_modified()

    def _on_modified(self, *_event):
        if self._updating:
            return
        bounds, step = [0.0, -1.0], vtk.reference(1.0)
        self._updating = True
        if self._logic.GetSliceOffsetRangeResolution(bounds, step) and bounds[0] < bounds[1]:
            self._offset_slider.singleStep = max(_SMALLEST_STEP_MM, step.get())
            self._offset_slider.minimum, self._offset_slider.maximum = bounds
        self._offset_slider.value = self._logic.GetSliceOffset()
        self._updating = False

    def sliceLogic(self):
        """Return the slice logic."""
        return self._logic

    def mrmlSliceNode(self):
        """Return the slice node."""
        return self._logic.GetSliceNode()

    def mrmlSliceCompositeNode(self):
        """Return the node that says which volumes are shown."""
        return self._logic.GetSliceCompositeNode()

    def sliceOffsetSlider(self):
        """Return the slider."""
        return self._offset_slider

    def setSliceOffsetValue(self, offset_mm):
        """Show the slice at an offset; linked views follow."""
        if self._updating or self._logic is None:
            return
        self._logic.StartSliceOffsetInteraction()
        self._logic.SetSliceOffset(offset_mm)
        self._logic.EndSliceOffsetInteraction()

    def fitSliceToBackground(self):
        """Show the whole background volume."""
        self._logic.FitSliceToBackground()

    def setSliceLink(self, linked):
        """Link the slice views, or not."""
        self.mrmlSliceCompositeNode().SetLinkedControl(linked)

    def setSliceVisible(self, visible):
        """Show the slice in 3D, or not."""
        self.mrmlSliceNode().SetSliceVisible(visible)

    def setSliceOrientation(self, name):
        """Orient the slice by the name of a preset."""
        self.mrmlSliceNode().SetOrientation(name)

    sliceOrientation = property(lambda self: self.mrmlSliceNode().GetOrientation(), setSliceOrientation)
    sliceViewName = property(lambda self: self.mrmlSliceNode().GetLayoutName())
    sliceViewLabel = property(lambda self: self.mrmlSliceNode().GetLayoutLabel())
    showSliceOffsetSlider = stored_property(True, bool)


@look_alike(signals={"nodeAboutToBeEdited(vtkMRMLNode*)": "nodeAboutToBeEdited"})
class qMRMLSliceWidget(qMRMLAbstractViewWidget):
    """A slice view with its bar."""

    nodeAboutToBeEdited = QtCore.Signal(object)

    def __init__(self, parent=None):
        super().__init__(parent)
        self._lay_out(qMRMLSliceControllerWidget(self), qMRMLSliceView(self))

    def _show(self, pipeline_class, application_logic, node):
        super()._show(pipeline_class, application_logic, node)
        self._controller.setSliceLogic(self.logic())

    def sliceView(self):
        """Return the slice view."""
        return self._view

    def sliceController(self):
        """Return the bar."""
        return self._controller

    def sliceLogic(self):
        """Return the slice logic."""
        return self.logic()

    def mrmlSliceNode(self):
        """Return the slice node."""
        return self.mrmlAbstractViewNode()

    def mrmlSliceCompositeNode(self):
        """Return the node that says which volumes are shown."""
        return self.logic().GetSliceCompositeNode()

    def interactorStyle(self):
        """Return the interactor style."""
        return self._view.interactorStyle()

    def overlayCornerAnnotation(self):
        """Return the texts in the corners."""
        return self._view.cornerAnnotation()

    def imageDataConnection(self):
        """Return the output port of the shown image."""
        return self.logic().GetImageDataConnection()

    def fitSliceToBackground(self):
        """Show the whole background volume."""
        self._view._pipeline().fit()

    def setSliceOrientation(self, name):
        """Orient the slice by the name of a preset."""
        self.mrmlSliceNode().SetOrientation(name)

    sliceOrientation = property(lambda self: self.mrmlSliceNode().GetOrientation(), setSliceOrientation)
    sliceViewName = property(lambda self: self.mrmlSliceNode().GetLayoutName())
    sliceViewLabel = property(lambda self: self.mrmlSliceNode().GetLayoutLabel())
    sliceViewColor = property(lambda self: QtGui.QColor.fromRgbF(*self.mrmlSliceNode().GetLayoutColor()))
