"""Intensity augmentation: which steps a patch gets, in the order of image formation, device last."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Protocol, Self

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


@dataclass(frozen=True, kw_only=True)
class IntensityParams:
    """Drawn steps by name, in the order of application."""

    steps: tuple[tuple[str, Step], ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON; `from_dict` restores equal parameters."""
        return {name: asdict(step) for name, step in self.steps}  # type: ignore[call-overload]

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Return the parameters of a JSON object."""
        plain = {name: {key: _as_tuple(value) for key, value in step.items()} for name, step in values.items()}
        return cls(steps=tuple((name, STEPS[name][0](**step)) for name, step in plain.items()))


def draw_intensity(config: AugmentationConfig, generator: torch.Generator, *, channels: int) -> IntensityParams:
    """Draw which steps a patch of `channels` channels gets, and their strengths, channel by channel."""
    draws = Draws(generator)
    drawn = [
        (name, draw(draws, config, channels))
        for name, (_, draw) in STEPS.items()
        if draws.happens(getattr(config, f"{name}_probability"))
    ]
    return IntensityParams(steps=tuple(drawn))


def apply_intensity(image: Tensor, params: IntensityParams) -> Tensor:
    """Return image (C, D, H, W) after every step; the input is left as it is."""
    for _, step in params.steps:
        image = step.apply(image)
    return image


def _as_tuple(value: Any) -> Any:
    return tuple(_as_tuple(v) for v in value) if isinstance(value, list) else value
