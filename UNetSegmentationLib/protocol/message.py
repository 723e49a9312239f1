"""The base of all messages between panel and worker."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from ..core.json_dataclass import JsonDataclass

# Keys of the line, not of the message in it: the job, the kind of message, and the templates of its sentences.
ENVELOPE = ("id", "op", "event", "said")


@dataclass(frozen=True, kw_only=True)
class Message(JsonDataclass):
    """Base of the messages; each shares its line with the envelope."""

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], **unstored: Any) -> Self:
        """Return the message of a line, ignoring the envelope."""
        return super().from_dict({name: value for name, value in values.items() if name not in ENVELOPE}, **unstored)
