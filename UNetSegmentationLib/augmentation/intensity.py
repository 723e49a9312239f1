"""Intensity augmentation: which steps a patch gets, in the order of image formation, device last."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from .config import AugmentationConfig
from .degradation import (
    BiasField,
    Blur,
    LowResolution,
    Noise,
    draw_bias_field,
    draw_blur,
    draw_low_resolution,
    draw_noise,
)
from .draws import Draws
from .tone import Brightness, Contrast, Gamma, Remap, draw_brightness, draw_contrast, draw_gamma, draw_remap


class Step(Protocol):
    """A drawn intensity step."""

    def apply(self, image: Tensor) -> Tensor:
        """Return the changed image (C, D, H, W)."""


DrawStep = Callable[[Draws, AugmentationConfig, int], Step]

# name -> (class, draw); `<name>_probability` in the configuration switches it. The order is the order of application.
STEPS: dict[str, tuple[Callable[..., Step], DrawStep]] = {
    "remap": (Remap, draw_remap),
    "gamma": (Gamma, draw_gamma),
    "contrast": (Contrast, draw_contrast),
    "brightness": (Brightness, draw_brightness),
    "bias_field": (BiasField, draw_bias_field),
    "blur": (Blur, draw_blur),
    "low_resolution": (LowResolution, draw_low_resolution),
    "noise": (Noise, draw_noise),
}


# Steps after which a value no longer means what it meant; channels such as HU are spared them.
_CHANGING_MEANING = {"remap", "gamma", "contrast", "brightness", "bias_field"}


@dataclass(frozen=True, kw_only=True)
class IntensityParams:
    """What was drawn.

    Attributes:
        steps: By name, in the order of application.
        raw_channels: Channels whose values keep their meaning.
    """

    steps: tuple[tuple[str, Step], ...] = ()
    raw_channels: tuple[int, ...] = ()


def draw_intensity(config: AugmentationConfig, generator: torch.Generator, *, channels: int) -> IntensityParams:
    """Draw which steps a patch of `channels` channels gets, and their strengths, channel by channel."""
    draws = Draws(generator)
    drawn = [
        (name, draw(draws, config, channels))
        for name, (_, draw) in STEPS.items()
        if draws.happens(getattr(config, f"{name}_probability"))
    ]
    return IntensityParams(steps=tuple(drawn), raw_channels=config.raw_channels)


def apply_intensity(image: Tensor, params: IntensityParams) -> Tensor:
    """Return image (C, D, H, W) after every step; the input is left as it is."""
    raw = list(params.raw_channels)
    for name, step in params.steps:
        changed = step.apply(image)
        if raw and name in _CHANGING_MEANING:
            changed[raw] = image[raw]
        image = changed
    return image
