"""The base of Slicer's scene widgets, and observers that end with their widget."""

import weakref
from collections.abc import Callable

import shiboken6

from slicer_host.look_alikes import look_alike
from slicer_host.pythonqt import QtCore, QtGui, QtWidgets


class Observers:
    """VTK observers that serve one widget.

    They hold the widget weakly, so that it may die with its last Python reference, and are removed when it goes.
    """

    def __init__(self, widget: QtCore.QObject):
        self._tags: dict[int, tuple[object, list[int]]] = {}
        widget.destroyed.connect(lambda *_: self.stop())

    def observe(self, vtk_object, event: int, callback: Callable) -> None:
        """Call a method of the widget at every `event` of `vtk_object`."""
        reference = weakref.WeakMethod(callback)

        def call(*arguments):
            method = reference()
            if method is not None and shiboken6.isValid(method.__self__):
                method(*arguments)

        if hasattr(callback, "CallDataType"):
            call.CallDataType = callback.CallDataType
        _object, tags = self._tags.setdefault(id(vtk_object), (vtk_object, []))
        tags.append(vtk_object.AddObserver(event, call))

    def stop(self, vtk_object=None) -> None:
        """Remove the observers of one object, or all; doing so twice does no harm."""
        keys = list(self._tags) if vtk_object is None else [id(vtk_object)]
        for key in keys:
            observed, tags = self._tags.pop(key, (None, ()))
            for tag in tags:
                observed.RemoveObserver(tag)


class SceneHolder:
    """What every scene widget has: a scene, set by a slot that tells of the change once."""

    _scene = None

    def setMRMLScene(self, scene):
        """Set the scene."""
        if scene is self._scene:
            return
        self._scene = scene
        self._scene_changed()

    def _scene_changed(self):
        """Answer to another scene."""


class SceneReader(SceneHolder):
    """A scene widget that PythonQt can ask for its scene; not every one is."""

    def mrmlScene(self):
        """Return the scene, or None."""
        return self._scene


@look_alike(signals={"mrmlSceneChanged(vtkMRMLScene*)": "mrmlSceneChanged"})
class qMRMLWidget(SceneReader, QtWidgets.QWidget):
    """A widget that passes its scene on to the widgets connected to it."""

    mrmlSceneChanged = QtCore.Signal(object)

    def _scene_changed(self):
        self.mrmlSceneChanged.emit(self._scene)

    def pixmapFromIcon(self, icon):
        """Return the icon in the size of this widget's style."""
        size = self.style().pixelMetric(QtWidgets.QStyle.PM_SmallIconSize)
        return QtGui.QIcon(icon).pixmap(size, size)


@look_alike(signals={"mrmlSceneChanged(vtkMRMLScene*)": "mrmlSceneChanged"})
class qSlicerWidget(SceneHolder, QtWidgets.QWidget):
    """The base of the application's own scene widgets."""

    mrmlSceneChanged = QtCore.Signal(object)

    def _scene_changed(self):
        self.mrmlSceneChanged.emit(self._scene)
