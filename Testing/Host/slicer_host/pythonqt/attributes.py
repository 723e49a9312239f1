"""Attribute access by PythonQt's rules: C++ objects get no new ones; children and dynamic properties are attributes."""

import enum
import types

import shiboken6
from PySide6 import QtCore

from slicer_host.pythonqt.properties import QtProperty
from slicer_host.pythonqt.signals import connect_signal, disconnect_signal

STRICT_CLASSES: set[type] = set()
"""Classes whose objects stand for C++ objects. Python subclasses are not among them and may carry any attribute."""

_object_name = QtCore.QObject.objectName
_children = QtCore.QObject.children
_dynamic_names = QtCore.QObject.dynamicPropertyNames
_read_dynamic = QtCore.QObject.property
_write_dynamic = QtCore.QObject.setProperty
_plain_setattr = next(base for base in QtCore.QObject.__mro__ if base.__name__ == "Object").__setattr__


def _has_dynamic_property(instance, name):
    return name.encode() in [bytes(item.data()) for item in _dynamic_names(instance)]


def _missing_attribute(instance, name):
    """Look where PythonQt looks last: dynamic properties, enum values of the class, then children by name."""
    if name.startswith("__"):
        raise AttributeError(name)
    if not shiboken6.isValid(instance):
        raise ValueError(f"Trying to read attribute '{name}' of a destroyed {type(instance).__name__} object")
    if _has_dynamic_property(instance, name):
        return _read_dynamic(instance, name)
    # PySide gives the unscoped names of enum values on the class only.
    value = getattr(type(instance), name, None)
    if isinstance(value, enum.Enum):
        return value
    for child in _children(instance):
        if _object_name(child) == name:
            return child
    raise AttributeError(f"{type(instance).__name__} has no attribute named '{name}'")


def _strict_setattr(instance, name, value):
    cls = type(instance)
    # PySide keeps bound signals as attributes of the object.
    if cls not in STRICT_CLASSES or name.startswith("_") or type(value).__name__ == "SignalInstance":
        _plain_setattr(instance, name, value)
        return
    found = next((vars(base)[name] for base in cls.__mro__ if name in vars(base)), None)
    if isinstance(found, QtProperty | property):
        found.__set__(instance, value)
    elif found is not None:
        raise AttributeError(f"Slot '{name}' can not be overwritten on {cls.__name__} object")
    elif _has_dynamic_property(instance, name):
        _write_dynamic(instance, name, value)
    else:
        raise AttributeError(
            f"'{name}' does not exist on {cls.__name__} and creating new attributes on C++ objects is not allowed"
        )


def _with_string_signals(native_getattribute):
    """Wrap `__getattribute__`: PySide resolves `connect` itself, before it looks at the class.

    Methods that the host wrote in Python would answer for a destroyed object as well.
    """

    def getattribute(instance, name):
        if not name.startswith("_") and not shiboken6.isValid(instance):
            raise ValueError(f"Trying to read attribute '{name}' of a destroyed {type(instance).__name__} object")
        if name == "connect":
            return types.MethodType(connect_signal, instance)
        if name == "disconnect":
            return types.MethodType(disconnect_signal, instance)
        return native_getattribute(instance, name)

    return getattribute


def _without_keywords(native_init):
    """Wrap a constructor: PythonQt refuses keyword arguments, PySide takes them as properties."""

    def init(instance, *arguments, **keywords):
        if keywords:
            raise ValueError(f"{type(instance).__name__}: keyword arguments are not supported ({', '.join(keywords)})")
        native_init(instance, *arguments)

    return init


def _class_name(instance):
    return instance.metaObject().className()


def _delete(instance):
    shiboken6.delete(instance)


def patch_attribute_access(classes):
    """Install PythonQt's attribute rules on every class of `classes`."""
    QtCore.QObject.className = _class_name
    QtCore.QObject.delete = _delete
    QtCore.QObject.__getattr__ = _missing_attribute
    for cls in classes:
        STRICT_CLASSES.add(cls)
        # Each binding class has slots of its own, so that patching QObject alone would not reach them.
        cls.__setattr__ = _strict_setattr
        if "__init__" in vars(cls):
            cls.__init__ = _without_keywords(cls.__init__)
        if cls is QtCore.QObject or "__getattribute__" in vars(cls):
            cls.__getattribute__ = _with_string_signals(cls.__getattribute__)
