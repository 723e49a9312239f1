"""Intensity augmentation: which steps a patch gets, in the order of image formation, device last."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..core.json_dataclass import JsonDataclass
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

Step = Remap | Gamma | Contrast | Brightness | BiasField | Blur | LowResolution | Noise
DrawStep = Callable[[Draws, AugmentationConfig, int], Step]

# `<name>_probability` in the configuration switches a step on. Steps are applied in this order.
STEPS: dict[str, DrawStep] = {
    "remap": draw_remap,
    "gamma": draw_gamma,
    "contrast": draw_contrast,
    "brightness": draw_brightness,
    "bias_field": draw_bias_field,
    "blur": draw_blur,
    "low_resolution": draw_low_resolution,
    "noise": draw_noise,
}


# Steps that destroy the meaning of values; raw channels such as HU skip them.
_CHANGING_MEANING = {"remap", "gamma", "contrast", "brightness", "bias_field"}


@dataclass(frozen=True, kw_only=True)
class IntensityParams(JsonDataclass):
    """Drawn intensity steps.

    Attributes:
        steps: In the order of application.
        raw_channels: Channels whose values must keep their meaning, such as HU.
    """

    steps: tuple[Step, ...] = ()
    raw_channels: tuple[int, ...] = ()


def draw_intensity(config: AugmentationConfig, generator: torch.Generator, *, channels: int) -> IntensityParams:
    """Draw which steps a patch of `channels` channels gets, and their strengths, channel by channel."""
    draws = Draws(generator)
    drawn = [
        draw(draws, config, channels)
        for name, draw in STEPS.items()
        if draws.happens(getattr(config, f"{name}_probability"))
    ]
    return IntensityParams(steps=tuple(drawn), raw_channels=config.raw_channels)


def apply_intensity(image: Tensor, params: IntensityParams) -> Tensor:
    """Return image (C, D, H, W) after every step; the input is left as it is."""
    raw = list(params.raw_channels)
    for step in params.steps:
        changed = step.apply(image)
        if raw and step.step in _CHANGING_MEANING:
            changed[raw] = image[raw]
        image = changed
    return image
