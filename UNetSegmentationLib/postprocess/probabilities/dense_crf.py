"""Dense conditional random field by mean field (Krähenbühl and Koltun 2011, arXiv:1210.5644), windowed.

Q <- softmax(log p + sum over kernels of w D^-1/2 K D^-1/2 Q), with a Gaussian kernel of position, a bilateral kernel of
position and intensity, Potts compatibility and the symmetric normalisation of the authors' implementation.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from math import exp, prod

import torch
from torch import Tensor

from ...core.errors import InputError
from .contract import PROBABILITY_STEPS

Window = tuple[slice, ...]
Offset = tuple[int, int, int]

# Copies of the probabilities in memory at once: logarithms, scaled, two messages, new.
BUFFERS = 5
SMALLEST = 1e-8


@PROBABILITY_STEPS.register("dense_crf", title="Dense CRF")
@dataclass(frozen=True, kw_only=True)
class DenseCRF:
    """Align probabilities with the edges of the image; parts thinner than the kernels may vanish.

    The kernels trust the probabilities: this helps if they are calibrated, and shrinks small structures if they are
    underconfident (Testing/Benchmarks/bench_crf.py measures both).

    Attributes:
        weight_smooth: Weight of the Gaussian kernel of position.
        theta_smooth_mm: Its standard deviation.
        weight_bilateral: Weight of the bilateral kernel.
        theta_bilateral_mm: Its standard deviation in position.
        theta_intensity: Its standard deviation in intensity, in units of each channel's own deviation.
        iterations: Mean-field updates.
        reach: Neighbours up to this many standard deviations along each axis count; 2 gives the labels of the
            unlimited sum in more than 99 of 100 voxels.
        uncertainty: Only the box around probabilities from `uncertainty` to 1 - `uncertainty`, grown by the reach,
            changes; 0 means the whole volume.
        memory_mb: Target memory, reached by recomputing weights and working in slabs no thinner than the reach.
    """

    weight_smooth: float = 1.0
    theta_smooth_mm: float = 1.0
    weight_bilateral: float = 2.0
    theta_bilateral_mm: float = 2.0
    theta_intensity: float = 0.5
    iterations: int = 5
    reach: float = 2.0
    uncertainty: float = 0.05
    memory_mb: float = 512.0

    def __post_init__(self) -> None:
        requirements = (
            (self.weight_smooth >= 0, f"weight_smooth is {self.weight_smooth}: must be 0 or more"),
            (self.weight_bilateral >= 0, f"weight_bilateral is {self.weight_bilateral}: must be 0 or more"),
            (self.theta_smooth_mm > 0, f"theta_smooth_mm is {self.theta_smooth_mm}: must be above 0"),
            (self.theta_bilateral_mm > 0, f"theta_bilateral_mm is {self.theta_bilateral_mm}: must be above 0"),
            (self.theta_intensity > 0, f"theta_intensity is {self.theta_intensity}: must be above 0"),
            (self.iterations >= 0, f"iterations is {self.iterations}: must be 0 or more"),
            (self.reach > 0, f"reach is {self.reach}: must be above 0"),
            (0 <= self.uncertainty < 0.5, f"uncertainty is {self.uncertainty}: must be 0 to below 0.5"),
            (self.memory_mb > 0, f"memory_mb is {self.memory_mb}: must be above 0"),
        )
        for holds, message in requirements:
            if not holds:
                raise InputError(f"dense CRF: {message}")

    def apply(self, probabilities: Tensor, image: Tensor, *, spacing_mm: Sequence[float]) -> Tensor:
        """Return probabilities (K, D, H, W) refined by image (C, D, H, W) of voxels (D, H, W) in mm."""
        radii = [
            max(radius)
            for radius in zip(
                _radii(self.theta_smooth_mm, self, spacing_mm, probabilities.shape[1:]),
                _radii(self.theta_bilateral_mm, self, spacing_mm, probabilities.shape[1:]),
                strict=True,
            )
        ]
        result = probabilities.clone()
        box = _uncertain_box(probabilities, self.uncertainty, radii)
        if box is None or self.iterations == 0:
            return result
        # The deviation of the whole image, so that the definition of an edge does not depend on the box.
        deviation = image.float().std((1, 2, 3), keepdim=True, correction=0).clamp(min=1e-12)
        features = image.float() / (deviation * self.theta_intensity)
        for inner, outer in _slabs(box, radii, classes=probabilities.shape[0], memory_mb=self.memory_mb):
            window = (slice(None), *outer)
            refined = _mean_field(probabilities[window].float(), features[window], config=self, spacing_mm=spacing_mm)
            kept = tuple(
                slice(part.start - whole.start, part.stop - whole.start)
                for part, whole in zip(inner, outer, strict=True)
            )
            result[(slice(None), *inner)] = refined[(slice(None), *kept)].to(result.dtype)
        return result


def _radii(theta_mm: float, config: DenseCRF, spacing_mm: Sequence[float], size: Sequence[int]) -> Offset:
    """Return how many voxels the kernel reaches along each axis."""
    first, second, third = (
        min(int(config.reach * theta_mm / step + 1e-6), extent - 1)
        for step, extent in zip(spacing_mm, size, strict=True)
    )
    return (first, second, third)


def _uncertain_box(probabilities: Tensor, uncertainty: float, margins: Sequence[int]) -> Window | None:
    """Return the box around all uncertain voxels, grown by the margins; None if there is none."""
    size = probabilities.shape[1:]
    if uncertainty == 0:
        return tuple(slice(0, extent) for extent in size)
    is_uncertain = ((probabilities > uncertainty) & (probabilities < 1 - uncertainty)).any(0)
    window = []
    for axis, margin in enumerate(margins):
        others = [other for other in range(3) if other != axis]
        places = is_uncertain.amax(others).nonzero()
        if not len(places):
            return None
        window.append(slice(max(0, int(places[0]) - margin), min(size[axis], int(places[-1]) + 1 + margin)))
    return tuple(window)


def _slabs(box: Window, radii: Sequence[int], *, classes: int, memory_mb: float) -> Iterator[tuple[Window, Window]]:
    """Yield windows that tile the box, each with the wider window needed to compute it."""
    sizes = [part.stop - part.start for part in box]
    axis = max(range(3), key=lambda a: sizes[a])
    slice_mb = BUFFERS * classes * 4 * prod(sizes) / sizes[axis] / 2**20
    # A voxel outside the halo affects the slab only through others: too weak to flip a label.
    halo = radii[axis]
    # Thinner slabs than their halo would cost more than three times the work.
    thickness = max(1, halo, int(memory_mb / 2 / slice_mb) - 2 * halo)
    for start in range(box[axis].start, box[axis].stop, thickness):
        stop = min(start + thickness, box[axis].stop)
        inner, outer = list(box), list(box)
        inner[axis] = slice(start, stop)
        outer[axis] = slice(max(box[axis].start, start - halo), min(box[axis].stop, stop + halo))
        yield tuple(inner), tuple(outer)


def _mean_field(probabilities: Tensor, features: Tensor, *, config: DenseCRF, spacing_mm: Sequence[float]) -> Tensor:
    """Return the marginals (K, D, H, W) after `config.iterations` updates of all voxels at once."""
    size = probabilities.shape[1:]
    smooth = _SmoothKernel(config, spacing_mm, size, device=probabilities.device)
    used_mb = BUFFERS * probabilities.numel() * 4 / 2**20
    if config.weight_bilateral > 0:
        bilateral = _BilateralKernel(config, spacing_mm, features, cache_mb=config.memory_mb - used_mb)
    logarithms = probabilities.clamp(min=SMALLEST).log()
    marginals = probabilities
    for _ in range(config.iterations):
        energy = logarithms
        if config.weight_smooth > 0:
            energy = energy + config.weight_smooth * smooth.apply(marginals)
        if config.weight_bilateral > 0:
            energy = energy + config.weight_bilateral * bilateral.apply(marginals)
        marginals = energy.softmax(0)
    return marginals


class _SmoothKernel:
    """D^-1/2 K D^-1/2 for the Gaussian of position: separable, one pass an axis."""

    def __init__(
        self, config: DenseCRF, spacing_mm: Sequence[float], size: Sequence[int], *, device: torch.device
    ) -> None:
        radii = _radii(config.theta_smooth_mm, config, spacing_mm, size)
        self._weights = [
            [exp(-0.5 * (offset * step / config.theta_smooth_mm) ** 2) for offset in range(radius + 1)]
            for step, radius in zip(spacing_mm, radii, strict=True)
        ]
        self._scale = self._sum(torch.ones(1, *size, device=device)).rsqrt()

    def apply(self, marginals: Tensor) -> Tensor:
        """Return the message (K, D, H, W)."""
        return self._sum(marginals * self._scale).mul_(self._scale)

    def _sum(self, values: Tensor) -> Tensor:
        for axis, weights in enumerate(self._weights, start=1):
            extent = values.shape[axis]
            summed = values.clone()
            for offset, weight in enumerate(weights[1:], start=1):
                rest = extent - offset
                summed.narrow(axis, 0, rest).add_(values.narrow(axis, offset, rest), alpha=weight)
                summed.narrow(axis, offset, rest).add_(values.narrow(axis, 0, rest), alpha=weight)
            values = summed
        return values


class _BilateralKernel:
    """D^-1/2 K D^-1/2 for the Gaussian of position and intensity: half the offsets, since pairs are symmetric."""

    def __init__(self, config: DenseCRF, spacing_mm: Sequence[float], features: Tensor, *, cache_mb: float) -> None:
        self._features = features
        radii = _radii(config.theta_bilateral_mm, config, spacing_mm, features.shape[1:])
        self._offsets = [
            (
                offset,
                -0.5
                * _square(o * step / config.theta_bilateral_mm for o, step in zip(offset, spacing_mm, strict=True)),
            )
            for offset in _half_offsets(radii)
        ]
        self._cache: dict[Offset, Tensor] = {}
        left = cache_mb * 2**20
        degree = torch.ones_like(features[0])
        for offset, exponent in self._offsets:
            here, there = _pair(offset, features.shape[1:])
            weight = self._weight(offset, exponent)
            degree[here] += weight
            degree[there] += weight
            left -= 4 * weight.numel()
            if left > 0:
                self._cache[offset] = weight
        self._scale = degree.rsqrt()

    def apply(self, marginals: Tensor) -> Tensor:
        """Return the message (K, D, H, W)."""
        scaled = marginals * self._scale
        message = scaled.clone()
        for offset, exponent in self._offsets:
            here, there = _pair(offset, scaled.shape[1:])
            weight = self._cache.get(offset)
            if weight is None:
                weight = self._weight(offset, exponent)
            message[:, *here].addcmul_(scaled[:, *there], weight)
            message[:, *there].addcmul_(scaled[:, *here], weight)
        return message.mul_(self._scale)

    def _weight(self, offset: Offset, exponent: float) -> Tensor:
        here, there = _pair(offset, self._features.shape[1:])
        difference = self._features[:, *here] - self._features[:, *there]
        return difference.square_().sum(0).mul_(-0.5).add_(exponent).exp_()


def _half_offsets(radii: Offset) -> list[Offset]:
    """Return one of each pair of opposite offsets within the radii."""
    first, second, third = (range(-radius, radius + 1) for radius in radii)
    return [offset for offset in product(first, second, third) if offset > (0, 0, 0)]


def _square(values: Iterable[float]) -> float:
    return sum(value**2 for value in values)


def _pair(offset: Offset, size: Sequence[int]) -> tuple[Window, Window]:
    """Return the windows of all voxels with a neighbour at the offset, and of those neighbours."""
    here = tuple(slice(max(0, -o), extent - max(0, o)) for o, extent in zip(offset, size, strict=True))
    there = tuple(slice(max(0, o), extent + min(0, o)) for o, extent in zip(offset, size, strict=True))
    return here, there
