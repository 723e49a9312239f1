"""How a widget shows a value and tells of the user's: one binding for each pair of widget class and type.

Classes are compared exactly: Slicer binds a QPushButton, not every subclass of it.
"""

import enum
import pathlib
from dataclasses import dataclass
from typing import Any

import ctk
import qt
import slicer

from .annotations import (
    Choice,
    Decimals,
    Maximum,
    Minimum,
    RangeBounds,
    SingleStep,
    WithinRange,
    first_annotation,
    split_annotations,
)
from .packs import FloatRange
from .serializers import node_classes

SlicerParameterNamePropertyName = "SlicerParameterName"
_INT_LIMITS = (-(2**31), 2**31 - 1)
_FLOAT_LIMITS = (float("-inf"), float("inf"))


class PropertyBinding:
    """A value that is a property of the widget."""

    def __init__(self, widget, type_, *, signal, name):
        self._widget, self._type, self._signal, self._name = widget, type_, signal, name
        self._slot = None
        self.prepare()

    def prepare(self):
        """Set the widget up for the type."""

    def read(self):
        """Return the widget's value."""
        return getattr(self._widget, self._name)

    def write(self, value):
        """Show a value."""
        setattr(self._widget, self._name, value)

    def widget(self):
        """Return the widget."""
        return self._widget

    def onChanged(self, slot):
        """Call `slot` without arguments when the widget's value changes; None ends that."""
        signal = getattr(self._widget, self._signal)
        if self._slot is not None:
            signal.disconnect(self._slot)
        self._slot = None if slot is None else lambda *_values: slot()
        if self._slot is not None:
            signal.connect(self._slot)


class ButtonBinding(PropertyBinding):
    """A checkable button."""

    def prepare(self):
        self._widget.checkable = True


class CheckStateBinding(PropertyBinding):
    """A button with a check box in it."""

    def read(self):
        return self._widget.checkState == qt.Qt.Checked

    def write(self, value):
        self._widget.checkState = qt.Qt.Checked if value else qt.Qt.Unchecked


class NumberBinding(PropertyBinding):
    """A number with the bounds of its annotations."""

    def prepare(self):
        for kind, name in ((Decimals, "decimals"), (SingleStep, "singleStep")):
            hint = first_annotation(self._type, kind)
            if hint is not None:
                setattr(self._widget, name, hint.value)
        within = first_annotation(self._type, WithinRange)
        minimum = within or first_annotation(self._type, Minimum)
        maximum = within or first_annotation(self._type, Maximum)
        if self._name_of_class() in ("QSlider", "ctkSliderWidget") and (minimum is None or maximum is None):
            raise RuntimeError(f"a {self._name_of_class()} needs a type with bounds, such as WithinRange")
        limits = _INT_LIMITS if self._name_of_class() in ("QSlider", "QSpinBox") else _FLOAT_LIMITS
        self._widget.minimum = limits[0] if minimum is None else minimum.minimum
        self._widget.maximum = limits[1] if maximum is None else maximum.maximum

    def _name_of_class(self):
        return type(self._widget).__name__


class WholeNumberBinding(NumberBinding):
    """A whole number in a widget for floating-point ones."""

    def read(self):
        return round(super().read())


class ComboBinding(PropertyBinding):
    """One of several choices."""

    def prepare(self):
        plain = split_annotations(self._type)[0]
        choice = first_annotation(self._type, Choice)
        if issubclass(plain, enum.Enum):
            label = getattr(plain, "label", lambda member: member.name)
            self._choices = tuple(plain)
            texts = [label(member) for member in plain]
        elif choice is not None:
            self._choices = tuple(choice.choices)
            texts = [str(item) for item in self._choices]
        else:
            raise RuntimeError("a combo box needs a type with the Choice annotation, or an Enum")
        self._widget.clear()
        for text in texts:
            self._widget.addItem(text)

    def read(self):
        return self._choices[self._widget.currentIndex]

    def write(self, value):
        if value not in self._choices:
            raise ValueError(f"Unable to find value {value} in choices {self._choices}")
        self._widget.currentIndex = self._choices.index(value)


class PlainTextBinding(PropertyBinding):
    """The text of a text edit, without its format."""

    def read(self):
        return self._widget.toPlainText()

    def write(self, value):
        if value != self.read():
            self._widget.setPlainText(value)


class LabelBinding(PropertyBinding):
    """A label, which only shows."""

    def onChanged(self, slot):
        """Do nothing: a label has no value of the user's."""


class PathBinding(PropertyBinding):
    """A path."""

    def read(self):
        return split_annotations(self._type)[0](super().read())

    def write(self, value):
        super().write(str(value))


class RangeBinding(PropertyBinding):
    """An interval."""

    def prepare(self):
        bounds = first_annotation(self._type, RangeBounds)
        if bounds is None:
            raise RuntimeError("a range widget needs a type with the RangeBounds annotation")
        self._widget.minimum, self._widget.maximum = bounds.minimum, bounds.maximum

    def read(self):
        return FloatRange(self._widget.minimumValue, self._widget.maximumValue)

    def write(self, value):
        self._widget.setValues(value.minimum, value.maximum)


class NodeBinding(PropertyBinding):
    """A node."""

    def prepare(self):
        self._widget.nodeTypes = [cls.__name__ for cls in node_classes(self._type)]

    def read(self):
        return self._widget.currentNode()

    def write(self, value):
        self._widget.setCurrentNode(value)


@dataclass(frozen=True, kw_only=True)
class Rule:
    """Which widget classes and types a binding serves."""

    widgets: tuple[Any, ...]
    accepts: Any
    binding: type
    signal: str
    name: str = ""


def _is(*types):
    return lambda plain: plain in types


def _is_choice(plain):
    return isinstance(plain, type) and (plain in (int, float, str, bool) or issubclass(plain, enum.Enum))


def _is_path(plain):
    return isinstance(plain, type) and issubclass(plain, pathlib.PurePath)


def _is_node(plain):
    return bool(node_classes(plain))


_FLOAT_WIDGETS = (
    *(qt.QDoubleSpinBox, ctk.ctkSliderWidget, ctk.ctkDoubleSlider, ctk.ctkDoubleSpinBox),
    *(slicer.qMRMLSliderWidget, slicer.qMRMLSpinBox),
)
RULES = (
    Rule(
        widgets=(qt.QCheckBox, ctk.ctkCheckBox),
        accepts=_is(bool),
        binding=PropertyBinding,
        signal="toggled",
        name="checked",
    ),
    Rule(widgets=(qt.QPushButton,), accepts=_is(bool), binding=ButtonBinding, signal="toggled", name="checked"),
    Rule(
        widgets=(ctk.ctkCheckablePushButton,), accepts=_is(bool), binding=CheckStateBinding, signal="checkStateChanged"
    ),
    Rule(
        widgets=(qt.QSlider, qt.QSpinBox), accepts=_is(int), binding=NumberBinding, signal="valueChanged", name="value"
    ),
    Rule(widgets=_FLOAT_WIDGETS, accepts=_is(float), binding=NumberBinding, signal="valueChanged", name="value"),
    Rule(widgets=_FLOAT_WIDGETS, accepts=_is(int), binding=WholeNumberBinding, signal="valueChanged", name="value"),
    Rule(
        widgets=(qt.QComboBox, ctk.ctkComboBox), accepts=_is_choice, binding=ComboBinding, signal="currentIndexChanged"
    ),
    Rule(widgets=(qt.QLineEdit,), accepts=_is(str), binding=PropertyBinding, signal="textChanged", name="text"),
    Rule(widgets=(qt.QLabel,), accepts=_is(str), binding=LabelBinding, signal="", name="text"),
    Rule(widgets=(qt.QTextEdit,), accepts=_is(str), binding=PlainTextBinding, signal="textChanged"),
    Rule(
        widgets=(ctk.ctkRangeWidget, slicer.qMRMLRangeWidget),
        accepts=_is(FloatRange),
        binding=RangeBinding,
        signal="valuesChanged",
    ),
    Rule(
        widgets=(ctk.ctkPathLineEdit,),
        accepts=_is_path,
        binding=PathBinding,
        signal="currentPathChanged",
        name="currentPath",
    ),
    Rule(
        widgets=(ctk.ctkDirectoryButton,),
        accepts=_is_path,
        binding=PathBinding,
        signal="directoryChanged",
        name="directory",
    ),
    Rule(widgets=(slicer.qMRMLNodeComboBox,), accepts=_is_node, binding=NodeBinding, signal="currentNodeChanged"),
    Rule(
        widgets=(ctk.ctkColorPickerButton,),
        accepts=_is(qt.QColor),
        binding=PropertyBinding,
        signal="colorChanged",
        name="color",
    ),
)


def createGuiConnector(widget, datatype):
    """Return the binding of a widget to a type.

    Raises:
        RuntimeError: Slicer cannot bind this pair.
    """
    plain = split_annotations(datatype)[0]
    for rule in RULES:
        if type(widget) in rule.widgets and rule.accepts(plain):
            return rule.binding(widget, datatype, signal=rule.signal, name=rule.name)
    raise RuntimeError(f"Unable to create GUI connector from datatype '{datatype}' to widget type '{type(widget)}'")


def findChildWidgetForParameter(widget, parameter):
    """Return the child widget that a form binds to a parameter, or None."""
    for child in widget.findChildren(qt.QWidget):
        if child.property(SlicerParameterNamePropertyName) == parameter:
            return child
    return None
