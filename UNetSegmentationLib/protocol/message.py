"""What every message between panel and worker has in common."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from ..core.json_dataclass import JsonDataclass

# Of the line, not of the message in it: which job it belongs to, what it is, and its sentences taken apart.
ENVELOPE = ("id", "op", "event", "said")


@dataclass(frozen=True, kw_only=True)
class Message(JsonDataclass):
    """Base of the messages; each shares its line with the envelope."""

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], **unstored: Any) -> Self:
        """Return the message of a line, whose envelope is passed over."""
        return super().from_dict({name: value for name, value in values.items() if name not in ENVELOPE}, **unstored)
