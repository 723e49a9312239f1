"""Dataclasses as JSON: written as plain values, read strictly; invalid values raise an error of one sentence.

A field is written under its name, nested dataclasses as objects, tuples as lists, paths as absolute strings. Three
kinds of metadata change that: `field(metadata=OMITTED_AT_DEFAULT)`, `field(metadata=NOT_STORED)` and
`field(metadata=written_by(function))`. In a union of dataclasses, each has a tag field with one Literal,
`kind: Literal["circle"] = field(default="circle", init=False)`, which identifies the class.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, dataclass, fields
from functools import cache
from math import isfinite
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, ClassVar, Literal, Self, Union, get_args, get_origin, get_type_hints

from .errors import InputError

# Files stay readable for older versions as long as the new field is not used.
OMITTED_AT_DEFAULT: Mapping[str, Any] = {"is_omitted_at_default": True}
# The caller of from_dict supplies the value: `from_dict(values, folder=...)`.
NOT_STORED: Mapping[str, Any] = {"is_stored": False}

_VERSION = "schema_version"
_LONGEST = 100
# Singular and plural for messages.
_NAMES: dict[Any, tuple[str, str]] = {
    Any: ("any value", "any values"),
    NoneType: ("null", "nulls"),
    bool: ("true or false", "true or false each"),
    int: ("a whole number", "whole numbers"),
    float: ("a finite number", "finite numbers"),
    str: ("a string", "strings"),
    Path: ("a path", "paths"),
}


def written_by(write: Callable[[Any], Any]) -> Mapping[str, Any]:
    """Return metadata for a field whose value is written as returned by `write`."""
    return {"write": write}


class _UnfitError(Exception):
    """A value has the wrong type."""


@dataclass(frozen=True, kw_only=True)
class JsonOutput:
    """Base of frozen dataclasses that are only written.

    Attributes:
        schema_version: Written first and checked when read, or None for unversioned classes.
    """

    schema_version: ClassVar[int | None] = None

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON.

        Raises:
            InputError: A number is not finite, which JSON does not allow.
        """
        values: dict[str, Any] = {} if self.schema_version is None else {_VERSION: self.schema_version}
        for entry in _stored(type(self)):
            value = getattr(self, entry.name)
            if "is_omitted_at_default" in entry.metadata and value == _default_of(entry):
                continue
            try:
                values[entry.name] = _plain(entry.metadata.get("write", _plain)(value))
            except _UnfitError as error:
                raise InputError(
                    f"{type(self).__name__}: {entry.name} is {error}, which JSON does not allow: give finite numbers"
                ) from error
        return values


@dataclass(frozen=True, kw_only=True)
class JsonDataclass(JsonOutput):
    """Base of frozen dataclasses that are written and read; `__post_init__` checks their values."""

    def require(self, holds: bool, message: str) -> None:
        """Raise an InputError with `message` unless `holds`."""
        if not holds:
            raise InputError(f"{type(self).__name__}: {message}")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], **unstored: Any) -> Self:
        """Return the instance that a JSON object describes; the inverse of `to_dict`.

        Args:
            values: The object.
            unstored: Values of the fields that are NOT_STORED, here or in a nested dataclass.

        Raises:
            InputError: Another schema version, an unknown or missing field, a value of the wrong type, or one that the
                dataclass itself rejects.
        """
        if not isinstance(values, Mapping):
            raise InputError(f"{cls.__name__} is {_shown(values)}: give an object")
        if cls.schema_version is not None:
            cls._check_version(values)
            values = {name: value for name, value in values.items() if name != _VERSION}
        known = {entry.name: entry for entry in _stored(cls)}
        if unknown := sorted(str(name) for name in values if name not in known):
            raise InputError(f"{cls.__name__} has no field {', '.join(unknown)}: choose from {', '.join(known)}")
        if missing := [name for name, entry in known.items() if name not in values and _is_required(entry)]:
            raise InputError(f"{cls.__name__} lacks {', '.join(missing)}: add every field that has no default")
        arguments = {name: cls._read_field(name, value, unstored) for name, value in values.items()}
        arguments = {name: value for name, value in arguments.items() if known[name].init}
        given = {entry.name: unstored[entry.name] for entry in _unstored(cls) if entry.name in unstored}
        return cls(**arguments, **given)

    @classmethod
    def _check_version(cls, values: Mapping[str, Any]) -> None:
        if values.get(_VERSION) != cls.schema_version:
            raise InputError(
                f"schema_version is {_shown(values.get(_VERSION))}, this version reads {cls.schema_version}: "
                "update the software or export the file again"
            )

    @classmethod
    def _read_field(cls, name: str, value: Any, unstored: Mapping[str, Any]) -> Any:
        kind: Any = cls  # mypy does not know that it is hashable
        hint = _hints(kind)[name]
        try:
            return _read(hint, value, unstored)
        except _UnfitError as error:
            raise InputError(f"{cls.__name__}: {name} is {_shown(value)}: give {_allowed(hint)}") from error


@cache
def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)


def _stored(kind: type[JsonOutput]) -> list[Field[Any]]:
    return [entry for entry in fields(kind) if entry.metadata.get("is_stored", True)]


def _unstored(kind: type[JsonOutput]) -> list[Field[Any]]:
    return [entry for entry in fields(kind) if not entry.metadata.get("is_stored", True)]


def _default_of(entry: Field[Any]) -> Any:
    return entry.default if entry.default_factory is MISSING else entry.default_factory()


def _is_required(entry: Field[Any]) -> bool:
    return entry.default is MISSING and entry.default_factory is MISSING


def _plain(value: Any) -> Any:
    """Return a value as JSON types; raise _UnfitError for numbers that are not finite."""
    if isinstance(value, JsonOutput):
        return value.to_dict()
    if isinstance(value, Mapping):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    if isinstance(value, Path):
        return str(value.absolute())
    if isinstance(value, float) and not isfinite(value):
        raise _UnfitError(value)
    if value is None or isinstance(value, str | int | float):
        return value
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")


def _read(hint: Any, value: Any, unstored: Mapping[str, Any]) -> Any:
    """Return a JSON value converted to its annotated type."""
    origin, parts = get_origin(hint), get_args(hint)
    if hint is Any:
        _plain(value)
        return value
    if origin in (Union, UnionType):
        return _read_union(parts, value, unstored)
    if origin is tuple:
        return _read_tuple(parts, value, unstored)
    if origin is dict and isinstance(value, Mapping):
        key_hint, part_hint = parts
        return {_read_key(key_hint, key): _read(part_hint, part, unstored) for key, part in value.items()}
    if _is_readable(hint) and isinstance(value, Mapping):
        return hint.from_dict(value, **unstored)
    if not _is_plain(hint, value):
        raise _UnfitError
    return Path(value) if hint is Path else value


def _is_plain(hint: Any, value: Any) -> bool:
    """Return whether a value has a simple type; an int also counts as a float, but a bool is not a number."""
    if get_origin(hint) is Literal:
        return any(type(value) is type(choice) and value == choice for choice in get_args(hint))
    if hint in (int, float):
        allowed = (int, float) if hint is float else int
        is_finite = not isinstance(value, float) or isfinite(value)
        return isinstance(value, allowed) and not isinstance(value, bool) and is_finite
    if hint is Path:
        return isinstance(value, str | Path)
    return hint in (str, bool, NoneType) and isinstance(value, hint)


def _read_tuple(parts: tuple[Any, ...], value: Any, unstored: Mapping[str, Any]) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        raise _UnfitError
    kinds = parts[:1] * len(value) if parts[-1] is Ellipsis else parts
    if len(kinds) != len(value):
        raise _UnfitError
    return tuple(_read(kind, part, unstored) for kind, part in zip(kinds, value, strict=True))


def _read_key(hint: Any, key: Any) -> Any:
    """Return a key converted from its JSON string."""
    if hint is int and isinstance(key, str):
        try:
            return int(key)
        except ValueError as error:
            raise _UnfitError from error
    return _read(hint, key, {})


def _read_union(kinds: tuple[Any, ...], value: Any, unstored: Mapping[str, Any]) -> Any:
    classes = [kind for kind in kinds if _is_readable(kind)]
    if len(classes) > 1 and isinstance(value, Mapping):
        return _class_of(classes, value).from_dict(value, **unstored)
    for kind in kinds:
        try:
            return _read(kind, value, unstored)
        except _UnfitError:
            continue
    raise _UnfitError


def _class_of(classes: list[type[JsonDataclass]], value: Mapping[str, Any]) -> type[JsonDataclass]:
    """Return the class of a union that matches the object's tag."""
    tags = [(entry.name, entry.default) for kind in classes for entry in fields(kind) if not entry.init]
    for (name, tag), kind in zip(tags, classes, strict=True):
        if value.get(name) == tag:
            return kind
    name = tags[0][0]
    raise InputError(f"{name} is {_shown(value.get(name))}: choose {', '.join(str(tag) for _, tag in tags)}")


def _is_readable(hint: Any) -> bool:
    return isinstance(hint, type) and issubclass(hint, JsonDataclass)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def _allowed(hint: Any, *, are_several: bool = False) -> str:
    """Return what an annotation allows, in words."""
    origin, parts = get_origin(hint), get_args(hint)
    if hint in _NAMES:
        return _NAMES[hint][are_several]
    if origin in (Union, UnionType):
        return " or ".join(dict.fromkeys(_allowed(part, are_several=are_several) for part in parts))
    if origin is Literal:
        return " or ".join(repr(choice) for choice in parts)
    if origin is tuple:
        return ("lists" if are_several else "a list") + f" of {_allowed_parts(parts)}"
    values = f" of {_allowed(parts[1], are_several=True)}" if origin is dict else ""
    return ("objects" if are_several else "an object") + values


def _allowed_parts(parts: tuple[Any, ...]) -> str:
    if parts[-1] is Ellipsis:
        return _allowed(parts[0], are_several=True)
    if len(set(parts)) == 1:
        return f"{len(parts)} {_allowed(parts[0], are_several=True)}"
    return f"{len(parts)}: {', '.join(_allowed(part) for part in parts)}"
