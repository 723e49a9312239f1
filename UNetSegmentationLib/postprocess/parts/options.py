"""Steps with options as text: `name:option=value,option=value`, checked against the step's signature."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, TypeVar, get_type_hints

from ...core.errors import InputError
from ...core.registry import Registry

Entry = TypeVar("Entry", bound=Callable[..., Any])
Regions = tuple[tuple[int, ...], ...]


def parse_call(text: str, registry: Registry[Entry]) -> tuple[Entry, dict[str, Any]]:
    """Return the entry of `registry` named in `text` and its options with the types of its signature.

    Raises:
        InputError: Unknown name or option, an option given twice, or a value that cannot be read.
    """
    name, colon, rest = text.strip().partition(":")
    entry = registry[name.strip()]
    if colon and not rest.strip():
        raise InputError(f"'{text}' ends after the colon: write {name}:option=value or {name} alone")
    known = _options(entry)
    options: dict[str, Any] = {}
    for part in rest.split(",") if rest else []:
        option, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals:
            raise InputError(f"'{part}' in '{text}' is not an option: write option=value")
        if option not in known:
            choice = ", ".join(known) or "none"
            raise InputError(f"{registry.kind} '{name}' has no option '{option}': its options are {choice}")
        if option in options:
            raise InputError(f"'{text}' sets {option} twice: set it once")
        options[option] = _parse_value(option, value, known[option])
    return entry, options


def _options(entry: Callable[..., Any]) -> dict[str, Any]:
    """Return {name: type} of the keyword-only arguments."""
    hints = get_type_hints(entry)
    parameters = inspect.signature(entry).parameters.values()
    return {p.name: hints[p.name] for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY}


def _parse_value(option: str, value: str, kind: Any) -> Any:
    parse, allowed = _PARSERS[kind]
    try:
        return parse(value)
    except ValueError:
        raise InputError(f"{option} is '{value}': must be {allowed}") from None


def _parse_truth(value: str) -> bool:
    return ("false", "true").index(value.lower()) == 1


def _parse_regions(value: str) -> Regions:
    return tuple(tuple(int(label) for label in region.split("+")) for region in value.split("/"))


_PARSERS: dict[Any, tuple[Callable[[str], Any], str]] = {
    bool: (_parse_truth, "true or false"),
    int: (int, "a whole number"),
    float: (float, "a number"),
    str: (str, "a word"),
    Regions: (_parse_regions, "labels joined by + and groups divided by /, as in 1+2/3"),
}
