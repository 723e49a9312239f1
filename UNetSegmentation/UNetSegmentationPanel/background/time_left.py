"""Remaining time of a run, estimated from the pace of its current stage."""

import time
from collections.abc import Callable

# Earlier estimates would be unstable.
AFTER_S, AFTER_SHARE = 2.0, 0.04


class Pace:
    """Follows the progress of a run; each stage is measured separately, because their pace differs.

    Args:
        clock: Returns seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._stage: str | None = None
        self._startedAt = 0.0
        self._startedWith = 0.0

    def left_s(self, fraction: float, stage: str) -> float | None:
        """Return the seconds left; None if not known yet.

        Args:
            fraction: Completed fraction of the whole run, 0 to 1.
            stage: Name of the current stage.
        """
        now = self._clock()
        if stage != self._stage:
            self._stage, self._startedAt, self._startedWith = stage, now, fraction
        elapsed_s, done = now - self._startedAt, fraction - self._startedWith
        if elapsed_s < AFTER_S or done < AFTER_SHARE:
            return None
        return elapsed_s * (1 - fraction) / done
