"""String signals, as in `button.connect("clicked(bool)", slot)`: arguments cut and errors printed as PythonQt does."""

import inspect
import types

import shiboken6
from PySide6 import QtCore

from slicer_host.pythonqt.properties import original_callable
from slicer_host.uncaught import report_current

_native_getattribute = QtCore.QObject.__getattribute__
_connections: dict[int, dict[str, list]] = {}


def split_signature(signature):
    """Split "name(type, type)" into its name and its list of types."""
    if isinstance(signature, bytes | bytearray):
        signature = bytes(signature).decode()
    signature = signature.lstrip("0123456789")
    name, _, rest = signature.partition("(")
    inner = rest.rpartition(")")[0].strip()
    return name.strip(), [part.strip() for part in inner.split(",")] if inner else []


def normalized(signature):
    """Return the signature as Qt's meta-object system writes it."""
    name, types_ = split_signature(signature)
    raw = QtCore.QMetaObject.normalizedSignature(f"{name}({','.join(types_)})")
    return bytes(raw.data()).decode()


def mrml_signals(cls):
    """Return the signatures that the look-alikes declare beside Qt's own: those with types that PySide lacks."""
    table = {}
    for base in reversed(cls.__mro__):
        table.update(vars(base).get("_mrml_signals", {}))
    return table


def find_signal(sender, signature):
    """Return the bound PySide signal of `signature`.

    Raises:
        ValueError: there is no such signal. PythonQt would print this and go on; a typing error would stay unseen.
    """
    wanted = normalized(signature)
    attribute = mrml_signals(type(sender)).get(wanted)
    if attribute is not None:
        return getattr(sender, attribute)
    if sender.metaObject().indexOfSignal(wanted) < 0:
        raise ValueError(f"signal '{wanted}' does not exist on {type(sender).__name__}")
    name, types_ = split_signature(wanted)
    bound = getattr(sender, name)
    return bound[",".join(types_)] if types_ else bound


def _accepted_count(slot):
    """Return how many positional arguments PythonQt passes to `slot` at most: all of `co_argcount`, or None for any."""
    function = getattr(slot, "__func__", slot)
    if not isinstance(function, types.FunctionType) or function.__code__.co_flags & inspect.CO_VARARGS:
        return None
    count = function.__code__.co_argcount
    return count - 1 if inspect.ismethod(slot) else count


def _adapter(slot, signal_count):
    accepted = _accepted_count(slot)
    count = signal_count if accepted is None else min(accepted, signal_count)

    def call(*arguments):
        try:
            slot(*arguments[:count])
        except Exception:  # noqa: BLE001 - PythonQt prints whatever a slot raises and goes on
            report_current()

    return call


def _slot_of(receiver, signature):
    name, _types = split_signature(signature)
    slot = getattr(receiver, name, None)
    if callable(slot):
        return slot
    hidden_by_property = original_callable(type(receiver), name)
    if hidden_by_property is None:
        raise ValueError(f"slot '{signature}' does not exist on {type(receiver).__name__}")
    return types.MethodType(hidden_by_property, receiver)


def _connections_of(sender):
    key = shiboken6.getCppPointer(sender)[0]
    if key not in _connections:
        _connections[key] = {}
        sender.destroyed.connect(lambda *_: _connections.pop(key, None))
    return _connections[key]


def connect_signal(sender, signal, receiver, *rest):
    """Connect by signature: `connect(sig, callable)` or `connect(sig, receiver, slot)`; other forms go to PySide."""
    if not isinstance(signal, str | bytes):
        return _native_getattribute(sender, "connect")(signal, receiver, *rest)
    slot = receiver
    if isinstance(receiver, QtCore.QObject) and rest and isinstance(rest[0], str | bytes):
        slot = _slot_of(receiver, rest[0])
    bound = find_signal(sender, signal)
    adapter = _adapter(slot, len(split_signature(signal)[1]))
    bound.connect(adapter)
    _connections_of(sender).setdefault(normalized(signal), []).append((slot, adapter, bound))
    return True


def disconnect_signal(sender, *arguments):
    """Undo `connect`: `disconnect(sig)`, `disconnect(sig, callable)` or `disconnect(sig, receiver, slot)`."""
    if not arguments or not isinstance(arguments[0], str | bytes):
        return _native_getattribute(sender, "disconnect")(*arguments)
    slot = None
    if len(arguments) > 1:
        slot = _slot_of(arguments[1], arguments[2]) if len(arguments) > 2 else arguments[1]
    entries = _connections_of(sender).get(normalized(arguments[0]), [])
    gone = [entry for entry in entries if slot is None or entry[0] == slot]
    for entry in gone:
        entries.remove(entry)
        entry[2].disconnect(entry[1])
    return bool(gone)
