"""Progress and cancellation of long work, the same for all of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .errors import CancelledError
from .messages import sentence

Event = dict[str, Any]


class Task:
    """What long work reports its progress to, and asks whether to go on.

    Args:
        on_event: Told each event: a JSON object whose "event" names its kind. An exception from it ends the work.
        is_cancelled: Asked often, from any thread; it must return at once.
    """

    def __init__(
        self, on_event: Callable[[Event], object] | None = None, is_cancelled: Callable[[], bool] | None = None
    ) -> None:
        self._on_event = on_event
        self._is_cancelled = is_cancelled

    def report(self, event: Event) -> None:
        """Tell an event."""
        if self._on_event is not None:
            self._on_event(event)

    def progress(self, fraction: float, stage: str = "") -> None:
        """Tell the finished share, 0 to 1, and the stage in words."""
        self.report({"event": "progress", "fraction": fraction, "stage": stage})

    @property
    def is_cancelled(self) -> bool:
        """Whether the work is to end."""
        return self._is_cancelled is not None and self._is_cancelled()

    def check(self, message: str = "cancelled") -> None:
        """Raise CancelledError with `message` if the work was cancelled."""
        if self.is_cancelled:
            raise CancelledError(message)

    @property
    def can_be_cancelled(self) -> bool:
        """Whether anybody may ever ask the work to end."""
        return self._is_cancelled is not None

    def observed_by(self, on_event: Callable[[Event], object] | None) -> Task:
        """Return a task that tells its events to `on_event` instead, and is cancelled with this one."""
        return Task(on_event, self._is_cancelled)

    def part(self, start: float, end: float, *, stage: str = "") -> Task:
        """Return the task of a part of this one, whose progress covers `start` to `end` of it.

        Args:
            start: Finished share of this task when the part begins, 0 to 1.
            end: Finished share when it ends.
            stage: What the part is called; stages of its own come after it.
        """

        def pass_on(event: Event) -> None:
            if event["event"] == "progress":
                inner = event["stage"]
                name = sentence(f"{stage}: {inner}") if stage and inner else stage or inner
                self.progress(start + (end - start) * event["fraction"], name)
            else:
                self.report(event)

        return self.observed_by(pass_on)


# For work that nobody watches.
UNWATCHED = Task()
