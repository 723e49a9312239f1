"""Agreement of a backend with eager float32.

float32 backends differ by rounding alone: a thousandth of the largest logit is a hundred times the rounding error of
sums of 10^4 products, while an error in a layer costs far more. Labels flip only where two classes are nearly equal.
Half precision rounds each value to 8 or 11 bits; after twenty layers the error is about a hundredth of a deviation.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True, kw_only=True)
class Tolerance:
    """Largest allowed difference of a backend.

    Attributes:
        equal_labels: Share of voxels that must have the same label.
        error: Error of the logits; for float32 the maximum relative to the largest logit, else the root mean square
            relative to the logits' standard deviation.
        is_largest: Use the maximum.
    """

    equal_labels: float
    error: float
    is_largest: bool


EXACT = Tolerance(equal_labels=0.9999, error=1e-3, is_largest=True)
ROUNDED = Tolerance(equal_labels=0.999, error=0.03, is_largest=False)
TOLERANCES = {"float32": EXACT, "tf32": ROUNDED, "float16": ROUNDED, "bfloat16": ROUNDED}

# Octaves of the tile's noise: its grids are this many times coarser than the tile.
_OCTAVES = (16, 8, 4, 2, 1)
_AIR = -1.5
_RAW_SCALE = 400.0  # deviations to Hounsfield units


def make_tile(shape: tuple[int, ...], *, raw_channels: tuple[int, ...] = (), seed: int = 0) -> Tensor:
    """Return a batch (B, C, ...) like a normalised image: smooth structure, fine noise, a corner of constant air.

    Args:
        shape: Shape of the batch.
        raw_channels: Channels with CT values.
        seed: Seed of the noise.
    """
    generator = torch.Generator().manual_seed(seed)
    size = shape[2:]
    tile = torch.zeros(shape)
    for octave in _OCTAVES:
        coarse = [max(1, extent // octave) for extent in size]
        noise = torch.randn((*shape[:2], *coarse), generator=generator)
        mode = "bilinear" if len(size) == 2 else "trilinear"
        tile += F.interpolate(noise, size=list(size), mode=mode, align_corners=False) * octave**0.5 / 4
    corner = tuple(slice(0, extent // 3) for extent in size)
    tile[(slice(None), slice(None), *corner)] = _AIR
    for channel in raw_channels:
        tile[:, channel] *= _RAW_SCALE
    return tile


def disagreement(logits: Tensor, reference: Tensor, precision: str, *, is_regions: bool = False) -> str:
    """Return how logits (B, K, ...) exceed the tolerance of their precision; empty if they do not.

    Args:
        logits: Logits of the backend.
        reference: Logits of eager float32.
        precision: One of TOLERANCES.
        is_regions: A label is present where its logit is positive, instead of where it is the highest.
    """
    tolerance = TOLERANCES[precision]
    if logits.shape != reference.shape or logits.dtype != torch.float32:
        return f"returns {logits.dtype} {tuple(logits.shape)} instead of float32 {tuple(reference.shape)}"
    if not logits.isfinite().all():
        return "returns NaN or infinity"
    difference = logits - reference
    if tolerance.is_largest:
        error = float(difference.abs().max() / reference.abs().max().clamp(min=1e-6))
    else:
        error = float(difference.square().mean().sqrt() / reference.std().clamp(min=1e-6))
    equal = float((_labels(logits, is_regions) == _labels(reference, is_regions)).float().mean())
    if error > tolerance.error:
        return f"logits differ by {error:.2g}, more than {tolerance.error:g}"
    if equal < tolerance.equal_labels:
        return f"{equal:.4%} of the labels are equal, fewer than {tolerance.equal_labels:.2%}"
    return ""


def _labels(logits: Tensor, is_regions: bool) -> Tensor:
    return logits > 0 if is_regions else logits.argmax(dim=1)
