"""The training record: one JSON object per line, appended as events happen, readable at any time.

Every event of the loop has "event" and "step"; the others depend on its kind:

| event | entries |
|---|---|
| start | is_resumed, labels (names, in the order of the classes from 1); a resumed training starts at its checkpoint |
| step | loss, learning_rate, elapsed_s, epoch |
| validation | what `describe_validation` returns: figures per case and label, and their means per label |
| end | elapsed_s |
| initialised | model (id), earlier_steps; before the first step |

After the training, events without "step" describe the accuracy of the weights:

| event | entries |
|---|---|
| configurations | what `ConfigurationChoice.to_dict` returns, if several were trained |
| postprocess | what `PostprocessChoice.to_dict` returns, if steps were to be chosen |
| evaluation | case, labels (figures by label), duration_s: one held-back case, after the chosen steps |

Values that are not finite (undefined, or infinite distances) are written as null, since JSON has no such numbers.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np

from .errors import InputError
from .task import Event


class TrainingRecord:
    """Appends events to a file; each has been handed to the operating system when `append` returns.

    An unfinished line left by an interrupted process is removed before the first event is appended.

    Args:
        path: The file; created with the first event, or continued if it exists.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self._is_checked = False

    def append(self, event: Mapping[str, Any]) -> None:
        """Append one event, which may contain numpy numbers.

        Raises:
            InputError: The file cannot be written.
            TypeError: A value cannot be written as JSON.
        """
        line = json.dumps(plain(event), ensure_ascii=False, allow_nan=False, separators=(",", ":")) + "\n"
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            if not self._is_checked:
                _cut_unfinished_line(self.path)
                self._is_checked = True
            with self.path.open("ab") as file:
                file.write(line.encode("utf-8"))
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise InputError(f"cannot write {self.path}: {reason}; choose another folder or free some space") from error

    @staticmethod
    def read(path: Path | str) -> list[Event]:
        """Return all events in order; an unfinished last line is skipped.

        Raises:
            InputError: There is no such file, or a line that is finished is not a JSON object.
        """
        try:
            content = Path(path).read_bytes()
        except OSError as error:
            raise InputError(
                f"cannot read a training record at {path}: train first, or give the folder of a training"
            ) from error
        lines = content[: content.rfind(b"\n") + 1].splitlines()
        return [_parse(line, number, path) for number, line in enumerate(lines, start=1) if line.strip()]


def follow_resumes(events: Iterable[Event]) -> list[Event]:
    """Return the events that led to the current weights.

    A resumed training repeats the steps since its checkpoint; their earlier events are dropped.
    """
    kept: list[Event] = []
    for event in events:
        if event.get("event") == "start":
            kept = [earlier for earlier in kept if earlier.get("step", 0) <= event.get("step", 0)]
        kept.append(event)
    return kept


def _cut_unfinished_line(path: Path) -> None:
    if not path.exists():
        return
    with path.open("rb+") as file:
        file.truncate(file.read().rfind(b"\n") + 1)


def _parse(line: bytes, number: int, path: Path | str) -> Event:
    try:
        event = json.loads(line)
    except ValueError:
        event = None
    if not isinstance(event, dict):
        raise InputError(f"line {number} of {path} is not a JSON object: the file is damaged or not a training record")
    return event


def plain(value: Any) -> Any:
    """Return `value` as JSON types, with numbers that are not finite as None."""
    if isinstance(value, Mapping):
        return {str(key): plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [plain(part) for part in value]
    if isinstance(value, np.generic | np.ndarray):
        return plain(value.tolist())
    if isinstance(value, float) and not isfinite(value):
        return None
    return value
