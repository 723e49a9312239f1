"""Ctrl-C as the wish to stop at the next case or step."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Interrupt:
    """Ctrl-C: while it works on cases or learns, a command is asked to end; otherwise, or twice, it ends at once.

    Args:
        is_patient: Twice is like once: torchrun passes on the Ctrl-C that its processes have heard themselves.
    """

    def __init__(self, *, is_patient: bool = False) -> None:
        self.is_gentle = False
        self._is_patient = is_patient
        self._is_asked = False

    def is_asked(self) -> bool:
        """Return whether the user wants the work to end."""
        return self._is_asked

    def __call__(self, _number: int, _frame: FrameType | None) -> None:
        """Take note of a Ctrl-C."""
        if not self.is_gentle or (self._is_asked and not self._is_patient):
            raise KeyboardInterrupt
        self._is_asked = True


@contextmanager
def gentle_interrupt(*, is_patient: bool = False) -> Iterator[Interrupt]:
    """Take Ctrl-C as the wish to stop at the next case or step while a training says that it can."""
    interrupt = Interrupt(is_patient=is_patient)
    before = signal.signal(signal.SIGINT, interrupt)
    try:
        yield interrupt
    finally:
        signal.signal(signal.SIGINT, before)
