"""Intensity steps of the imaging device: bias field, blur, low resolution, noise."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import ceil, exp
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from ..core.json_dataclass import JsonDataclass
from .bspline import bspline_field
from .config import AugmentationConfig
from .draws import Draws
from .tone import SPATIAL, per_channel

BIAS_POINTS = 6


@dataclass(frozen=True, kw_only=True)
class BiasField(JsonDataclass):
    """Smooth multiplicative field, applied to intensities above the channel's minimum.

    Attributes:
        logarithms: A tuple per channel: the logarithm of the factor at BIAS_POINTS^3 control points.
    """

    step: Literal["bias_field"] = field(default="bias_field", init=False)
    logarithms: tuple[tuple[float, ...], ...]

    def apply(self, image: Tensor) -> Tensor:
        """Return the changed image (C, D, H, W)."""
        control = torch.tensor(self.logarithms, device=image.device)
        control = control.reshape(-1, BIAS_POINTS, BIAS_POINTS, BIAS_POINTS)
        factor = bspline_field(control, image.shape[1:]).exp_()
        low = image.amin(SPATIAL, keepdim=True)
        return (image - low).mul_(factor).add_(low)


@dataclass(frozen=True, kw_only=True)
class Blur(JsonDataclass):
    """Gaussian blur.

    Attributes:
        sigmas: Standard deviation in voxels of the finest axis, one per channel.
        finest_share: Finest spacing over the spacing of each axis (D, H, W).
    """

    step: Literal["blur"] = field(default="blur", init=False)
    sigmas: tuple[float, ...]
    finest_share: tuple[float, float, float]

    def apply(self, image: Tensor) -> Tensor:
        """Return the changed image (C, D, H, W)."""
        channels = []
        for channel, sigma in zip(image, self.sigmas, strict=True):
            blurred = channel
            for axis, share in enumerate(self.finest_share):
                blurred = _blur_axis(blurred, axis, sigma * share)
            channels.append(blurred)
        return torch.stack(channels)


def _blur_axis(channel: Tensor, axis: int, sigma: float) -> Tensor:
    """Return (D, H, W) blurred along one axis, its border repeated; kernels below a fifth of a voxel do nothing."""
    extent = channel.shape[axis]
    radius = min(ceil(3 * sigma), extent - 1)
    if sigma < 0.2 or radius == 0:
        return channel
    weights = [exp(-0.5 * (offset / sigma) ** 2) for offset in range(radius + 1)]
    total = weights[0] + 2 * sum(weights[1:])
    places = torch.arange(-radius, extent + radius, device=channel.device).clamp_(0, extent - 1)
    padded = channel.index_select(axis, places)
    # A few whole-array additions: convolving one channel takes several times as long on a CPU.
    blurred = padded.narrow(axis, radius, extent) * (weights[0] / total)
    for offset in range(1, radius + 1):
        for side in (radius - offset, radius + offset):
            blurred.add_(padded.narrow(axis, side, extent), alpha=weights[offset] / total)
    return blurred


@dataclass(frozen=True, kw_only=True)
class LowResolution(JsonDataclass):
    """Sampling down to the nearest voxels and up again linearly.

    Attributes:
        shares: Share of the voxels kept along an axis, one per channel.
        axes: Axes sampled.
    """

    step: Literal["low_resolution"] = field(default="low_resolution", init=False)
    shares: tuple[float, ...]
    axes: tuple[int, ...]

    def apply(self, image: Tensor) -> Tensor:
        """Return the changed image (C, D, H, W)."""
        size = image.shape[1:]
        channels = []
        for channel, share in zip(image, self.shares, strict=True):
            low = [max(1, round(extent * share)) if axis in self.axes else extent for axis, extent in enumerate(size)]
            small = F.interpolate(channel[None, None], size=low, mode="nearest-exact")
            channels.append(F.interpolate(small, size=size, mode="trilinear", align_corners=False)[0, 0])
        return torch.stack(channels)


@dataclass(frozen=True, kw_only=True)
class Noise(JsonDataclass):
    """Gaussian noise.

    Attributes:
        deviations: Standard deviation in units of the channel's own, one per channel.
        seed: Seed of the noise, so that it can be replayed.
    """

    step: Literal["noise"] = field(default="noise", init=False)
    deviations: tuple[float, ...]
    seed: int

    def apply(self, image: Tensor) -> Tensor:
        """Return the changed image (C, D, H, W)."""
        # Drawn on the CPU, so that every device gets the same noise.
        noise = torch.randn(image.shape, generator=torch.Generator().manual_seed(self.seed)).to(image.device)
        scale = per_channel(self.deviations, image) * image.std(SPATIAL, keepdim=True, correction=0)
        return torch.addcmul(image, noise, scale)


def draw_bias_field(draws: Draws, config: AugmentationConfig, channels: int) -> BiasField:
    """Draw the control points of every channel."""
    deviation = draws.uniform(*config.bias_field_range)
    return BiasField(
        logarithms=tuple(tuple(v * deviation for v in draws.normals(BIAS_POINTS**3)) for _ in range(channels))
    )


def draw_blur(draws: Draws, config: AugmentationConfig, channels: int) -> Blur:
    """Draw one width per channel."""
    first, second, third = (min(config.spacing_mm) / step for step in config.spacing_mm)
    return Blur(sigmas=draws.uniforms(channels, *config.blur_sigma_range), finest_share=(first, second, third))


def draw_low_resolution(draws: Draws, config: AugmentationConfig, channels: int) -> LowResolution:
    """Draw one share per channel; an axis that is already coarse is left unchanged."""
    limit = config.anisotropy_limit * min(config.spacing_mm)
    return LowResolution(
        shares=draws.uniforms(channels, *config.low_resolution_range),
        axes=tuple(axis for axis, step in enumerate(config.spacing_mm) if step <= limit),
    )


def draw_noise(draws: Draws, config: AugmentationConfig, channels: int) -> Noise:
    """Draw one deviation per channel, and the seed."""
    return Noise(deviations=draws.uniforms(channels, *config.noise_range), seed=draws.integer(2**62))
