"""Qt properties as Python attributes: `label.text` reads, `label.text = "x"` writes, `label.text()` fails."""

import inspect
import math
import numbers

from PySide6 import QtCore

_read_dynamic = QtCore.QObject.property
_write_dynamic = QtCore.QObject.setProperty
_INTEGER_TYPES = frozenset({"int", "uint", "short", "ushort", "qlonglong", "qulonglong"})


class QtProperty:
    """Data descriptor of one Qt property; on the class itself it gives the C++ getter, so overrides can call it."""

    __slots__ = ("class_value", "getter", "name", "setter", "type_name", "writable")

    def __init__(self, name, type_name, *, getter, setter, class_value, writable):
        self.name = name
        self.type_name = type_name
        self.getter = getter
        self.setter = setter
        self.class_value = class_value
        self.writable = writable

    def __get__(self, instance, owner=None):
        if instance is None:
            return self if self.class_value is None else self.class_value
        value = _read_dynamic(instance, self.name) if self.getter is None else self.getter(instance)
        return tuple(value) if type(value) is list else value

    def __set__(self, instance, value):
        if not self.writable:
            raise AttributeError(f"Property '{self.name}' of {type(instance).__name__} object is not writable")
        value = self._converted(instance, value)
        try:
            if self.setter is not None:
                self.setter(instance, value)
                return
        except TypeError:
            pass  # an enum given as int, or the like: the meta-object system converts what PySide refuses
        if not _write_dynamic(instance, self.name, value):
            raise self._refusal(instance, value)

    def _converted(self, instance, value):
        """Convert as PythonQt does: QString takes anything, int takes a Python float but no number of numpy."""
        if self.type_name == "QString" and not isinstance(value, str):
            return str(value)
        if self.type_name in _INTEGER_TYPES and not isinstance(value, int):
            if type(value) is float:
                return math.floor(value)
            if isinstance(value, numbers.Number):
                raise self._refusal(instance, value)
        return value

    def _refusal(self, instance, value):
        return AttributeError(
            f"Property '{self.name}' of type '{self.type_name}' of {type(instance).__name__} object "
            f"does not accept an object of type {type(value).__name__} ({value!r})"
        )


def original_callable(cls, *names):
    """Return the C++ callable of the first of `names` that `cls` has, also where a property already covers it."""
    for name in names:
        for base in cls.__mro__:
            if name not in vars(base):
                continue
            value = vars(base)[name]
            if isinstance(value, QtProperty):
                return value.class_value or value.getter
            if type(value).__name__ == "Signal":
                break
            return getattr(cls, name)
    return None


def _without_self(function):
    return lambda _instance, *arguments: function(*arguments)


def _is_static(cls, name):
    return isinstance(inspect.getattr_static(cls, name, None), staticmethod)


def _property_of(cls, meta_property):
    name = meta_property.name()
    capital = name[0].upper() + name[1:]
    class_value = original_callable(cls, name)
    getter = class_value or original_callable(cls, f"is{capital}", f"has{capital}")
    setter = original_callable(cls, f"set{capital}")
    # QCoreApplication's getters and setters (applicationName and so on) are static.
    if class_value is not None and _is_static(cls, name):
        getter = _without_self(class_value)
    if setter is not None and _is_static(cls, f"set{capital}"):
        setter = _without_self(setter)
    return QtProperty(
        name,
        meta_property.typeName(),
        getter=getter if callable(getter) else None,
        setter=setter,
        class_value=class_value,
        writable=meta_property.isWritable(),
    )


def patch_properties(classes):
    """Give each class a descriptor for every property that its own meta-object declares.

    Args:
        classes: QObject classes of PySide6, base classes first.
    """
    for cls in classes:
        meta_object = getattr(cls, "staticMetaObject", None)
        if meta_object is None:
            continue
        for index in range(meta_object.propertyOffset(), meta_object.propertyCount()):
            meta_property = meta_object.property(index)
            name = meta_property.name()
            hidden = (cls is QtCore.QTimer and name == "singleShot") or type(vars(cls).get(name)).__name__ == "Signal"
            if not hidden:
                setattr(cls, name, _property_of(cls, meta_property))
    # Slicer builds PythonQt with PYTHONQT_SUPPORT_NAME_PROPERTY.
    QtCore.QObject.name = vars(QtCore.QObject)["objectName"]
