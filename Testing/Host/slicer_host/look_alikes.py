"""Registry of the look-alikes: Python widgets that stand for CTK and Slicer widgets under their exact names.

PythonQt shows only properties, public slots, invokable methods, signals and enums of such a class. A look-alike
therefore has no other public name; what it needs inside starts with an underscore.
"""

from collections.abc import Callable, Mapping
from typing import Any

import slicer

from slicer_host.pythonqt import ctk
from slicer_host.pythonqt.attributes import STRICT_CLASSES
from slicer_host.pythonqt.signals import normalized

LOOK_ALIKES: dict[str, type] = {}
"""All look-alike classes by name."""


def look_alike(signals: Mapping[str, str] | None = None) -> Callable[[type], type]:
    """Register a class as look-alike in module `ctk` or `slicer`, by its name.

    Args:
        signals: attribute name of the PySide signal for each signature with a type that PySide does not know, such as
            "currentNodeChanged(vtkMRMLNode*)". Other signals are found through the meta-object.
    """

    def register(cls: type) -> type:
        cls._mrml_signals = {normalized(signature): name for signature, name in (signals or {}).items()}
        STRICT_CLASSES.add(cls)
        LOOK_ALIKES[cls.__name__] = cls
        setattr(ctk if cls.__name__.startswith("ctk") else slicer, cls.__name__, cls)
        return cls

    return register


class stored_property(property):
    """A property that keeps a converted value and calls a method of its object after a change."""

    def __init__(self, default: Any = None, convert: Callable[[Any], Any] | None = None, *, changed: str | None = None):
        super().__init__(self._read, self._write)
        self._default, self._convert, self._changed = default, convert, changed

    def __set_name__(self, owner: type, name: str) -> None:
        self._key = f"_stored_{name}"

    def _read(self, instance: Any) -> Any:
        return instance.__dict__.get(self._key, self._default)

    def _write(self, instance: Any, value: Any) -> None:
        value = value if self._convert is None else self._convert(value)
        if value == self._read(instance):
            return
        instance.__dict__[self._key] = value
        if self._changed is not None:
            getattr(instance, self._changed)()


def constant(value: Any) -> property:
    """Return a read-only property that is the same for every object."""
    return property(lambda _instance: value)


def string_tuple(value: Any) -> tuple[str, ...]:
    """Convert to what PythonQt gives for a QStringList."""
    if isinstance(value, str):
        raise AttributeError(f"a list of strings is needed, not the string {value!r}")
    return tuple(str(item) for item in value)
