"""Voxels without a finite value."""

from __future__ import annotations

import numpy as np

from .geometry import Array


def fill_gaps(channel: Array) -> tuple[Array, int]:
    """Return a channel (D, H, W) with NaN and infinity replaced by its smallest value, and their number.

    A channel without finite values is missing: it is returned as NaN.
    """
    if channel.dtype.kind != "f":
        return channel, 0
    is_finite = np.isfinite(channel)
    gaps = channel.size - int(np.count_nonzero(is_finite))
    if gaps == channel.size:
        return np.full_like(channel, np.nan), gaps
    return (np.where(is_finite, channel, channel[is_finite].min()) if gaps else channel), gaps
