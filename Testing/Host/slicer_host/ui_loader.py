"""`qt.QUiLoader` that makes look-alikes and sets their Python properties and connections.

Qt's own loader builds the form. What it cannot do in C++ for a class written in Python is taken out of the XML before
and done afterwards: properties of look-alikes, and connections such as `mrmlSceneChanged(vtkMRMLScene*)`.
"""

import xml.etree.ElementTree as ET
from dataclasses import dataclass
from typing import Any

from slicer_host.look_alikes import LOOK_ALIKES
from slicer_host.pythonqt import QtCore, QtGui, QtUiTools, QtWidgets, qt

_ENUM_SCOPES = {"Qt": QtCore.Qt, "QFont": QtGui.QFont}


@dataclass(frozen=True, kw_only=True)
class LatePropertyValue:
    """A property to set once the widget exists."""

    widget: str
    name: str
    value: Any


def _enum_value(text: str, cls: type) -> int:
    """Return the value of "Class::Name|Class::Other"."""
    total = 0
    for part in text.split("|"):
        scope, _, name = part.rpartition("::")
        owner = LOOK_ALIKES.get(scope) or _ENUM_SCOPES.get(scope) or getattr(QtWidgets, scope, cls)
        total |= int(getattr(owner, name))
    return total


_READERS = {
    "bool": lambda element: (element.text or "").strip() == "true",
    "number": lambda element: int(element.text),
    "double": lambda element: float(element.text),
    "string": lambda element: element.text or "",
    "cstring": lambda element: element.text or "",
    "stringlist": lambda element: tuple(item.text or "" for item in element.findall("string")),
    "color": lambda element: QtGui.QColor(*(int(element.findtext(name)) for name in ("red", "green", "blue"))),
}


def _property_value(element: ET.Element, cls: type) -> Any:
    value = element[0]
    if value.tag in ("enum", "set"):
        return _enum_value(value.text or "", cls)
    if value.tag not in _READERS:
        raise RuntimeError(f"the form loader cannot read <{value.tag}> of '{element.get('name')}' of {cls.__name__}")
    return _READERS[value.tag](value)


def _check_classes(root: ET.Element) -> None:
    declared = {item.findtext("class"): item.findtext("extends") for item in root.findall("customwidgets/customwidget")}
    used = {widget.get("class") for widget in root.iter("widget")}
    unknown = sorted(name for name in used | set(declared) if name not in LOOK_ALIKES and not hasattr(QtWidgets, name))
    if unknown:
        raise RuntimeError(f"the host has no look-alike for {', '.join(unknown)}: add one to slicer_host.widgets")
    undeclared = sorted(name for name in used if name in LOOK_ALIKES and name not in declared)
    if undeclared:
        raise RuntimeError(
            f"the form uses {', '.join(undeclared)} without a <customwidget> entry: Slicer cannot make it"
        )


def _take_late_properties(root: ET.Element) -> list[LatePropertyValue]:
    late = []
    for widget in root.iter("widget"):
        cls = LOOK_ALIKES.get(widget.get("class"))
        if cls is None:
            continue
        for element in list(widget.findall("property")):
            name = element.get("name")
            if any(isinstance(vars(base).get(name), property) for base in cls.__mro__):
                late.append(
                    LatePropertyValue(widget=widget.get("name"), name=name, value=_property_value(element, cls))
                )
                widget.remove(element)
    return late


def _take_connections(root: ET.Element) -> list[tuple[str, str, str, str]]:
    connections = [
        tuple(item.findtext(part) for part in ("sender", "signal", "receiver", "slot"))
        for item in root.findall("connections/connection")
    ]
    for element in root.findall("connections"):
        root.remove(element)
    return connections


def _check_qt5_enums(root: ET.Element) -> None:
    for element in [*root.iter("enum"), *root.iter("set")]:
        for part in (element.text or "").split("|"):
            _scope, _, rest = part.partition("::")
            if "::" in rest:
                raise RuntimeError(
                    f"enum '{part}' of the form has two scopes, which Slicer built with Qt 5 cannot read"
                )


class QUiLoader(QtUiTools.QUiLoader):
    """Qt's form loader with the look-alikes registered."""

    def __init__(self, parent=None):
        super().__init__(parent)
        for cls in LOOK_ALIKES.values():
            if issubclass(cls, QtWidgets.QWidget):
                self.registerCustomWidget(cls)

    def load(self, device, parent=None):
        """Build the form that `device` (a QIODevice) holds.

        Raises:
            RuntimeError: the form asks for what Slicer, or this host, does not have.
        """
        if not device.isOpen():
            device.open(QtCore.QIODevice.ReadOnly)
        root = ET.fromstring(bytes(device.readAll().data()))
        _check_classes(root)
        _check_qt5_enums(root)
        late, connections = _take_late_properties(root), _take_connections(root)
        buffer = QtCore.QBuffer()
        buffer.setData(ET.tostring(root))
        buffer.open(QtCore.QIODevice.ReadOnly)
        form = super().load(buffer, parent)
        if form is None:
            raise RuntimeError(f"the form could not be built: {self.errorString()}")

        def named(name):
            found = form if form.objectName == name else form.findChild(QtCore.QObject, name)
            if found is None:
                raise RuntimeError(f"the form connects '{name}', which is not in it")
            return found

        for item in late:
            setattr(named(item.widget), item.name, item.value)
        for sender, signal, receiver, slot in connections:
            named(sender).connect(signal, named(receiver), slot)
        return form


qt.QUiLoader = QUiLoader
