"""How long a run still takes, from the pace of its present stage."""

import time
from collections.abc import Callable

# Before that an estimate would jump about.
AFTER_S, AFTER_SHARE = 2.0, 0.04


class Pace:
    """Follows the progress of a run; stages differ in pace, so that each is measured from its own beginning.

    Args:
        clock: Returns seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._stage: str | None = None
        self._startedAt = 0.0
        self._startedWith = 0.0

    def left_s(self, fraction: float, stage: str) -> float | None:
        """Return the seconds left as of now; None while they cannot be told.

        Args:
            fraction: Share of the whole run that is done, 0 to 1.
            stage: What is being done.
        """
        now = self._clock()
        if stage != self._stage:
            self._stage, self._startedAt, self._startedWith = stage, now, fraction
        elapsed_s, done = now - self._startedAt, fraction - self._startedWith
        if elapsed_s < AFTER_S or done < AFTER_SHARE:
            return None
        return elapsed_s * (1 - fraction) / done
