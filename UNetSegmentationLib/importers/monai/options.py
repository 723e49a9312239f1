"""Options of the components of a MONAI bundle, each taken once, so that none is overlooked."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from ...core.errors import InputError
from .references import Code

_OF_EVERY_COMPONENT = ("_target_", "_desc_", "_requires_", "_mode_", "_disabled_", "_imports_")


class Options:
    """Options of a component.

    Args:
        name: Name of the component, for messages.
        values: Its options by name.
        ignored: Options without effect here.
    """

    def __init__(self, name: str, values: Mapping[str, Any], *, ignored: Collection[str] = ()) -> None:
        self.name = name
        self._values = {
            key: value for key, value in values.items() if key not in _OF_EVERY_COMPONENT and key not in ignored
        }

    def take(self, name: str, default: Any = None) -> Any:
        """Return an option and mark it as taken.

        Raises:
            InputError: Its value is code.
        """
        value = self._values.pop(name, default)
        code = _code_in(value)
        if code is not None:
            raise InputError(
                f"{self.name}: {name} is '{code.text}', which is code and never run: write the value itself into the "
                "bundle's configuration"
            )
        return value

    def take_number(self, name: str, default: float | None = None) -> float:
        """Return a number.

        Raises:
            InputError: It is missing or not a number.
        """
        value = self.take(name, default)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise InputError(f"{self.name}: {name} is {value!r}: only a number is supported")
        return float(value)

    def take_pair(self, first: str, second: str) -> tuple[float, float] | None:
        """Return two numbers, or None if neither is given.

        Raises:
            InputError: One is given without the other, or is not a number.
        """
        values = [self.take(name) for name in (first, second)]
        if values == [None, None]:
            return None
        if any(isinstance(value, bool) or not isinstance(value, int | float) for value in values):
            raise InputError(f"{self.name}: {first} and {second} are {values}: only two numbers are supported")
        return float(values[0]), float(values[1])

    def take_numbers(self, name: str, default: Any, count: int) -> tuple[float, ...]:
        """Return one number per axis; a single one applies to all, and the last is repeated.

        Raises:
            InputError: Any other value.
        """
        value = self.take(name, default)
        values = list(value) if isinstance(value, list | tuple) else [value] * count
        if not values or any(isinstance(entry, bool) or not isinstance(entry, int | float) for entry in values):
            raise InputError(f"{self.name}: {name} is {value!r}: only {count} numbers are supported")
        return tuple((values + values[-1:] * count)[:count])

    def expect(self, name: str, *allowed: Any) -> None:
        """Take an option with a fixed set of allowed values, the first of which is the default.

        Raises:
            InputError: It has another value.
        """
        value = self.take(name, allowed[0])
        if value not in allowed:
            known = " or ".join(repr(entry) for entry in allowed)
            raise InputError(f"{self.name}: {name} is {value!r}, which is not supported: only {known} is")

    def finish(self) -> None:
        """Raise InputError if an option was not taken and is not off."""
        unknown = [name for name, value in self._values.items() if value not in (None, False)]
        if unknown:
            raise InputError(f"{self.name} has the options {', '.join(sorted(unknown))}, which are not supported")


def _code_in(value: Any) -> Code | None:
    # Parts that are referenced twice are one object: visit each once.
    waiting, seen = [value], set()
    while waiting:
        entry = waiting.pop()
        if isinstance(entry, Code):
            return entry
        if isinstance(entry, Mapping | list | tuple) and id(entry) not in seen:
            seen.add(id(entry))
            waiting += entry.values() if isinstance(entry, Mapping) else entry
    return None
