"""How values lie in a parameter node: texts under the parameter's name, node references under a role of that name.

Texts: `name` for a plain value; `name.len` and `name.0` ... for a list; `name.0` ... for a tuple; `name.len`,
`name.0.0` (key) and `name.0.1` (value) ... for a dict; `name.K` for a union whose K-th type holds; `name.field` for a
pack. An enum is stored by the name of its member.
"""

import enum
import pathlib
import types
import typing
from collections.abc import MutableMapping, MutableSequence

import slicer

from .annotations import Validator, split_annotations


def _check_type(value, accepted):
    if not isinstance(value, accepted):
        shown = value.GetID() if hasattr(value, "GetID") else value
        raise TypeError(f"Value must be of type '{accepted}', is type '{type(value)}' value '{shown}'")


class TextSerializer:
    """A value that is one text."""

    def __init__(self, accepted, default, from_text, to_text=str):
        self._accepted, self._default, self._from_text, self._to_text = accepted, default, from_text, to_text

    def default(self):
        return self._default

    def is_in(self, node, name):
        return node.HasParameter(name)

    def check(self, value):
        _check_type(value, self._accepted)

    def write(self, node, name, value):
        node.SetParameter(name, self._to_text(value))

    def read(self, node, name):
        return self._from_text(node.GetParameter(name))

    def remove(self, node, name):
        node.UnsetParameter(name)


class NoneSerializer(TextSerializer):
    """None inside a union."""

    def __init__(self):
        super().__init__(type(None), None, lambda _text: None, lambda _value: "True")


class NodeSerializer:
    """A node or None."""

    def __init__(self, node_class):
        self._class = node_class

    def default(self):
        return None

    def is_in(self, node, name):
        return node.HasParameter(name)

    def check(self, value):
        if value is not None:
            _check_type(value, self._class)
            if value.GetScene() is None:
                raise ValueError("a node must be in the scene before a parameter can refer to it")

    def write(self, node, name, value):
        node.SetParameter(name, "")
        node.SetNodeReferenceID(name, None if value is None else value.GetID())

    def read(self, node, name):
        return node.GetNodeReference(name)

    def remove(self, node, name):
        node.SetNodeReferenceID(name, None)
        node.UnsetParameter(name)


class ListSerializer:
    """A list of one type."""

    def __init__(self, item):
        self._item = item

    def default(self):
        return []

    def is_in(self, node, name):
        return node.HasParameter(f"{name}.len")

    def check(self, value):
        _check_type(value, (list, tuple, StoredList))
        for item in value:
            self._item.check(item)

    def _stored_length(self, node, name):
        return int(node.GetParameter(f"{name}.len")) if self.is_in(node, name) else 0

    def write(self, node, name, value):
        items = list(value)
        for index in range(len(items), self._stored_length(node, name)):
            self._item.remove(node, f"{name}.{index}")
        for index, item in enumerate(items):
            self._item.write(node, f"{name}.{index}", item)
        node.SetParameter(f"{name}.len", str(len(items)))

    def read_plain(self, node, name):
        return [self._item.read(node, f"{name}.{index}") for index in range(self._stored_length(node, name))]

    def read(self, node, name):
        return StoredList(self, node, name)

    def remove(self, node, name):
        self.write(node, name, [])
        node.UnsetParameter(f"{name}.len")


class DictSerializer:
    """A dict of one type of keys and one of values."""

    def __init__(self, key, value):
        self._pairs = ListSerializer(TupleSerializer((key, value)))

    def default(self):
        return {}

    def is_in(self, node, name):
        return self._pairs.is_in(node, name)

    def check(self, value):
        _check_type(value, (dict, StoredDict))
        self._pairs.check(list(value.items()))

    def write(self, node, name, value):
        self._pairs.write(node, name, list(value.items()))

    def read_plain(self, node, name):
        return dict(self._pairs.read_plain(node, name))

    def read(self, node, name):
        return StoredDict(self, node, name)

    def remove(self, node, name):
        self._pairs.remove(node, name)


class TupleSerializer:
    """A tuple of fixed types."""

    def __init__(self, items):
        self._items = tuple(items)

    def default(self):
        return tuple(item.default() for item in self._items)

    def is_in(self, node, name):
        return all(item.is_in(node, f"{name}.{index}") for index, item in enumerate(self._items))

    def check(self, value):
        _check_type(value, tuple)
        if len(value) != len(self._items):
            raise ValueError(f"a tuple of {len(self._items)} items is needed, not {value!r}")
        for item, part in zip(self._items, value, strict=True):
            item.check(part)

    def write(self, node, name, value):
        for index, (item, part) in enumerate(zip(self._items, value, strict=True)):
            item.write(node, f"{name}.{index}", part)

    def read(self, node, name):
        return tuple(item.read(node, f"{name}.{index}") for index, item in enumerate(self._items))

    def remove(self, node, name):
        for index, item in enumerate(self._items):
            item.remove(node, f"{name}.{index}")


class UnionSerializer:
    """A value of one of several types; None is the default where it is among them."""

    def __init__(self, options):
        self._options = tuple(options)

    def default(self):
        has_none = any(isinstance(option, NoneSerializer) for option in self._options)
        return None if has_none else self._options[0].default()

    def is_in(self, node, name):
        return any(option.is_in(node, f"{name}.{index}") for index, option in enumerate(self._options))

    def _option_for(self, value):
        for index, option in enumerate(self._options):
            if value is None and not isinstance(option, NoneSerializer):
                continue
            try:
                option.check(value)
            except (TypeError, ValueError):
                continue
            return index
        raise TypeError(f"no type of the union takes {value!r}")

    def check(self, value):
        self._option_for(value)

    def write(self, node, name, value):
        chosen = self._option_for(value)
        self.remove(node, name, kept=chosen)
        self._options[chosen].write(node, f"{name}.{chosen}", value)

    def read(self, node, name):
        for index, option in enumerate(self._options):
            if option.is_in(node, f"{name}.{index}"):
                return option.read(node, f"{name}.{index}")
        return self.default()

    def remove(self, node, name, kept=None):
        for index, option in enumerate(self._options):
            if index != kept and option.is_in(node, f"{name}.{index}"):
                option.remove(node, f"{name}.{index}")


class CheckedSerializer:
    """Another serializer with validators before it."""

    def __init__(self, serializer, validators):
        self._serializer, self._validators = serializer, validators
        self.default, self.is_in = serializer.default, serializer.is_in
        self.write, self.read, self.remove = serializer.write, serializer.read, serializer.remove

    def check(self, value):
        self._serializer.check(value)
        for validator in self._validators:
            validator.validate(value)


class StoredList(MutableSequence):
    """A list that lives in a parameter node: a change of it is a change of the node."""

    def __init__(self, serializer, node, name):
        self._serializer, self._node, self._name = serializer, node, name

    def _read(self):
        return self._serializer.read_plain(self._node, self._name)

    def _write(self, items):
        self._serializer.check(items)
        with slicer.util.NodeModify(self._node):
            self._serializer.write(self._node, self._name, items)

    def __getitem__(self, index):
        return self._read()[index]

    def __setitem__(self, index, value):
        items = self._read()
        items[index] = value
        self._write(items)

    def __delitem__(self, index):
        items = self._read()
        del items[index]
        self._write(items)

    def insert(self, index, value):
        """Put a value before `index`."""
        items = self._read()
        items.insert(index, value)
        self._write(items)

    def __len__(self):
        return len(self._read())

    def __eq__(self, other):
        return self._read() == (other._read() if isinstance(other, StoredList) else other)

    __hash__ = None

    def __repr__(self):
        return f"StoredList({self._read()!r})"


class StoredDict(MutableMapping):
    """A dict that lives in a parameter node."""

    def __init__(self, serializer, node, name):
        self._serializer, self._node, self._name = serializer, node, name

    def _read(self):
        return self._serializer.read_plain(self._node, self._name)

    def _write(self, items):
        self._serializer.check(items)
        with slicer.util.NodeModify(self._node):
            self._serializer.write(self._node, self._name, items)

    def __getitem__(self, key):
        return self._read()[key]

    def __setitem__(self, key, value):
        self._write({**self._read(), key: value})

    def __delitem__(self, key):
        items = self._read()
        del items[key]
        self._write(items)

    def __iter__(self):
        return iter(self._read())

    def __len__(self):
        return len(self._read())

    def __repr__(self):
        return f"StoredDict({self._read()!r})"


def _is_node_class(item):
    return isinstance(item, type) and issubclass(item, slicer.vtkMRMLNode)


def node_classes(type_):
    """Return the node classes of a node type or a union of them, with None or without; empty for other types."""
    plain = split_annotations(type_)[0]
    options = typing.get_args(plain) if typing.get_origin(plain) in (typing.Union, types.UnionType) else (plain,)
    classes = tuple(option for option in options if option is not type(None))
    return classes if classes and all(_is_node_class(item) for item in classes) else ()


_TEXTS = {
    str: lambda: TextSerializer(str, "", str),
    bool: lambda: TextSerializer(bool, False, lambda text: text == "True"),
    int: lambda: TextSerializer(int, 0, int),
    float: lambda: TextSerializer((int, float), 0, float),
    type(None): NoneSerializer,
}
_CONTAINERS = {
    list: lambda arguments: ListSerializer(serializer_for(arguments[0])),
    dict: lambda arguments: DictSerializer(*map(serializer_for, arguments)),
    tuple: lambda arguments: TupleSerializer(map(serializer_for, arguments)),
    typing.Union: lambda arguments: UnionSerializer(map(serializer_for, arguments)),
    types.UnionType: lambda arguments: UnionSerializer(map(serializer_for, arguments)),
}


def _plain_serializer(type_):
    from .packs import PackSerializer, isParameterPack

    if _is_node_class(type_):
        return NodeSerializer(type_)
    if type_ in _TEXTS:
        return _TEXTS[type_]()
    origin = typing.get_origin(type_)
    if origin in _CONTAINERS:
        return _CONTAINERS[origin](typing.get_args(type_))
    if isParameterPack(type_):
        return PackSerializer(type_)
    if isinstance(type_, type) and issubclass(type_, enum.Enum):
        return TextSerializer(type_, next(iter(type_)), type_.__getitem__, lambda value: value.name)
    if isinstance(type_, type) and issubclass(type_, pathlib.PurePath):
        return TextSerializer(type_, type_(), type_)
    raise TypeError(f"parameters of type {type_} are unknown to the stand-in of the parameter node wrapper")


def serializer_for(annotated_type):
    """Return the serializer of a type, with the validators of its annotations.

    Raises:
        TypeError: the stand-in does not know the type.
    """
    plain, annotations = split_annotations(annotated_type)
    validators = [item for item in annotations if isinstance(item, Validator)]
    serializer = _plain_serializer(plain)
    return CheckedSerializer(serializer, validators) if validators else serializer
