"""Sentences for the user that can be said in another language on another side of a pipe."""

from __future__ import annotations

from typing import Any, Self

_PLAIN = (str, int, float)


class Message(str):
    """A sentence in English that keeps its template and the values in it.

    >>> message = Message("the image has {count} channels", count=3)
    >>> print(message)
    the image has 3 channels
    >>> message.to_dict()
    {'template': 'the image has {count} channels', 'values': {'count': 3}}

    Args:
        template: What str.format takes; without values it is the sentence itself, braces included.
        values: By name: numbers, texts, other messages, or errors; anything else becomes text.
    """

    template: str
    values: dict[str, Any]

    def __new__(cls, template: str, /, **values: object) -> Self:
        """Return the sentence."""
        plain = {name: _plain(value) for name, value in values.items()}
        message = super().__new__(cls, template.format(**plain) if values else template)
        message.template = template
        message.values = plain
        return message

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        values = {name: value.to_dict() if isinstance(value, Message) else value for name, value in self.values.items()}
        return {"template": self.template, "values": values}

    @classmethod
    def from_dict(cls, entries: object) -> Self:
        """Return the message of a JSON object; a plain text, or what cannot be formatted, is its own template."""
        if not isinstance(entries, dict) or not isinstance(entries.get("template"), str):
            return cls(str(entries))
        values = entries.get("values")
        named = {
            str(name): cls.from_dict(value) if isinstance(value, dict) else value
            for name, value in (values if isinstance(values, dict) else {}).items()
        }
        try:
            return cls(entries["template"], **named)
        except (LookupError, ValueError, TypeError, AttributeError):
            return cls(entries["template"])


def message_of(text: object) -> Message:
    """Return a text, or what an error says, as a message."""
    said = getattr(text, "message", text)
    return said if isinstance(said, Message) else Message(str(said))


def _plain(value: object) -> object:
    if isinstance(value, Message):
        return value
    if isinstance(value, BaseException):
        return message_of(value)
    return value if isinstance(value, _PLAIN) else str(value)
