"""Messages for the user as a template and its values, so that the other side of a pipe can translate them.

The library writes plain f-strings. `Testing/Docs/make_messages.py` reads the sources and writes the template of every
InputError, warning, stage and `sentence` to messages.json; this module matches a message to its template.
"""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

CATALOGUE = Path(__file__).with_name("messages.json")
_PLACEHOLDER = re.compile(r"\{(\d+)\}")
_MOST_NESTED = 4

Text = TypeVar("Text", bound=str)


def sentence(text: Text) -> Text:
    """Return a text unchanged; marks its template for the catalogue, like that of an InputError."""
    return text


def to_template(text: str) -> dict[str, Any]:
    """Return a message as {"template": ..., "values": [...]}, which `fill` turns back into text.

    The template is the one in the catalogue that matches most of the text; a text without a match is its own template.
    Values are strings or nested messages.

    >>> to_template("give one of a, b")
    {'template': 'give one of a, b', 'values': []}
    """
    return _taken_apart(text, depth=0)


def fill(message: dict[str, Any], translate: Any = str) -> str:
    """Return the message that a template and its values form.

    Args:
        message: As returned by `to_template`.
        translate: Returns a template in another language; its placeholders may be in another order.
    """
    values = [fill(value, translate) if isinstance(value, dict) else str(value) for value in message["values"]]
    template = translate(message["template"])
    return _PLACEHOLDER.sub(lambda place: values[int(place[1])] if int(place[1]) < len(values) else place[0], template)


def _taken_apart(text: str, depth: int) -> dict[str, Any]:
    for template in _templates():
        values = _values(template, text)
        if values is not None:
            return {"template": template, "values": [_value(value, depth + 1) for value in values]}
    return {"template": text, "values": []}


def _value(text: str, depth: int) -> Any:
    """Return a value: a nested message if the catalogue has it, else the text."""
    if depth > _MOST_NESTED:
        return text
    found = _taken_apart(text, depth)
    return found if found["template"] in _templates() else text


@cache
def _templates() -> dict[str, tuple[str, ...]]:
    """Return the templates with their parts (literal, number, literal, ...), longest literal text first."""
    templates = {
        template: tuple(_PLACEHOLDER.split(template)) for template in json.loads(CATALOGUE.read_text(encoding="utf-8"))
    }
    return dict(sorted(templates.items(), key=lambda item: (-sum(map(len, item[1][::2])), item[0])))


def _values(template: str, text: str) -> list[str] | None:
    """Return the values that turn a template into a text, each as short as possible, or None if it does not match."""
    first, *rest = _templates()[template]
    if not text.startswith(first):
        return None
    if not rest:
        return [] if text == first else None
    values: dict[int, str] = {}
    begin = len(first)
    for place in range(0, len(rest), 2):
        number, literal = int(rest[place]), rest[place + 1]
        is_last = place + 2 == len(rest)
        end = len(text) - len(literal) if is_last else text.find(literal, begin)
        if end < begin or not text.startswith(literal, end):
            return None
        value = text[begin:end]
        if values.setdefault(number, value) != value:
            return None
        begin = end + len(literal)
    return [values[number] for number in range(len(values))]
