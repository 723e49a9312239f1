"""Work on the main thread in slices so short that the window stays alive."""

import logging
import threading
import time
from collections.abc import Callable, Generator
from typing import Any

import qt

SLICE_S = 0.012
INTERVAL_MS = 4

WAIT = "wait"


def inThread(work: Callable[[], None], *, isNeeded: bool = False) -> Generator[Any, None, None]:
    """Run a function on a thread of its own until it is done; yields WAIT.

    Slicer's event loop keeps Python's lock, so that a thread gets on only while something on the main thread runs
    Python: here, the timer of Steps.

    Args:
        work: The function.
        isNeeded: Whether it has to end before the application does.
    """
    thread = threading.Thread(target=work, daemon=not isNeeded)
    thread.start()
    while thread.is_alive():
        yield WAIT


class Steps:
    """Runs a generator by a timer, for at most SLICE_S at a time.

    A generator that yields WAIT gives up the rest of its slice. Exactly one of `onDone` (with its return value) and
    `onFailed` (with the exception) is called, or neither after `stop`.
    """

    def __init__(
        self,
        generator: Generator[Any, None, Any],
        *,
        onDone: Callable[[Any], None],
        onFailed: Callable[[Exception], None],
    ) -> None:
        self._generator = generator
        self._onDone = onDone
        self._onFailed = onFailed
        self._isActive = True
        self._isInside = False
        self._timer = qt.QTimer()
        self._timer.setInterval(INTERVAL_MS)
        self._timer.connect("timeout()", self._advance)
        self._timer.start()

    def stop(self) -> None:
        """End the work; what the generator holds is released by its own clean-up."""
        if not self._isActive:
            return
        self._isActive = False
        self._timer.stop()
        self._timer.disconnect("timeout()", self._advance)
        # A step may set off the event that stops it; a running generator cannot be closed.
        if not self._isInside:
            self._generator.close()

    def _advance(self) -> None:
        if self._isInside or not self._isActive:
            return
        self._isInside = True
        try:
            finish = self._runSlice()
        finally:
            self._isInside = False
        if not self._isActive:
            self._generator.close()
        elif finish is not None:
            self.stop()
            finish()

    def _runSlice(self) -> Callable[[], None] | None:
        deadline = time.perf_counter() + SLICE_S
        try:
            while self._isActive and time.perf_counter() < deadline:
                if next(self._generator) is WAIT:
                    break
        except StopIteration as end:
            value = end.value
            return lambda: self._onDone(value)
        except Exception as error:
            # Whatever goes wrong has to reach the panel: an exception in a slot is only printed, the job would hang.
            logging.exception("A step of UNetSegmentation failed")
            failure = error
            return lambda: self._onFailed(failure)
        return None
