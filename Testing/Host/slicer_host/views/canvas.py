"""A Qt widget that paints an offscreen view and hands its events on.

Painting a picture, instead of a native OpenGL window, makes `QWidget.grab()` show the view on every platform.
"""

import slicer

from slicer_host.pythonqt import QtCore, QtGui, QtWidgets
from slicer_host.uncaught import reported

_RENDER_DELAY_MS = 15
_SMALLEST = 32

_PRESS_EVENTS = {
    QtCore.Qt.LeftButton: "LeftButtonPressEvent",
    QtCore.Qt.MiddleButton: "MiddleButtonPressEvent",
    QtCore.Qt.RightButton: "RightButtonPressEvent",
}
_RELEASE_EVENTS = {button: name.replace("Press", "Release") for button, name in _PRESS_EVENTS.items()}


class ViewCanvas(QtWidgets.QWidget):
    """Paints `pipeline` and feeds its interactor."""

    def __init__(self, parent):
        super().__init__(parent)
        self.pipeline = None
        self.paused_count = 0
        self._image = QtGui.QImage()
        self.setMouseTracking(True)
        self.setFocusPolicy(QtCore.Qt.StrongFocus)
        self.setMinimumSize(_SMALLEST, _SMALLEST)
        self._timer = QtCore.QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(_RENDER_DELAY_MS)
        self._timer.timeout.connect(self.update)

    def pipeline_size(self):
        """Return the size for the pipeline, in pixels."""
        return max(_SMALLEST, self.width), max(_SMALLEST, self.height)

    def request_render(self):
        """Paint soon; many requests give one picture."""
        if not self._timer.active:
            self._timer.start()

    @reported
    def paintEvent(self, _event):
        """Draw the view anew where it changed, else show the last picture."""
        if self.pipeline is None:
            return
        if self.pipeline.needs_render and not self.paused_count and not slicer.app._render_pauses:
            pixels = self.pipeline.picture()
            height, width, _channels = pixels.shape
            image = QtGui.QImage(pixels.data, width, height, 4 * width, QtGui.QImage.Format_RGBX8888)
            self._image = image.copy()
        painter = QtGui.QPainter(self)
        painter.drawImage(self.rect, self._image)
        painter.end()

    @reported
    def resizeEvent(self, _event):
        """Give the view the new size."""
        if self.pipeline is not None:
            self.pipeline.resize(*self.pipeline_size())

    def _interactor_at(self, event):
        interactor, modifiers, position = self.pipeline.interactor, event.modifiers(), event.position()
        interactor.SetEventInformationFlipY(
            int(position.x()),
            int(position.y()),
            int(bool(modifiers & QtCore.Qt.ControlModifier)),
            int(bool(modifiers & QtCore.Qt.ShiftModifier)),
        )
        interactor.SetAltKey(int(bool(modifiers & QtCore.Qt.AltModifier)))
        return interactor

    def _forward(self, event, names):
        name = names.get(event.button())
        if name is not None:
            getattr(self._interactor_at(event), name)()

    @reported
    def mousePressEvent(self, event):
        """Hand on."""
        self._forward(event, _PRESS_EVENTS)

    @reported
    def mouseReleaseEvent(self, event):
        """Hand on."""
        self._forward(event, _RELEASE_EVENTS)

    @reported
    def mouseMoveEvent(self, event):
        """Hand on."""
        self._interactor_at(event).MouseMoveEvent()

    @reported
    def wheelEvent(self, event):
        """Hand on."""
        interactor = self._interactor_at(event)
        if event.angleDelta().y() > 0:
            interactor.MouseWheelForwardEvent()
        else:
            interactor.MouseWheelBackwardEvent()

    @reported
    def enterEvent(self, _event):
        """Hand on."""
        self.pipeline.interactor.EnterEvent()

    @reported
    def leaveEvent(self, _event):
        """Hand on."""
        self.pipeline.interactor.LeaveEvent()

    @reported
    def keyPressEvent(self, event):
        """Hand on."""
        interactor, text = self.pipeline.interactor, event.text()
        key_name = QtGui.QKeySequence(event.key()).toString()
        interactor.SetKeyEventInformation(0, 0, text[:1] or "\0", 0, key_name)
        interactor.KeyPressEvent()
        interactor.CharEvent()
