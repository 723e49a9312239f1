"""Keep what Slicer would only print: exceptions that end in a slot or in a VTK observer."""

import functools
import sys
import traceback

from PySide6 import QtCore

UNCAUGHT: list[str] = []
"""Formatted tracebacks, oldest first. A test reads and clears it to learn what happened behind its back."""


def report(error_type, error, trace) -> None:
    """Print an exception to standard error and remember it, as PythonQt's error handler does."""
    text = "".join(traceback.format_exception(error_type, error, trace))
    UNCAUGHT.append(text)
    sys.stderr.write(text)


def report_current() -> None:
    """Report the exception that is being handled."""
    report(*sys.exc_info())


def reported(override):
    """Decorate an override of a Qt virtual: what it raises is reported. PySide 6.8 would end the process."""

    @functools.wraps(override)
    def call(*arguments):
        try:
            return override(*arguments)
        except Exception:  # noqa: BLE001 - an event handler has no caller that could do better
            report_current()
            return None

    return call


def _print_qt_message(_kind, _context, text) -> None:
    # The offscreen platform says this once for every window.
    if text != "This plugin does not support propagateSizeHints()":
        sys.stderr.write(f"{text}\n")


def install() -> None:
    """Make PySide and VTK, which call `sys.excepthook`, report here, and print Qt's messages."""
    sys.excepthook = report
    QtCore.qInstallMessageHandler(_print_qt_message)
