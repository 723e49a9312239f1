"""Look-alikes of the CTK widgets that fold away their contents."""

from slicer_host.look_alikes import look_alike, stored_property
from slicer_host.pythonqt import QtCore, QtGui, QtWidgets

_UNLIMITED_HEIGHT = 16777215  # QWIDGETSIZE_MAX
_HEADER_HEIGHT = 26
_ARROW_SIZE = 9


def _direct_child_widgets(widget):
    return [child for child in widget.children() if isinstance(child, QtWidgets.QWidget)]


@look_alike()
class ctkCollapsibleButton(QtWidgets.QAbstractButton):
    """A header that is a checkable button, with a frame of contents below it."""

    contentsCollapsed = QtCore.Signal(bool)

    def __init__(self, *arguments):
        text = arguments[0] if arguments and isinstance(arguments[0], str) else ""
        super().__init__(next((item for item in arguments if isinstance(item, QtWidgets.QWidget)), None))
        self._collapsed = False
        self.setText(text)
        self.setCheckable(True)
        self.setChecked(True)
        self.setContentsMargins(0, _HEADER_HEIGHT, 0, 0)
        self.setSizePolicy(QtWidgets.QSizePolicy.Preferred, QtWidgets.QSizePolicy.Preferred)
        self.toggled.connect(self._on_toggled)

    def _on_toggled(self, checked):
        if checked != self._collapsed:
            return
        self._collapsed = not checked
        for child in _direct_child_widgets(self):
            child.setVisible(checked)
        self.setMaximumHeight(_UNLIMITED_HEIGHT if checked else _HEADER_HEIGHT)
        self.updateGeometry()
        self.contentsCollapsed.emit(not checked)

    def childEvent(self, event):
        """Hide what is put into a collapsed button, once it can be hidden."""
        super().childEvent(event)
        if event.type() == QtCore.QEvent.ChildPolished and self._collapsed:
            child = event.child()
            if isinstance(child, QtWidgets.QWidget):
                child.setVisible(False)

    collapsed = property(lambda self: self._collapsed, lambda self, value: self.setChecked(not value))
    collapsedHeight = stored_property(10, int)
    flat = stored_property(False, bool, changed="update")
    contentsFrameShape = stored_property(QtWidgets.QFrame.NoFrame)
    contentsFrameShadow = stored_property(QtWidgets.QFrame.Plain)
    contentsLineWidth = stored_property(1, int)
    contentsMidLineWidth = stored_property(0, int)
    buttonTextAlignment = stored_property(QtCore.Qt.AlignLeft | QtCore.Qt.AlignVCenter)
    indicatorAlignment = stored_property(QtCore.Qt.AlignLeft | QtCore.Qt.AlignVCenter)

    def _hint(self, contents, minimum_width):
        height = _HEADER_HEIGHT if self._collapsed else max(_HEADER_HEIGHT, contents.height())
        return QtCore.QSize(max(contents.width(), minimum_width), height)

    def minimumSizeHint(self):
        """Header and contents at their smallest."""
        return self._hint(self.layout().totalMinimumSize() if self.layout() else QtCore.QSize(), 80)

    def sizeHint(self):
        """Header and contents as they like to be."""
        return self._hint(self.layout().totalSizeHint() if self.layout() else QtCore.QSize(), 120)

    def hitButton(self, position):
        """Only the header is the button."""
        return position.y() <= _HEADER_HEIGHT

    def paintEvent(self, _event):
        """Draw the header with its arrow, and a line round the contents."""
        painter = QtGui.QPainter(self)
        painter.setRenderHint(QtGui.QPainter.Antialiasing)
        palette = self.palette
        header = QtCore.QRectF(0.5, 0.5, self.width - 1, _HEADER_HEIGHT - 1)
        painter.setPen(palette.color(QtGui.QPalette.Mid))
        if not self._collapsed:
            painter.drawRoundedRect(QtCore.QRectF(0.5, 0.5, self.width - 1, self.height - 1), 3, 3)
        painter.setBrush(palette.color(QtGui.QPalette.Midlight if self.underMouse() else QtGui.QPalette.Button))
        painter.drawRoundedRect(header, 3, 3)
        painter.setPen(QtCore.Qt.NoPen)
        painter.setBrush(palette.color(QtGui.QPalette.ButtonText))
        painter.drawPolygon(self._arrow())
        group = QtGui.QPalette.Active if self.enabled else QtGui.QPalette.Disabled
        painter.setPen(palette.color(group, QtGui.QPalette.ButtonText))
        text_area = header.adjusted(_ARROW_SIZE + 15, 0, -6, 0)
        painter.drawText(text_area, QtCore.Qt.AlignVCenter | QtCore.Qt.TextShowMnemonic, self.text)
        painter.end()

    def _arrow(self):
        left, middle, half = 8, _HEADER_HEIGHT / 2, _ARROW_SIZE / 2
        if self._collapsed:
            corners = ((left + 2, middle - half), (left + 2 + half, middle), (left + 2, middle + half))
        else:
            corners = (
                (left, middle - half / 2),
                (left + 2 * half, middle - half / 2),
                (left + half, middle + half / 2),
            )
        return QtGui.QPolygonF([QtCore.QPointF(x, y) for x, y in corners])

    def enterEvent(self, event):
        """Light the header up."""
        super().enterEvent(event)
        self.update()

    def leaveEvent(self, event):
        """Take the light off the header."""
        super().leaveEvent(event)
        self.update()


@look_alike()
class ctkCollapsibleGroupBox(QtWidgets.QGroupBox):
    """A group box whose check mark folds it."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.setCheckable(True)
        self.setChecked(True)
        self.toggled.connect(self._on_toggled)

    def _on_toggled(self, checked):
        for child in _direct_child_widgets(self):
            child.setVisible(checked)
        self.setMaximumHeight(_UNLIMITED_HEIGHT if checked else self.fontMetrics().height() + self.collapsedHeight)
        self.updateGeometry()

    collapsed = property(lambda self: not self.isChecked(), lambda self, value: self.setChecked(not value))
    collapsedHeight = stored_property(14, int)
