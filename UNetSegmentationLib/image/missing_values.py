"""Voxels without a finite value."""

from __future__ import annotations

import numpy as np

from .geometry import Array


def fill_gaps(channel: Array) -> tuple[Array, int]:
    """Return a channel (D, H, W) with its smallest value in place of NaN and infinity, and how many there were.

    A channel of nothing else is missing: it comes back as NaN.
    """
    if channel.dtype.kind != "f":
        return channel, 0
    is_finite = np.isfinite(channel)
    gaps = channel.size - int(np.count_nonzero(is_finite))
    if gaps == channel.size:
        return np.full_like(channel, np.nan), gaps
    return (np.where(is_finite, channel, channel[is_finite].min()) if gaps else channel), gaps
