"""Look-alikes of the CTK widgets that choose an interval."""

from slicer_host.look_alikes import look_alike, stored_property
from slicer_host.pythonqt import QtCore, QtGui, QtWidgets
from slicer_host.widgets.ctk_numbers import bounded_steps

_HANDLE_WIDTH = 10


class _TwoHandles(QtWidgets.QWidget):
    """A groove with two handles over the fractions 0 to 1."""

    moved = QtCore.Signal(float, float)

    def __init__(self, parent):
        super().__init__(parent)
        self._fractions = [0.0, 1.0]
        self._dragged = None
        self.setMinimumSize(80, 22)
        self.setSizePolicy(QtWidgets.QSizePolicy.Expanding, QtWidgets.QSizePolicy.Fixed)

    def show_fractions(self, low, high):
        """Place the handles."""
        self._fractions = [low, high]
        self.update()

    def _position(self, fraction):
        return _HANDLE_WIDTH / 2 + fraction * (self.width - _HANDLE_WIDTH)

    def paintEvent(self, _event):
        """Draw groove, chosen part and handles."""
        painter = QtGui.QPainter(self)
        painter.setRenderHint(QtGui.QPainter.Antialiasing)
        palette, middle = self.palette, self.height / 2
        low, high = (self._position(item) for item in self._fractions)
        painter.setPen(palette.color(QtGui.QPalette.Mid))
        painter.setBrush(palette.color(QtGui.QPalette.Base))
        painter.drawRoundedRect(QtCore.QRectF(1, middle - 2, self.width - 2, 4), 2, 2)
        painter.setBrush(palette.color(QtGui.QPalette.Highlight))
        painter.drawRect(QtCore.QRectF(low, middle - 2, high - low, 4))
        painter.setBrush(palette.color(QtGui.QPalette.Button))
        for position in (low, high):
            painter.drawRoundedRect(QtCore.QRectF(position - _HANDLE_WIDTH / 2, middle - 8, _HANDLE_WIDTH, 16), 2, 2)
        painter.end()

    def mousePressEvent(self, event):
        """Take the nearer handle."""
        distances = [abs(self._position(item) - event.position().x()) for item in self._fractions]
        self._dragged = distances.index(min(distances))

    def mouseMoveEvent(self, event):
        """Drag the handle up to the other one."""
        if self._dragged is None:
            return
        fraction = (event.position().x() - _HANDLE_WIDTH / 2) / max(1, self.width - _HANDLE_WIDTH)
        other = self._fractions[1 - self._dragged]
        bounds = (0.0, other) if self._dragged == 0 else (other, 1.0)
        self._fractions[self._dragged] = min(max(fraction, bounds[0]), bounds[1])
        self.update()
        self.moved.emit(*self._fractions)

    def mouseReleaseEvent(self, _event):
        """Let the handle go."""
        self._dragged = None


@look_alike()
class ctkRangeWidget(QtWidgets.QWidget):
    """A slider with two handles between two spin boxes."""

    valuesChanged = QtCore.Signal(float, float)
    minimumValueChanged = QtCore.Signal(float)
    maximumValueChanged = QtCore.Signal(float)
    minimumValueIsChanging = QtCore.Signal(float)
    maximumValueIsChanging = QtCore.Signal(float)
    rangeChanged = QtCore.Signal(float, float)

    def __init__(self, parent=None):
        super().__init__(parent)
        self._range, self._values = (0.0, 99.0), (0.0, 99.0)
        self._low, self._high = QtWidgets.QDoubleSpinBox(self), QtWidgets.QDoubleSpinBox(self)
        self._low.setObjectName("MinimumSpinBox")
        self._high.setObjectName("MaximumSpinBox")
        self._slider = _TwoHandles(self)
        self._slider.setObjectName("Slider")
        layout = QtWidgets.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        for widget in (self._low, self._slider, self._high):
            layout.addWidget(widget)
        self._low.valueChanged.connect(self.setMinimumValue)
        self._high.valueChanged.connect(self.setMaximumValue)
        self._slider.moved.connect(self._on_moved)
        self._show_state()

    def _on_moved(self, low, high):
        minimum, maximum = self._range
        steps = bounded_steps(maximum - minimum, self._low.singleStep)
        snapped = [minimum + (maximum - minimum) * round(item * steps) / steps for item in (low, high)]
        self.setValues(*snapped)

    def _show_state(self):
        minimum, maximum = self._range
        blockers = QtCore.QSignalBlocker(self._low), QtCore.QSignalBlocker(self._high)
        self._low.setRange(minimum, self._values[1])
        self._high.setRange(self._values[0], maximum)
        self._low.setValue(self._values[0])
        self._high.setValue(self._values[1])
        del blockers
        span = maximum - minimum
        if span > 0:
            self._slider.show_fractions(*((item - minimum) / span for item in self._values))

    def setValues(self, low, high):
        """Set both ends, cut to the range and ordered."""
        minimum, maximum = self._range
        decimals = self._low.decimals
        new = tuple(sorted(round(min(max(float(item), minimum), maximum), decimals) for item in (low, high)))
        old, self._values = self._values, new
        self._show_state()
        if new[0] != old[0]:
            self.minimumValueChanged.emit(new[0])
        if new[1] != old[1]:
            self.maximumValueChanged.emit(new[1])
        if new != old:
            self.valuesChanged.emit(*new)

    def setMinimumValue(self, value):
        """Set the lower end, at most the upper one."""
        self.setValues(min(float(value), self._values[1]), self._values[1])

    def setMaximumValue(self, value):
        """Set the upper end, at least the lower one."""
        self.setValues(self._values[0], max(float(value), self._values[0]))

    def setRange(self, minimum, maximum):
        """Set what the ends can be."""
        self._range = (float(min(minimum, maximum)), float(max(minimum, maximum)))
        self.setValues(*self._values)
        self.rangeChanged.emit(*self._range)

    def setDecimals(self, count):
        """Set the number of digits after the point."""
        self._low.setDecimals(int(count))
        self._high.setDecimals(int(count))

    def reset(self):
        """Choose the whole range."""
        self.setValues(*self._range)

    def _set_step(self, step):
        self._low.setSingleStep(step)
        self._high.setSingleStep(step)

    def _set_suffix(self, text):
        self._low.setSuffix(text)
        self._high.setSuffix(text)

    def _set_prefix(self, text):
        self._low.setPrefix(text)
        self._high.setPrefix(text)

    minimum = property(lambda self: self._range[0], lambda self, v: self.setRange(v, max(v, self._range[1])))
    maximum = property(lambda self: self._range[1], lambda self, v: self.setRange(min(v, self._range[0]), v))
    minimumValue = property(lambda self: self._values[0], setMinimumValue)
    maximumValue = property(lambda self: self._values[1], setMaximumValue)
    decimals = property(lambda self: self._low.decimals, setDecimals)
    singleStep = property(lambda self: self._low.singleStep, _set_step)
    suffix = property(lambda self: self._low.suffix, _set_suffix)
    prefix = property(lambda self: self._low.prefix, _set_prefix)
    autoSpinBoxWidth = stored_property(True, bool)
    spinBoxAlignment = stored_property(QtCore.Qt.AlignVCenter)
    spinBoxTextAlignment = stored_property(QtCore.Qt.AlignLeft)
    symmetricMoves = stored_property(False, bool)
    tickInterval = stored_property(0.0, float)
    tracking = stored_property(True, bool)
