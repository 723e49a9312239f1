"""Look-alikes of the classes under Slicer's view widgets: the VTK views, the view widget and its controller bar."""

from slicer_host.look_alikes import look_alike, stored_property
from slicer_host.pythonqt import QtGui, QtWidgets
from slicer_host.views.canvas import ViewCanvas
from slicer_host.widgets.mrml_widget import SceneHolder, qMRMLWidget

_BAR_HEIGHT = 24


@look_alike()
class ctkVTKAbstractView(QtWidgets.QWidget):
    """A widget that shows a render window."""

    def __init__(self, parent=None):
        super().__init__(parent)
        self._canvas = ViewCanvas(self)
        layout = QtWidgets.QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._canvas)

    def _pipeline(self):
        return self._canvas.pipeline

    def renderWindow(self):
        """Return the render window."""
        return self._pipeline().render_window

    def interactor(self):
        """Return the interactor of the render window."""
        return self._pipeline().interactor

    def interactorStyle(self):
        """Return the interactor style."""
        return self._pipeline().style

    def scheduleRender(self):
        """Draw soon."""
        self._pipeline().mark_dirty()

    def forceRender(self):
        """Draw now."""
        self._pipeline().mark_dirty()
        self._canvas.repaint()

    def pauseRender(self):
        """Draw nothing until `resumeRender`; return how many pauses there are."""
        self._canvas.paused_count += 1
        return self._canvas.paused_count

    def resumeRender(self):
        """End one pause; return how many are left."""
        self._canvas.paused_count = max(0, self._canvas.paused_count - 1)
        self._canvas.request_render()
        return self._canvas.paused_count

    def setRenderPaused(self, paused):
        """Pause or end one pause."""
        return self.pauseRender() if paused else self.resumeRender()

    def _set_background(self, color, second):
        setter = self._pipeline().renderer.SetBackground2 if second else self._pipeline().renderer.SetBackground
        setter(color.redF(), color.greenF(), color.blueF())
        self.scheduleRender()

    def setBackgroundColor(self, color):
        """Set the lower colour behind the scene."""
        self._set_background(color, second=False)

    def setBackgroundColor2(self, color):
        """Set the upper colour behind the scene."""
        self._set_background(color, second=True)

    backgroundColor = property(
        lambda self: QtGui.QColor.fromRgbF(*self._pipeline().renderer.GetBackground()), setBackgroundColor
    )
    backgroundColor2 = property(
        lambda self: QtGui.QColor.fromRgbF(*self._pipeline().renderer.GetBackground2()), setBackgroundColor2
    )


@look_alike()
class ctkVTKSliceView(ctkVTKAbstractView):
    """A view of slices."""

    def cornerAnnotation(self):
        """Return the texts in the corners."""
        return self._pipeline().corner_annotation


@look_alike()
class ctkVTKRenderView(ctkVTKAbstractView):
    """A view of a 3D scene."""


class _ViewOfNode(SceneHolder):
    """What slice view and 3D view have in common."""

    def displayableManagerByClassName(self, name):
        """Return a displayable manager, or None."""
        return self._pipeline().managers.GetDisplayableManagerByClassName(name)

    def getDisplayableManagers(self, collection):
        """Put all displayable managers into a vtkCollection."""
        managers = self._pipeline().managers
        for index in range(managers.GetDisplayableManagerCount()):
            collection.AddItem(managers.GetNthDisplayableManager(index))

    def interactorObserver(self):
        """Return the interactor style."""
        return self._pipeline().style

    def setViewCursor(self, cursor):
        """Set the mouse pointer."""
        self._canvas.setCursor(cursor)

    def unsetViewCursor(self):
        """Go back to the arrow."""
        self._canvas.unsetCursor()


@look_alike()
class qMRMLSliceView(_ViewOfNode, ctkVTKSliceView):
    """The slice view."""

    def mrmlSliceNode(self):
        """Return the slice node."""
        return self._pipeline().view_node

    def sliceViewInteractorStyle(self):
        """Return the interactor style."""
        return self._pipeline().style

    def convertDeviceToXYZ(self, position):
        """Convert a position of the widget, in pixels from the upper left, to slice coordinates."""
        return (float(position[0]), float(self._canvas.height - 1 - position[1]), 0.0)

    def convertXYZToRAS(self, position):
        """Convert slice coordinates to RAS."""
        return tuple(self.mrmlSliceNode().GetXYToRAS().MultiplyPoint((*position, 1.0))[:3])

    def convertRASToXYZ(self, position):
        """Convert RAS to slice coordinates."""
        matrix = self.mrmlSliceNode().GetXYToRAS().NewInstance()
        matrix.DeepCopy(self.mrmlSliceNode().GetXYToRAS())
        matrix.Invert()
        return tuple(matrix.MultiplyPoint((*position, 1.0))[:3])


@look_alike()
class qMRMLThreeDView(_ViewOfNode, ctkVTKRenderView):
    """The 3D view."""

    def mrmlViewNode(self):
        """Return the view node."""
        return self._pipeline().view_node

    def cameraNode(self):
        """Return the node of the view's camera."""
        return self._pipeline().camera_node()

    def resetFocalPoint(self):
        """Look at the middle of the scene."""
        self._pipeline().reset_focal_point()

    def resetCamera(self, *which):
        """Move the camera until the scene is in the view; `which` of rotation, translation and distance is reset."""
        self._pipeline().reset_camera(
            **dict(zip(("rotation", "translation", "distance"), map(bool, which), strict=False))
        )

    def rotateToViewAxis(self, axis):
        """Look along an axis: 0 to 5 for right, left, posterior, anterior, inferior, superior."""
        camera = self.cameraNode()
        ways = (camera.Right, camera.Left, camera.Posterior, camera.Anterior, camera.Inferior, camera.Superior)
        camera.RotateTo(ways[axis])

    def lookFromViewAxis(self, axis):
        """Look along an axis."""
        self.rotateToViewAxis(int(axis))


@look_alike()
class qMRMLViewControllerBar(qMRMLWidget):
    """The coloured bar over a view."""

    def __init__(self, parent=None):
        super().__init__(parent)
        self._bar = QtWidgets.QWidget(self)
        self._bar.setAutoFillBackground(True)
        self._bar.setFixedHeight(_BAR_HEIGHT)
        self._label = QtWidgets.QLabel(self._bar)
        self._label.setContentsMargins(4, 0, 4, 0)
        font = self._label.font
        font.setBold(True)
        self._label.setFont(font)
        self._bar_layout = QtWidgets.QHBoxLayout(self._bar)
        self._bar_layout.setContentsMargins(2, 1, 4, 1)
        self._bar_layout.setSpacing(4)
        self._bar_layout.addWidget(self._label)
        layout = QtWidgets.QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._bar)

    def _show_node(self, node):
        color = QtGui.QColor.fromRgbF(*node.GetLayoutColor())
        palette = self._bar.palette
        palette.setColor(QtGui.QPalette.Window, color)
        palette.setColor(QtGui.QPalette.WindowText, QtGui.QColor("black" if color.lightnessF() > 0.35 else "white"))
        self._bar.setPalette(palette)
        self._label.setText(node.GetLayoutLabel() or "")

    def barLayout(self):
        """Return the layout of the bar."""
        return self._bar_layout

    def barWidget(self):
        """Return the bar."""
        return self._bar

    def viewLabel(self):
        """Return the label with the view's letter."""
        return self._label

    showMaximizeViewButton = stored_property(True, bool)


@look_alike()
class qMRMLAbstractViewWidget(qMRMLWidget):
    """A view with its controller bar."""

    _view = None
    _controller = None

    def _lay_out(self, controller, view):
        self._controller, self._view = controller, view
        layout = QtWidgets.QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(0)
        layout.addWidget(controller)
        layout.addWidget(view, 1)

    def _show(self, pipeline_class, application_logic, node):
        canvas = self._view._canvas
        canvas.pipeline = pipeline_class(application_logic, node, canvas.pipeline_size(), canvas.request_render)
        self._controller._show_node(node)
        self._view.setMRMLScene(node.GetScene())
        self.setMRMLScene(node.GetScene())

    def mrmlAbstractViewNode(self):
        """Return the view node."""
        return self._view._pipeline().view_node

    def viewWidget(self):
        """Return the view without its bar."""
        return self._view

    def controllerWidget(self):
        """Return the bar."""
        return self._controller

    def logic(self):
        """Return the logic of the view."""
        return self._view._pipeline().logic

    def pauseRender(self):
        """Draw nothing until `resumeRender`."""
        self._view.pauseRender()

    def resumeRender(self):
        """End one pause."""
        self._view.resumeRender()

    def setRenderPaused(self, paused):
        """Pause or end one pause."""
        self._view.setRenderPaused(paused)

    def setViewLabel(self, text):
        """Set the letter of the view."""
        self.mrmlAbstractViewNode().SetLayoutLabel(text)
        self._controller._show_node(self.mrmlAbstractViewNode())

    def setViewColor(self, color):
        """Set the colour of the view."""
        self.mrmlAbstractViewNode().SetLayoutColor(color.redF(), color.greenF(), color.blueF())
        self._controller._show_node(self.mrmlAbstractViewNode())

    viewLabel = property(lambda self: self.mrmlAbstractViewNode().GetLayoutLabel(), setViewLabel)
    viewColor = property(
        lambda self: QtGui.QColor.fromRgbF(*self.mrmlAbstractViewNode().GetLayoutColor()), setViewColor
    )


@look_alike()
class qMRMLThreeDViewControllerWidget(qMRMLViewControllerBar):
    """The bar over a 3D view."""

    def __init__(self, parent=None):
        super().__init__(parent)
        self._center_button = QtWidgets.QToolButton(self._bar)
        self._center_button.setText("+")
        self._center_button.setToolTip("Center the scene in the view")
        self._center_button.setAutoRaise(True)
        self._bar_layout.addWidget(self._center_button)
        self._bar_layout.addStretch(1)


@look_alike()
class qMRMLThreeDWidget(qMRMLAbstractViewWidget):
    """A 3D view with its bar."""

    def __init__(self, parent=None):
        super().__init__(parent)
        self._lay_out(qMRMLThreeDViewControllerWidget(self), qMRMLThreeDView(self))
        self._controller._center_button.clicked.connect(self._view.resetFocalPoint)

    def threeDView(self):
        """Return the 3D view."""
        return self._view

    def threeDController(self):
        """Return the bar."""
        return self._controller

    def mrmlViewNode(self):
        """Return the view node."""
        return self.mrmlAbstractViewNode()

    def viewLogic(self):
        """Return the logic of the view."""
        return self.logic()

    def getDisplayableManagers(self, collection):
        """Put all displayable managers into a vtkCollection."""
        self._view.getDisplayableManagers(collection)
