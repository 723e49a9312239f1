"""The layout manager: turns the layout that the genuine layout logic keeps into widgets."""

import slicer
import vtk

from slicer_host.look_alikes import constant, look_alike, stored_property
from slicer_host.pythonqt import QtCore, QtWidgets
from slicer_host.views.pipelines import SlicePipeline, ThreeDPipeline
from slicer_host.views.slice_widget import qMRMLSliceWidget
from slicer_host.views.view_widgets import qMRMLThreeDWidget
from slicer_host.widgets.mrml_widget import Observers

_VIEW_CLASSES = {
    "vtkMRMLSliceNode": (qMRMLSliceWidget, SlicePipeline),
    "vtkMRMLViewNode": (qMRMLThreeDWidget, ThreeDPipeline),
}
_EQUAL_SHARE = 1000


def _items(element):
    return [element.GetNestedElement(index) for index in range(element.GetNumberOfNestedElements())]


@look_alike()
class ctkLayoutManager(QtCore.QObject):
    """A manager of a viewport."""

    _viewport = None

    def viewport(self, *_name):
        """Return the widget that holds the views."""
        return self._viewport

    spacing = stored_property(0, int)


@look_alike()
class ctkLayoutFactory(ctkLayoutManager):
    """A layout manager with view factories."""


@look_alike(signals={"activeMRMLThreeDViewNodeChanged(vtkMRMLViewNode*)": "activeMRMLThreeDViewNodeChanged"})
class qMRMLLayoutManager(ctkLayoutFactory):
    """A layout manager for slice and 3D views."""

    layoutChanged = QtCore.Signal(int)
    activeMRMLThreeDViewNodeChanged = QtCore.Signal(object)

    def __init__(self, parent=None):
        super().__init__(parent)
        self._slice_widgets: dict[str, qMRMLSliceWidget] = {}
        self._three_d_widgets: dict[str, qMRMLThreeDWidget] = {}
        self._root_widget, self._description = None, None
        self._observers = Observers(self)

    def _start(self, viewport, application_logic, scene):
        self._viewport, self._application_logic, self._scene = viewport, application_logic, scene
        QtWidgets.QGridLayout(viewport).setContentsMargins(0, 0, 0, 0)
        self._logic = slicer.vtkMRMLLayoutLogic()
        self._logic.SetMRMLApplicationLogic(application_logic)
        self._logic.SetMRMLScene(scene)
        self._node = self._logic.GetLayoutNode()
        self._observers.observe(self._node, vtk.vtkCommand.ModifiedEvent, self._on_layout_modified)
        self._on_layout_modified()
        self._observers.observe(scene, slicer.vtkMRMLScene.EndImportEvent, self._on_scene_imported)

    # From the layout's XML to widgets

    def _view_widgets(self):
        return [*self._slice_widgets.values(), *self._three_d_widgets.values()]

    def _on_layout_modified(self, *_event):
        root, description = self._node.GetLayoutRootElement(), self._node.GetCurrentLayoutDescription()
        if root is None or description == self._description:
            return
        self._description = description
        for widget in self._view_widgets():
            widget.setParent(None)
            widget.mrmlAbstractViewNode().SetMappedInLayout(0)
        if self._root_widget is not None:
            self._root_widget.hide()
            self._root_widget.deleteLater()
        self._root_widget = self._built(root)
        self._viewport.layout().addWidget(self._root_widget, 0, 0)
        self._root_widget.show()
        self.layoutChanged.emit(self._node.GetViewArrangement())

    def _on_scene_imported(self, *_event):
        # Managers made after this observer hear of the import after it.
        QtCore.QTimer.singleShot(0, self._redraw_segmentations)

    def _redraw_segmentations(self):
        """Let slice views place the segmentations of a loaded scene: their managers wait for the slice to change."""
        for widget in self._slice_widgets.values():
            widget.mrmlSliceNode().Modified()

    def _built(self, element):
        if element.GetName() == "view":
            return self._view_widget(element)
        if element.GetName() != "layout":
            raise ValueError(f"a layout holds 'layout' and 'view' elements, not '{element.GetName()}'")
        build = {"tab": self._tabs, "grid": self._grid}.get(element.GetAttribute("type"), self._splitter)
        return build(element)

    def _tabs(self, element):
        tabs = QtWidgets.QTabWidget()
        for number, item in enumerate(_items(element), 1):
            tabs.addTab(self._built(item.GetNestedElement(0)), item.GetAttribute("name") or str(number))
        return tabs

    def _grid(self, element):
        box = QtWidgets.QWidget()
        grid = QtWidgets.QGridLayout(box)
        grid.setContentsMargins(0, 0, 0, 0)
        grid.setSpacing(2)
        defaults = {"row": 0, "column": 0, "rowspan": 1, "colspan": 1}
        for item in _items(element):
            place = [int(item.GetAttribute(name) or default) for name, default in defaults.items()]
            grid.addWidget(self._built(item.GetNestedElement(0)), *place)
        return box

    def _splitter(self, element):
        horizontal = element.GetAttribute("type") == "horizontal"
        splitter = QtWidgets.QSplitter(QtCore.Qt.Horizontal if horizontal else QtCore.Qt.Vertical)
        splitter.setHandleWidth(3)
        sizes = []
        for item in _items(element):
            splitter.addWidget(self._built(item.GetNestedElement(0)))
            sizes.append(int(item.GetAttribute("splitSize") or 0) or _EQUAL_SHARE)
        splitter.setSizes(sizes)
        return splitter

    def _view_widget(self, element):
        class_name = element.GetAttribute("class")
        node = self._logic.GetViewFromElement(element)
        if class_name not in _VIEW_CLASSES or node is None:
            placeholder = QtWidgets.QLabel(f"{class_name} is not shown here")
            placeholder.setAlignment(QtCore.Qt.AlignCenter)
            return placeholder
        widget_class, pipeline_class = _VIEW_CLASSES[class_name]
        widgets = self._slice_widgets if widget_class is qMRMLSliceWidget else self._three_d_widgets
        name = node.GetLayoutName()
        if name not in widgets:
            widget = widget_class()
            widget.setObjectName(f"{widget_class.__name__}{name}")
            widget._show(pipeline_class, self._application_logic, node)
            widgets[name] = widget
        node.SetMappedInLayout(1)
        widgets[name].show()
        return widgets[name]

    # What PythonQt shows

    def setLayout(self, layout):
        """Show a layout by its number."""
        self._node.SetViewArrangement(int(layout))

    def layoutLogic(self):
        """Return the genuine layout logic."""
        return self._logic

    def mrmlScene(self):
        """Return the scene."""
        return self._scene

    def sliceViewNames(self):
        """Return the names of the slice views."""
        return tuple(self._slice_widgets)

    def sliceWidget(self, name):
        """Return a slice widget, or None."""
        return self._slice_widgets.get(name)

    def threeDWidget(self, which):
        """Return a 3D widget by number or name, or None."""
        if isinstance(which, str):
            return self._three_d_widgets.get(which)
        widgets = list(self._three_d_widgets.values())
        return widgets[which] if 0 <= which < len(widgets) else None

    def viewWidget(self, node):
        """Return the widget of a view node, or None."""
        return next((widget for widget in self._view_widgets() if widget.mrmlAbstractViewNode() is node), None)

    def mrmlSliceLogics(self):
        """Return the logics of the slice views."""
        return self._application_logic.GetSliceLogics()

    def mrmlViewLogics(self):
        """Return the logics of the 3D views."""
        return self._application_logic.GetViewLogics()

    def activeMRMLThreeDViewNode(self):
        """Return the node of the first 3D view, or None."""
        widget = self.threeDWidget(0)
        return widget.mrmlViewNode() if widget is not None else None

    def activeThreeDRenderer(self):
        """Return the renderer of the first 3D view, or None."""
        widget = self.threeDWidget(0)
        return widget.threeDView()._pipeline().renderer if widget is not None else None

    def resetThreeDViews(self):
        """Bring the scene into every 3D view."""
        for widget in self._three_d_widgets.values():
            widget.threeDView().resetFocalPoint()

    def resetSliceViews(self):
        """Fit every slice view to its background."""
        for widget in self._slice_widgets.values():
            widget.fitSliceToBackground()

    def pauseRender(self):
        """Draw no view until `resumeRender`."""
        self.setRenderPaused(True)

    def resumeRender(self):
        """End one pause."""
        self.setRenderPaused(False)

    def setRenderPaused(self, paused):
        """Pause or end one pause of every view."""
        for widget in self._view_widgets():
            widget.setRenderPaused(paused)

    layout = property(lambda self: self._node.GetViewArrangement(), setLayout)
    threeDViewCount = property(lambda self: len(self._three_d_widgets))
    tableViewCount = constant(0)
    plotViewCount = constant(0)


@look_alike()
class qSlicerLayoutManager(qMRMLLayoutManager):
    """The application's layout manager."""

    selectModule = QtCore.Signal(str)
