"""Augmentation of one training patch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..core.errors import InputError
from .config import AugmentationConfig
from .intensity import apply_intensity, draw_intensity
from .spatial import apply_spatial, draw_spatial


def augment_patch(
    image: Tensor,
    labels: Tensor,
    *,
    output_size: Sequence[int],
    config: AugmentationConfig,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Draw and apply the spatial change, then the intensity steps.

    Args:
        image: (C, D, H, W) float32, normalised; may be larger than `output_size` by a margin (see `source_size`).
        labels: (D, H, W) integers; -1 is ignored by the losses and kept.
        output_size: (D, H, W) of the result; D = 1 for a 2D image.
        config: Probabilities and ranges.
        generator: CPU generator; its state alone decides the result.

    Returns:
        Image (C, *output_size) float32 and labels (*output_size).

    Raises:
        InputError: Shapes or types do not fit.
    """
    if image.ndim != 4 or image.shape[1:] != labels.shape:
        raise InputError(
            f"image {tuple(image.shape)} and labels {tuple(labels.shape)} do not fit: "
            "pass image (C, D, H, W) and labels (D, H, W)"
        )
    if image.dtype != torch.float32 or labels.dtype.is_floating_point:
        raise InputError(f"types are {image.dtype} and {labels.dtype}: pass a float32 image and integer labels")
    spatial = draw_spatial(config, generator, output_size=output_size)
    intensity = draw_intensity(config, generator, channels=image.shape[0])
    image, labels = apply_spatial(image, labels, spatial)
    return apply_intensity(image, intensity), labels
