"""Progress and cancellation of long-running work."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .errors import CancelledError
from .messages import sentence

Event = dict[str, Any]


class Task:
    """Receives the progress of long-running work and tells it when to stop.

    Args:
        on_event: Called with each event: a JSON object whose "event" is its kind. An exception from it ends the work.
        is_cancelled: Polled frequently, from any thread; must return immediately.
    """

    def __init__(
        self, on_event: Callable[[Event], object] | None = None, is_cancelled: Callable[[], bool] | None = None
    ) -> None:
        self._on_event = on_event
        self._is_cancelled = is_cancelled

    def report(self, event: Event) -> None:
        """Report an event."""
        if self._on_event is not None:
            self._on_event(event)

    def progress(self, fraction: float, stage: str = "") -> None:
        """Report the finished fraction, 0 to 1, and the stage in words."""
        self.report({"event": "progress", "fraction": fraction, "stage": stage})

    @property
    def is_cancelled(self) -> bool:
        """Whether the work should stop."""
        return self._is_cancelled is not None and self._is_cancelled()

    def check(self, message: str = "cancelled") -> None:
        """Raise CancelledError with `message` if the work was cancelled."""
        if self.is_cancelled:
            raise CancelledError(message)

    @property
    def can_be_cancelled(self) -> bool:
        """Whether the work can be cancelled at all."""
        return self._is_cancelled is not None

    def observed_by(self, on_event: Callable[[Event], object] | None) -> Task:
        """Return a task that reports to `on_event` instead and is cancelled with this one."""
        return Task(on_event, self._is_cancelled)

    def part(self, start: float, end: float, *, stage: str = "") -> Task:
        """Return the task for a part of this one, whose progress covers `start` to `end`.

        Args:
            start: Finished fraction of this task when the part begins, 0 to 1.
            end: Finished fraction when it ends.
            stage: Name of the part; the stages within it are appended.
        """

        def pass_on(event: Event) -> None:
            if event["event"] == "progress":
                inner = event["stage"]
                name = sentence(f"{stage}: {inner}") if stage and inner else stage or inner
                self.progress(start + (end - start) * event["fraction"], name)
            else:
                self.report(event)

        return self.observed_by(pass_on)


# Ignores progress and is never cancelled.
UNWATCHED = Task()
