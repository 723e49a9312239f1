"""Normalising stored values for a network."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ...image.geometry import Array
from ...planning.plan import Normalization

SMALLEST_DEVIATION = 1e-6


def normalize(
    channel: Array,
    scheme: Normalization,
    *,
    mask: Array | None = None,
    smallest_deviation: float = SMALLEST_DEVIATION,
) -> Tensor:
    """Map stored values to float32 by one of the schemes of planning.plan.Normalization.

    A missing channel (NaN) stays NaN.

    Args:
        channel: Stored values (D, H, W).
        scheme: How to normalise them.
        mask: Foreground (D, H, W) for schemes that use a mask; by default the nonzero voxels.
        smallest_deviation: Lower limit of the divisor of "zscore" and "rescale".
    """
    image = torch.from_numpy(np.array(channel, dtype=np.float32, order="C"))
    if scheme.scheme == "ct":
        return image.clamp_(scheme.lower, scheme.upper).sub_(scheme.mean).div_(scheme.std)
    if scheme.scheme == "percentile" and not image.isnan().all():
        lower, upper = (float(value) for value in np.percentile(image.numpy(), (1, 99)))
        return image.sub_(lower).div_(max(upper - lower, 1e-6)).clamp_(0, 1)
    if scheme.scheme == "zscore":
        inside = image
        if scheme.use_mask:
            is_inside = torch.from_numpy(channel != 0 if mask is None else mask)
            inside = image[is_inside]
        deviation, mean = torch.std_mean(inside, correction=0)
        inside.sub_(mean).div_(deviation.clamp(min=smallest_deviation))
        return image.masked_scatter_(is_inside, inside) if scheme.use_mask else image
    if scheme.scheme == "rescale":
        image.sub_(image.min())
        return image.div_(image.max().clamp(min=smallest_deviation))
    return image.div_(255) if scheme.scheme == "rgb" else image


def padding_of(array: Array, schemes: Sequence[Normalization]) -> Tensor:
    """Return the padding values (C,): 0 for normalised channels, the smallest value (air) for unchanged ones."""
    pairs = zip(array, schemes, strict=True)
    return torch.tensor([float(channel.min()) if scheme.scheme == "none" else 0.0 for channel, scheme in pairs])
