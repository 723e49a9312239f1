"""Messages on a pipe: one JSON object per line."""

from __future__ import annotations

import json
from typing import Any

from ..core.messages import to_template

PROTOCOL_VERSION = 1


MAX_LINE_BYTES = 16 * 2**20
# Entries of a message that contain sentences for the user.
SENTENCES = ("stage", "message", "warning", "warnings")


def with_templates(message: dict[str, Any]) -> dict[str, Any]:
    """Return a message with "said": a map from its sentences for the user to their templates and values."""
    texts = [text for key in SENTENCES for text in _texts(message.get(key))]
    return {**message, "said": {text: to_template(text) for text in texts}} if texts else message


def _texts(value: object) -> list[str]:
    values = value if isinstance(value, list | tuple) else [value]
    return [text for text in values if isinstance(text, str) and text]


def encode(message: dict[str, Any]) -> bytes:
    """Return a message as one line of UTF-8 JSON."""
    return json.dumps(message, ensure_ascii=True, allow_nan=False, separators=(",", ":")).encode("ascii") + b"\n"


class LineDecoder:
    """Collects bytes from a pipe and returns complete messages.

    Lines that are not JSON objects (printed by libraries) are kept in `noise` for crash reports.
    """

    def __init__(self) -> None:
        self._rest = b""
        self.noise: list[str] = []

    def feed(self, data: bytes) -> list[dict[str, Any]]:
        """Return the messages completed by `data`, in order."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > MAX_LINE_BYTES:
            self._note(self._rest[:200])
            self._rest = b""
        messages = []
        for line in lines:
            try:
                message = json.loads(line)
            except (ValueError, RecursionError):
                message = None
            if isinstance(message, dict):
                messages.append(message)
            elif line.strip():
                self._note(line)
        return messages

    def _note(self, line: bytes) -> None:
        self.noise = [*self.noise[-49:], line.decode("utf-8", "replace").strip()]
