"""What torch reads from the environment of its process; to be settled before it is imported."""

from __future__ import annotations

import os


def settle_environment() -> None:
    """Let waiting threads sleep and large tensors take large pages, unless the environment says otherwise.

    Threads that wait for others spin by default, and where other programs want the processors too, they spin on the one
    that the last of them needs: with two threads on two processors, both busy otherwise, a prediction took 5 s that
    takes 0.5 s asleep.

    Large tensors come new from Linux every time, page by page: with those of 4 kB, a training step on a patch of
    96 x 96 x 96 spent a quarter of its time on that, and one on 24 x 96 x 112 with 8 features 40 %. torch then asks
    for pages of 2 MB.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
