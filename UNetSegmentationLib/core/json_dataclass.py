"""What every set of options has in common: read strictly from JSON, checked with one sentence, written back."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, is_dataclass
from types import UnionType
from typing import Any, Self, get_args, get_origin, get_type_hints

from .errors import InputError


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """Base of frozen dataclasses whose `__post_init__` checks their values with `require`."""

    def require(self, holds: bool, message: str) -> None:
        """Raise an InputError with `message` unless `holds`."""
        if not holds:
            raise InputError(f"{type(self).__name__}: {message}")

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Return the configuration of a JSON object.

        Raises:
            InputError: A misspelt option, a value of the wrong type, or one out of range.
        """
        known = {field.name: field.type for field in fields(cls)}
        unknown = sorted(set(values) - set(known))
        if unknown:
            raise InputError(
                f"{cls.__name__} has no option {', '.join(unknown)}: choose from {', '.join(sorted(known))}"
            )
        hints = get_type_hints(cls)
        for name, value in values.items():
            if not _is_of(hints[name], value):
                raise InputError(f"{cls.__name__}: {name} is {value!r}: give {known[name]}")
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON; `from_dict` restores an equal configuration."""
        return asdict(self)


def _is_of(hint: Any, value: Any) -> bool:
    """Tell whether a value of JSON is of an annotated type; a whole number is also a float, a list also a tuple."""
    origin, parts = get_origin(hint), get_args(hint)
    if hint is Any or (is_dataclass(hint) and isinstance(value, dict)):
        return True  # rows of a table are read, and checked, by the configuration that owns them
    if origin is UnionType:
        return any(_is_of(part, value) for part in parts)
    if origin is tuple:
        if not isinstance(value, list | tuple):
            return False
        kinds = parts[:1] * len(value) if parts[-1] is Ellipsis else parts
        return len(kinds) == len(value) and all(map(_is_of, kinds, value))
    if hint in (int, float):
        return isinstance(value, (int, float) if hint is float else int) and not isinstance(value, bool)
    return isinstance(value, origin or hint)
