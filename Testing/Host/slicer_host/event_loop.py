"""Run Python code inside a running Qt event loop, and let the loop turn while waiting.

Dialogs that are deleted later than their call, timers and processes behave as in the application only there.
"""

import time
from collections.abc import Callable
from typing import Any

import slicer

from slicer_host.pythonqt import QtCore

_TURN_S = 0.01


def run_in_event_loop(function: Callable[[], Any]) -> Any:
    """Call `function` from a running event loop; return its result or raise its exception."""
    loop = QtCore.QEventLoop()
    outcome: dict[str, Any] = {}

    def run() -> None:
        try:
            outcome["result"] = function()
        except BaseException as error:  # noqa: BLE001 - raised again below
            outcome["error"] = error
        finally:
            loop.quit()

    QtCore.QTimer.singleShot(0, run)
    loop.exec()
    if "error" in outcome:
        raise outcome["error"]
    return outcome.get("result")


def process_events(seconds: float = 0.0) -> None:
    """Let the event loop turn, at least once and for at least `seconds`."""
    end = time.monotonic() + seconds
    while True:
        slicer.app.processEvents()
        if time.monotonic() >= end:
            return
        time.sleep(_TURN_S)


def wait_until(predicate: Callable[[], Any], timeout_s: float = 10.0, what: str = "") -> Any:
    """Let the event loop turn until `predicate` gives something true, and return that.

    Raises:
        TimeoutError: it did not within `timeout_s`.
    """
    end = time.monotonic() + timeout_s
    while True:
        value = predicate()
        if value:
            return value
        if time.monotonic() >= end:
            raise TimeoutError(f"waited {timeout_s:g} s in vain{f' until {what}' if what else ''}")
        process_events(_TURN_S)
