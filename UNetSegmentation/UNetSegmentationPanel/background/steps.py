"""Work on the main thread in slices short enough to keep the window responsive."""

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
    """Run a function in a separate thread; yields WAIT until it is done.

    Slicer's event loop holds Python's global lock, so a thread makes progress only while the main thread runs
    Python code: here, the timer of Steps.

    Args:
        work: The function.
        isNeeded: Whether the application must wait for it before exiting.
    """
    thread = threading.Thread(target=work, daemon=not isNeeded)
    thread.start()
    while thread.is_alive():
        yield WAIT


class Steps:
    """Runs a generator from a timer, for at most SLICE_S at a time.

    A generator that yields WAIT gives up the rest of its slice. Either `onDone` (with its return value) or `onFailed`
    (with the exception) is called once; after `stop`, neither is.
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
        """Stop the work; the generator releases its resources itself."""
        if not self._isActive:
            return
        self._isActive = False
        self._timer.stop()
        self._timer.disconnect("timeout()", self._advance)
        # A step may trigger the event that stops it, and a running generator cannot be closed.
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
            # Any failure must reach the panel: an exception in a slot is only printed, and the job would hang.
            logging.exception("A step of UNetSegmentation failed")
            failure = error
            return lambda: self._onFailed(failure)
        return None
