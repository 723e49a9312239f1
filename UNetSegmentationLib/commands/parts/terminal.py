"""Output of the command line: tables, one-line errors, a JSON document, a progress bar."""

from __future__ import annotations

import json
import shutil
import sys
import traceback
from collections.abc import Mapping, Sequence
from math import isfinite, isnan
from threading import Event, Thread
from time import monotonic
from typing import Any, Self, TextIO

from ...core.errors import CancelledError, InputError
from ..contract import DONE, FAULT, INPUT, INTERRUPTED

BAR_WIDTH = 24
REDRAW_S = 0.1
REPORT_S = 10.0
DECIMALS = 4
# Events of work that goes case by case.
CASE_EVENTS = ("read", "prepared", "segmented", "compared", "measured")


def warn(text: str) -> None:
    """Write one line to standard error."""
    sys.stderr.write(f"unetseg: {' '.join(text.split())}\n")


def write_json(out: TextIO, document: Any) -> None:
    """Write one JSON document; numbers that are not finite become null."""
    out.write(json.dumps(_plain(document), indent=2, allow_nan=False) + "\n")


def rounded(value: Any) -> Any:
    """Return a value with all floats rounded to DECIMALS, including those in nested lists and objects."""
    if isinstance(value, float):
        return round(value, DECIMALS)
    if isinstance(value, dict):
        return {key: rounded(entry) for key, entry in value.items()}
    return [rounded(entry) for entry in value] if isinstance(value, list | tuple) else value


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return value if isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): _plain(entry) for key, entry in value.items()}
    return [_plain(entry) for entry in value] if isinstance(value, list | tuple) else value


def write_table(
    out: TextIO, header: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[int] = ()
) -> None:
    """Write rows under a header in columns; the columns numbered in `right` are right-aligned."""
    widths = [max(len(row[column]) for row in (header, *rows)) for column in range(len(header))]
    for row in (header, *rows):
        cells = [
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        out.write("  ".join(cells).rstrip() + "\n")


def figure(value: float | None, digits: int = 3) -> str:
    """Return a number for a table, or a dash if undefined."""
    return "–" if value is None or isnan(value) else f"{value:.{digits}f}"


def explain(error: BaseException) -> tuple[int, str]:
    """Return the exit code and the message for an error."""
    if isinstance(error, InputError):
        return INPUT, str(error)
    if isinstance(error, KeyboardInterrupt | CancelledError):
        return INTERRUPTED, str(error) or "interrupted"
    if _is_out_of_memory(error):
        return INPUT, "not enough memory: use a smaller image or region, choose another device, or close other programs"
    kind = type(error).__name__
    return FAULT, f"internal error ({kind}: {error}): run again with --debug for the traceback, and report it"


class Failures:
    """Errors of single cases while the others continued.

    Args:
        is_debug: Show tracebacks.
    """

    def __init__(self, *, is_debug: bool = False) -> None:
        self.status = DONE
        self.errors: list[dict[str, str]] = []
        self._is_debug = is_debug

    def note(self, name: str, error: Exception) -> None:
        """Report the error of case `name` in one line, and keep it for the exit code and the JSON document."""
        code, message = explain(error)
        # An internal error outweighs invalid input.
        self.status = code if self.status == DONE else min(self.status, code)
        self.errors.append({"name": name, "message": message})
        warn(message if name in message else f"{name}: {message}")
        if self._is_debug:
            traceback.print_exception(error)


def _is_out_of_memory(error: BaseException) -> bool:
    if isinstance(error, MemoryError) or "torch" not in sys.modules:
        return isinstance(error, MemoryError)
    from ...backends.parts.devices import is_out_of_memory

    return is_out_of_memory(error)


class ProgressBar:
    """A progress line that is redrawn in place; if standard error is not a terminal, a new line now and then.

    Use it in a `with` statement, which clears the line at the end. When the fraction drops, a new part of the work
    begins, and the remaining time is estimated from that part alone.

    Args:
        is_quiet: Show nothing.
    """

    def __init__(self, *, is_quiet: bool = False) -> None:
        self._is_shown = sys.stderr.isatty() and not is_quiet
        self._began = monotonic()
        self._drawn_at = 0.0
        self._part_from = (self._began, 0.0)
        self._state = (0.0, "starting")
        self._is_over = Event()
        # A thread, since one step may take minutes.
        self._reporter = None if is_quiet or self._is_shown else Thread(target=self._report, daemon=True)

    def __enter__(self) -> Self:
        if self._reporter is not None:
            self._reporter.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        if self._reporter is not None:
            self._reporter.join()
        self.clear()

    def _report(self) -> None:
        while not self._is_over.wait(REPORT_S):
            fraction, stage = self._state
            sys.stderr.write(f"unetseg: {fraction:4.0%} {stage}, {monotonic() - self._began:.0f} s\n")
            sys.stderr.flush()

    def __call__(self, fraction: float, stage: str) -> None:
        """Show the finished fraction, 0 to 1, and the current stage."""
        now = monotonic()
        if fraction < self._state[0]:
            self._part_from = (now, fraction)
        self._state = (fraction, stage)
        if not self._is_shown or now - self._drawn_at < REDRAW_S:
            return
        self._drawn_at = now
        filled = round(BAR_WIDTH * fraction)
        spent, gained = now - self._part_from[0], fraction - self._part_from[1]
        left = f", {_in_words(spent * (1 - fraction) / gained)} left" if gained > 0.02 and spent > 1 else ""
        line = f"[{'#' * filled}{'.' * (BAR_WIDTH - filled)}] {fraction:4.0%} {stage}{left}"
        sys.stderr.write("\r" + line[: shutil.get_terminal_size().columns - 1] + "\x1b[K")
        sys.stderr.flush()

    def show_progress(self, event: Mapping[str, Any]) -> None:
        """Show the fraction and the stage of a "progress" event."""
        self(event["fraction"], event["stage"])

    def show_case(self, event: Mapping[str, Any]) -> None:
        """Show how far the work on one case after the other is, as "read case 3 of 8"."""
        self(event["number"] / event["of"], f"{event['event']} case {event['number']} of {event['of']}")

    def clear(self) -> None:
        """Take the line away, so that something can be written in its place."""
        if self._is_shown and self._drawn_at:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
            self._drawn_at = 0.0


def _in_words(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"
