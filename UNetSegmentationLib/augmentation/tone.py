"""Intensity steps that depend on a voxel's value alone: gamma, brightness, contrast, random remapping."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import exp, log
from typing import Literal

import torch
from torch import Tensor

from ..core.json_dataclass import JsonDataclass
from .config import AugmentationConfig
from .draws import Draws

SPATIAL = (1, 2, 3)
# Percentiles of this many voxels are within one percentile of the whole patch's, at a hundredth of the sorting cost.
PERCENTILE_SAMPLES = 8192


def per_channel(values: tuple[float, ...], image: Tensor) -> Tensor:
    """Return one number per channel as (C, 1, 1, 1) on the image's device."""
    return torch.tensor(values, device=image.device).reshape(-1, 1, 1, 1)


def restore_mean_and_deviation(changed: Tensor, image: Tensor) -> Tensor:
    """Shift and scale every channel of `changed` (C, D, H, W) to its mean and deviation in `image`."""
    # std and mean separately: std_mean takes ten times as long on a CPU (torch 2.13).
    deviation, new_deviation = (t.std(SPATIAL, keepdim=True, correction=0) for t in (image, changed))
    factor = deviation / new_deviation.clamp(min=1e-6)
    shift = image.mean(SPATIAL, keepdim=True) - changed.mean(SPATIAL, keepdim=True) * factor
    return changed.mul(factor).add_(shift)


@dataclass(frozen=True, kw_only=True)
class Gamma(JsonDataclass):
    """Power law between the channel's extremes; mean and deviation are kept."""

    step: Literal["gamma"] = field(default="gamma", init=False)
    exponents: tuple[float, ...]
    inverts: bool

    def apply(self, image: Tensor) -> Tensor:
        """Return the changed image (C, D, H, W)."""
        low, high = image.amin(SPATIAL, keepdim=True), image.amax(SPATIAL, keepdim=True)
        zero, one = (high, low) if self.inverts else (low, high)
        share = (image - zero).div_(torch.where(high > low, one - zero, torch.ones_like(low))).clamp_(min=0)
        powered = share.pow_(per_channel(self.exponents, image))
        return restore_mean_and_deviation(powered.neg_() if self.inverts else powered, image)


@dataclass(frozen=True, kw_only=True)
class Brightness(JsonDataclass):
    """Shift by a share of the channel's deviation."""

    step: Literal["brightness"] = field(default="brightness", init=False)
    shifts: tuple[float, ...]

    def apply(self, image: Tensor) -> Tensor:
        """Return the changed image (C, D, H, W)."""
        return image + per_channel(self.shifts, image) * image.std(SPATIAL, keepdim=True, correction=0)


@dataclass(frozen=True, kw_only=True)
class Contrast(JsonDataclass):
    """Stretching about the channel's mean; values stay within the channel's extremes."""

    step: Literal["contrast"] = field(default="contrast", init=False)
    factors: tuple[float, ...]

    def apply(self, image: Tensor) -> Tensor:
        """Return the changed image (C, D, H, W)."""
        low, high = image.amin(SPATIAL, keepdim=True), image.amax(SPATIAL, keepdim=True)
        factors = per_channel(self.factors, image)
        return (image * factors).add_(image.mean(SPATIAL, keepdim=True) * (1 - factors)).clamp_(low, high)


@dataclass(frozen=True, kw_only=True)
class Remap(JsonDataclass):
    """Piecewise-linear remapping between the 0.5th and 99.5th percentile; mean and deviation are kept.

    Attributes:
        values: A tuple per channel: values of the equally spaced knots.
    """

    step: Literal["remap"] = field(default="remap", init=False)
    values: tuple[tuple[float, ...], ...]

    def apply(self, image: Tensor) -> Tensor:
        """Return the changed image (C, D, H, W)."""
        low, high = (bound.reshape(-1, 1, 1, 1) for bound in _percentiles(image))
        pieces = len(self.values[0]) - 1
        place = (image - low).mul_(pieces / (high - low).clamp(min=1e-6)).clamp_(0, pieces)
        table = torch.tensor(self.values, device=image.device)
        # A sum over the pieces: looking up the piece of each voxel takes several times as long on a CPU.
        remapped = torch.zeros_like(image)
        for piece, rise in enumerate(table.diff(dim=1).unbind(1)):
            remapped.addcmul_((place - piece).clamp_(0, 1), rise.reshape(-1, 1, 1, 1))
        return restore_mean_and_deviation(remapped, image)


def _percentiles(image: Tensor) -> Tensor:
    voxels = image.flatten(1)
    # An odd stride does not align with rows of even length.
    stride = max(1, voxels.shape[1] // PERCENTILE_SAMPLES) | 1
    levels = torch.tensor([0.005, 0.995], device=image.device)
    return torch.quantile(voxels[:, ::stride], levels, dim=1)


def draw_gamma(draws: Draws, config: AugmentationConfig, channels: int) -> Gamma:
    """Draw one exponent per channel, log-uniformly."""
    low, high = config.gamma_range
    exponents = tuple(exp(value) for value in draws.uniforms(channels, log(low), log(high)))
    return Gamma(exponents=exponents, inverts=draws.happens(config.gamma_invert_probability))


def draw_brightness(draws: Draws, config: AugmentationConfig, channels: int) -> Brightness:
    """Draw one shift per channel."""
    return Brightness(shifts=draws.uniforms(channels, *config.brightness_range))


def draw_contrast(draws: Draws, config: AugmentationConfig, channels: int) -> Contrast:
    """Draw one factor per channel."""
    return Contrast(factors=draws.uniforms(channels, *config.contrast_range))


def draw_remap(draws: Draws, config: AugmentationConfig, channels: int) -> Remap:
    """Draw the knots' values of every channel from 0 to 1."""
    return Remap(values=tuple(draws.uniforms(config.remap_knots, 0.0, 1.0) for _ in range(channels)))
