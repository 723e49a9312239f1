"""The flat module `qt` that Slicer code imports."""

import types

_HIDDEN = frozenset({"Signal", "Slot", "Property", "SIGNAL", "SLOT", "QtMsgType"})
"""PySide names that either do not exist in module `qt` or, as `qt.Signal()`, crash Slicer."""


def flat_namespace(qt_modules):
    """Return a module `qt` with the public names of all `qt_modules`."""
    namespace = types.ModuleType("qt", "PythonQt's flat namespace over PySide6.")
    for module in qt_modules:
        for name in dir(module):
            if not name.startswith("_") and name not in _HIDDEN:
                setattr(namespace, name, getattr(module, name))
    return namespace
