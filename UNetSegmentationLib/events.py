"""Work that tells its course event by event, and then returns something."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any, TypeVar

Result = TypeVar("Result")


def result_of(
    events: Generator[dict[str, Any], None, Result], on_event: Callable[[dict[str, Any]], object] = lambda _: None
) -> Result:
    """Return what a generator of events returns at its end.

    Args:
        events: The work.
        on_event: Told each event.
    """
    while True:
        try:
            event = next(events)
        except StopIteration as end:
            result: Result = end.value
            return result
        on_event(event)
