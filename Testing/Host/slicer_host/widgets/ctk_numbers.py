"""Look-alikes of the CTK widgets that choose one number."""

import math

from slicer_host.look_alikes import look_alike, stored_property
from slicer_host.pythonqt import QtCore, QtWidgets

_MOST_STEPS = 1_000_000
_LARGEST = 1e300


def bounded_steps(span: float, step: float) -> int:
    """Return how many steps of an integer slider cover `span`; at least one, and no more than a slider can hold."""
    if step <= 0:
        return 100
    return max(1, round(min(span / step, _MOST_STEPS)))


@look_alike()
class ctkSliderWidget(QtWidgets.QWidget):
    """A slider with a spin box beside it."""

    valueChanged = QtCore.Signal(float)
    valueIsChanging = QtCore.Signal(float)
    decimalsChanged = QtCore.Signal(int)
    NoSynchronize, SynchronizeWidth, SynchronizeDecimals = range(3)

    def __init__(self, parent=None):
        super().__init__(parent)
        self._minimum, self._maximum, self._value, self._step, self._tracking = 0.0, 99.0, 0.0, 1.0, True
        self._slider = QtWidgets.QSlider(QtCore.Qt.Horizontal, self)
        self._slider.setObjectName("Slider")
        self._spin_box = QtWidgets.QDoubleSpinBox(self)
        self._spin_box.setObjectName("SpinBox")
        self._spin_box.setMinimumWidth(76)
        layout = QtWidgets.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._slider, 1)
        layout.addWidget(self._spin_box)
        self._spin_box.valueChanged.connect(self._set_value)
        self._slider.valueChanged.connect(self._on_slider_moved)
        self._slider.sliderReleased.connect(self._on_slider_released)
        self._show_state()

    def _show_state(self):
        spin_box, slider = self._spin_box, self._slider
        blockers = QtCore.QSignalBlocker(spin_box), QtCore.QSignalBlocker(slider)
        spin_box.setRange(max(self._minimum, -_LARGEST), min(self._maximum, _LARGEST))
        spin_box.setSingleStep(self._step)
        spin_box.setValue(self._value)
        steps = bounded_steps(self._maximum - self._minimum, self._step)
        slider.setRange(0, steps)
        span = self._maximum - self._minimum
        slider.setValue(round(steps * (self._value - self._minimum) / span) if span > 0 else 0)
        del blockers

    def _slider_value(self):
        span = self._maximum - self._minimum
        exact = self._minimum + self._slider.value * self._step
        return min(self._maximum, exact) if self._step > 0 else self._minimum + span * self._slider.value / 100

    def _on_slider_moved(self, _position):
        if self._tracking or not self._slider.sliderDown:
            self._set_value(self._slider_value())
        else:
            self.valueIsChanging.emit(self._slider_value())

    def _on_slider_released(self):
        self._set_value(self._slider_value())

    def _set_value(self, value):
        value = float(value)
        if math.isnan(value):
            return
        value = round(min(max(value, self._minimum), self._maximum), self._spin_box.decimals)
        changed, self._value = value != self._value, value
        self._show_state()
        if changed:
            self.valueChanged.emit(value)

    def _set_range(self, minimum, maximum):
        self._minimum, self._maximum = minimum, maximum
        self._set_value(self._value)

    def _set_minimum(self, value):
        self._set_range(float(value), max(self._maximum, float(value)))

    def _set_maximum(self, value):
        self._set_range(min(self._minimum, float(value)), float(value))

    def _set_step(self, value):
        self._step = float(value)
        self._show_state()

    def _set_tracking(self, value):
        self._tracking = bool(value)

    def setValue(self, value):
        """Set the value, cut to the range."""
        self._set_value(value)

    def setDecimals(self, count):
        """Set the number of digits after the point."""
        self._spin_box.setDecimals(int(count))
        self.decimalsChanged.emit(int(count))

    def setSpinBoxVisible(self, visible):
        """Show or hide the spin box."""
        self._spin_box.setVisible(visible)

    def reset(self):
        """Set the value to 0, cut to the range."""
        self._set_value(0.0)

    value = property(lambda self: self._value, setValue)
    minimum = property(lambda self: self._minimum, _set_minimum)
    maximum = property(lambda self: self._maximum, _set_maximum)
    singleStep = property(lambda self: self._step, _set_step)
    decimals = property(lambda self: self._spin_box.decimals, setDecimals)
    prefix = property(lambda self: self._spin_box.prefix, lambda self, text: self._spin_box.setPrefix(text))
    suffix = property(lambda self: self._spin_box.suffix, lambda self, text: self._spin_box.setSuffix(text))
    tracking = property(lambda self: self._tracking, _set_tracking)
    spinBoxVisible = property(lambda self: not self._spin_box.isHidden(), setSpinBoxVisible)
    pageStep = stored_property(10.0, float)
    tickInterval = stored_property(0.0, float)
    tickPosition = stored_property(QtWidgets.QSlider.NoTicks)
    synchronizeSiblings = stored_property(0, int)
    spinBoxAlignment = stored_property(QtCore.Qt.AlignRight)
    popupSlider = stored_property(False, bool)
    invertedAppearance = stored_property(False, bool)
    invertedControls = stored_property(False, bool)


@look_alike()
class ctkDoubleSlider(QtWidgets.QWidget):
    """A slider for floating-point values."""

    valueChanged = QtCore.Signal(float)
    sliderMoved = QtCore.Signal(float)
    sliderPressed = QtCore.Signal()
    sliderReleased = QtCore.Signal()
    rangeChanged = QtCore.Signal(float, float)

    def __init__(self, parent=None):
        super().__init__(parent)
        self._minimum, self._maximum, self._value, self._step = 0.0, 99.0, 0.0, 1.0
        self._slider = QtWidgets.QSlider(QtCore.Qt.Horizontal, self)
        layout = QtWidgets.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._slider)
        self._slider.valueChanged.connect(self._on_moved)
        self._slider.sliderPressed.connect(self.sliderPressed)
        self._slider.sliderReleased.connect(self.sliderReleased)
        self._show_state()

    def _show_state(self):
        blocker = QtCore.QSignalBlocker(self._slider)
        self._slider.setRange(0, bounded_steps(self._maximum - self._minimum, self._step))
        self._slider.setValue(round((self._value - self._minimum) / self._step) if self._step > 0 else 0)
        del blocker

    def _on_moved(self, position):
        value = min(self._maximum, self._minimum + position * self._step)
        if self._slider.sliderDown:
            self.sliderMoved.emit(value)
        self.setValue(value)

    def setValue(self, value):
        """Set the value, cut to the range."""
        value = min(max(float(value), self._minimum), self._maximum)
        changed, self._value = value != self._value, value
        self._show_state()
        if changed:
            self.valueChanged.emit(value)

    def setOrientation(self, orientation):
        """Lay the slider along `orientation`."""
        self._slider.setOrientation(orientation)

    def _set_range(self, minimum, maximum):
        self._minimum, self._maximum = minimum, maximum
        self.setValue(self._value)
        self.rangeChanged.emit(minimum, maximum)

    def _set_step(self, value):
        self._step = float(value)
        self._show_state()

    value = property(lambda self: self._value, setValue)
    sliderPosition = property(lambda self: self._value, setValue)
    minimum = property(
        lambda self: self._minimum, lambda self, v: self._set_range(float(v), max(float(v), self._maximum))
    )
    maximum = property(
        lambda self: self._maximum, lambda self, v: self._set_range(min(float(v), self._minimum), float(v))
    )
    singleStep = property(lambda self: self._step, _set_step)
    orientation = property(lambda self: self._slider.orientation, setOrientation)
    tracking = property(lambda self: self._slider.tracking, lambda self, value: self._slider.setTracking(value))
    pageStep = stored_property(10.0, float)
    tickInterval = stored_property(0.0, float)
    tickPosition = stored_property(QtWidgets.QSlider.NoTicks)
    handleToolTip = stored_property("", str)
    invertedAppearance = stored_property(False, bool)
    invertedControls = stored_property(False, bool)


@look_alike(signals={"valueChanged(QString)": "_text_changed"})
class ctkDoubleSpinBox(QtWidgets.QWidget):
    """A spin box; in CTK a plain widget that holds a QDoubleSpinBox, not one itself."""

    valueChanged = QtCore.Signal(float)
    decimalsChanged = QtCore.Signal(int)
    editingFinished = QtCore.Signal()
    _text_changed = QtCore.Signal(str)
    SetIfDifferent, SetAlways = range(2)
    SizeHintByMinMax, SizeHintByValue = range(2)
    FixedDecimals, DecimalsByShortcuts, DecimalsByKey, DecimalsByValue = 0x000, 0x200, 0x400, 0x800

    def __init__(self, parent=None):
        super().__init__(parent)
        self._spin_box = QtWidgets.QDoubleSpinBox(self)
        layout = QtWidgets.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._spin_box)
        self._spin_box.valueChanged.connect(self.valueChanged)
        self._spin_box.textChanged.connect(self._text_changed)
        self._spin_box.editingFinished.connect(self.editingFinished)

    def setValue(self, value):
        """Set the value, cut to the range."""
        self._spin_box.setValue(float(value))

    def setValueIfDifferent(self, value):
        """Set the value, cut to the range."""
        self._spin_box.setValue(float(value))

    def setValueAlways(self, value):
        """Set the value and say so even if it is the same."""
        if float(value) == self._spin_box.value:
            self.valueChanged.emit(float(value))
        self._spin_box.setValue(float(value))

    def setDecimals(self, count):
        """Set the number of digits after the point."""
        self._spin_box.setDecimals(int(count))
        self.decimalsChanged.emit(int(count))

    def setReadOnly(self, value):
        """Let the user only read the value."""
        self._spin_box.setReadOnly(value)

    def stepUp(self):
        """Add one step."""
        self._spin_box.stepUp()

    def stepDown(self):
        """Take one step away."""
        self._spin_box.stepDown()

    value = property(lambda self: self._spin_box.value, setValue)
    minimum = property(lambda self: self._spin_box.minimum, lambda self, value: self._spin_box.setMinimum(value))
    maximum = property(lambda self: self._spin_box.maximum, lambda self, value: self._spin_box.setMaximum(value))
    singleStep = property(lambda self: self._spin_box.singleStep, lambda self, v: self._spin_box.setSingleStep(v))
    decimals = property(lambda self: self._spin_box.decimals, setDecimals)
    prefix = property(lambda self: self._spin_box.prefix, lambda self, text: self._spin_box.setPrefix(text))
    suffix = property(lambda self: self._spin_box.suffix, lambda self, text: self._spin_box.setSuffix(text))
    cleanText = property(lambda self: self._spin_box.cleanText)
    readOnly = property(lambda self: self._spin_box.readOnly, setReadOnly)
    frame = property(lambda self: self._spin_box.frame, lambda self, value: self._spin_box.setFrame(value))
    alignment = property(lambda self: self._spin_box.alignment, lambda self, v: self._spin_box.setAlignment(v))
    decimalsOption = stored_property(0x200, int)
    setMode = stored_property(0, int)
    sizeHintPolicy = stored_property(0, int)
    invertedControls = stored_property(False, bool)
