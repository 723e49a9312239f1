"""Work that tells its course event by event, and then returns something."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any, TypeVar

Result = TypeVar("Result")
Course = Generator[dict[str, Any], None, Result]


def result_of(course: Course[Result], on_event: Callable[[dict[str, Any]], object] = lambda _: None) -> Result:
    """Go through the events of some work to its end and return its result.

    Args:
        course: The work.
        on_event: Told each event.
    """
    while True:
        try:
            event = next(course)
        except StopIteration as end:
            result: Result = end.value
            return result
        on_event(event)
