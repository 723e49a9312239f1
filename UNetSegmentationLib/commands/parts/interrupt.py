"""Ctrl-C as a request to stop after the current case or step."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Interrupt:
    """Ctrl-C: stops a command gently while it processes cases or trains; otherwise, or on a second Ctrl-C, at once.

    Args:
        is_patient: Ignore a second Ctrl-C: torchrun forwards the one that its processes have already received.
    """

    def __init__(self, *, is_patient: bool = False) -> None:
        self.is_gentle = False
        self._is_patient = is_patient
        self._is_asked = False

    def is_asked(self) -> bool:
        """Return whether the user has asked to stop."""
        return self._is_asked

    def __call__(self, _number: int, _frame: FrameType | None) -> None:
        """Handle a Ctrl-C."""
        if not self.is_gentle or (self._is_asked and not self._is_patient):
            raise KeyboardInterrupt
        self._is_asked = True


@contextmanager
def gentle_interrupt(*, is_patient: bool = False) -> Iterator[Interrupt]:
    """Treat Ctrl-C as a request to stop after the current case or step while a training allows it."""
    interrupt = Interrupt(is_patient=is_patient)
    before = signal.signal(signal.SIGINT, interrupt)
    try:
        yield interrupt
    finally:
        signal.signal(signal.SIGINT, before)
