"""How torch's threads wait for each other; to be settled before torch is imported."""

from __future__ import annotations

import os


def let_threads_sleep() -> None:
    """Let threads that wait for others sleep, unless the environment says otherwise.

    By default they spin, and where other programs want the processors too, they spin on the one that the last of them
    needs: with two threads on two processors, both busy otherwise, a prediction took 5 s that takes 0.5 s asleep.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
