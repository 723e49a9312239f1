"""Sentences for the user as a template and its values, so that the other side of a pipe can say them in its language.

The library writes plain f-strings. `Testing/Docs/make_messages.py` reads the sources and writes the template of every
InputError, warning, stage and `sentence` to messages.json; here a sentence is taken apart again by these.
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
    """Return a text as it is; its template is kept in the catalogue, as that of an InputError is."""
    return text


def to_template(text: str) -> dict[str, Any]:
    """Return a sentence as {"template": ..., "values": [...]}, which `fill` puts together again.

    The template is the one of the catalogue that explains most of the text; a text that none explains is its own.
    Values are texts, or sentences again.

    >>> to_template("give one of a, b")
    {'template': 'give one of a, b', 'values': []}
    """
    return _taken_apart(text, depth=0)


def fill(message: dict[str, Any], translate: Any = str) -> str:
    """Return the sentence that a template and its values make.

    Args:
        message: As of `to_template`.
        translate: Returns a template in another language; its places may stand in another order.
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
    """Return a value: a sentence of the catalogue where it is one, else the text."""
    if depth > _MOST_NESTED:
        return text
    found = _taken_apart(text, depth)
    return found if found["template"] in _templates() else text


@cache
def _templates() -> dict[str, tuple[str, ...]]:
    """Return the templates with their parts (literal, number, literal, ...), those with most literal text first."""
    templates = {
        template: tuple(_PLACEHOLDER.split(template)) for template in json.loads(CATALOGUE.read_text(encoding="utf-8"))
    }
    return dict(sorted(templates.items(), key=lambda item: (-sum(map(len, item[1][::2])), item[0])))


def _values(template: str, text: str) -> list[str] | None:
    """Return the values by which a template becomes a text, each as short as can be; None where it does not."""
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
