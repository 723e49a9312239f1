"""Environment variables that torch reads; set before it is imported."""

from __future__ import annotations

import os


def settle_environment() -> None:
    """Let waiting threads sleep and large tensors use large pages, unless the environment says otherwise.

    Waiting threads spin by default. If other programs use the processors too, they block the one that the last thread
    needs: with two threads on two busy processors, a prediction took 5 s instead of 0.5 s.

    Linux allocates large tensors anew every time, page by page: with pages of 4 kB, a training step on a patch of
    96 x 96 x 96 spent a quarter of its time on that, and one on 24 x 96 x 112 with 8 features 40 %. This makes torch
    request pages of 2 MB.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
