"""The rate of single convolutions on this machine, an upper bound for networks."""

from __future__ import annotations

from time import perf_counter

import torch

# Channels and side of the features: layers of the common networks.
_LAYERS = ((32, 64), (64, 32), (128, 24), (256, 16))
_REPEATS = 5


def convolution_peak(dtype: torch.dtype = torch.float32) -> float:
    """Return the highest rate of a 3x3x3 convolution on the CPU, channels-last, in GFLOP/s.

    Args:
        dtype: Of features and weights.
    """
    with torch.inference_mode():
        return max(_rate(channels, side, dtype) for channels, side in _LAYERS)


def _rate(channels: int, side: int, dtype: torch.dtype) -> float:
    layer = torch.nn.Conv3d(channels, channels, 3, padding=1, bias=False, dtype=dtype)
    layer = layer.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    features = torch.randn(1, channels, side, side, side, dtype=dtype).to(memory_format=torch.channels_last_3d)
    layer(features)
    times = []
    for _ in range(_REPEATS):
        began = perf_counter()
        layer(features)
        times.append(perf_counter() - began)
    return 2 * 27 * channels**2 * side**3 / min(times) / 1e9
