"""PySide6 that behaves like PythonQt.

Importing this package patches the PySide6 classes of the process once and registers the modules `qt` and `ctk`. Every
module of the host takes its Qt classes from here, so that nothing can meet an unpatched one. The classes are changed
in place, because Slicer code compares exact types (`type(widget) == qt.QCheckBox`).
"""

import os
import sys
import types

# PythonQt's enums are integers; PySide6 reads this once, at its first import.
os.environ.setdefault("PYSIDE6_OPTION_PYTHON_ENUM", "0x02")

from PySide6 import QtCore, QtGui, QtNetwork, QtSvg, QtTest, QtUiTools, QtWidgets, QtXml

from slicer_host.pythonqt.attributes import patch_attribute_access
from slicer_host.pythonqt.calls import patch_calls
from slicer_host.pythonqt.namespace import flat_namespace
from slicer_host.pythonqt.properties import patch_properties

QT_MODULES = (QtCore, QtGui, QtWidgets, QtUiTools, QtTest, QtNetwork, QtXml, QtSvg)

__all__ = ["QT_MODULES", "QtCore", "QtGui", "QtTest", "QtUiTools", "QtWidgets", "ctk", "qt"]


def _object_classes() -> list[type]:
    """Return every QObject class of the modules, base classes first."""
    found = {
        value
        for module in QT_MODULES
        for value in (getattr(module, name) for name in dir(module))  # PySide fills its modules on demand
        if isinstance(value, type) and issubclass(value, QtCore.QObject)
    }
    return sorted(found, key=lambda cls: (len(cls.__mro__), cls.__name__))


def _install() -> tuple[types.ModuleType, types.ModuleType]:
    classes = _object_classes()
    patch_calls()
    patch_properties(classes)
    patch_attribute_access(classes)
    modules = flat_namespace(QT_MODULES), types.ModuleType("ctk", "Look-alikes of the CTK widgets.")
    sys.modules["qt"], sys.modules["ctk"] = modules
    return modules


qt, ctk = _install()
