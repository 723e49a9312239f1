"""The contract of probability steps: probabilities of the same shape, type and device; the input untouched."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from torch import Tensor

from ...core.errors import InputError
from ...core.registry import Registry
from ..parts.options import parse_call


class ProbabilityStep(Protocol):
    """A step with its options: a frozen dataclass, registered under its name."""

    def apply(self, probabilities: Tensor, image: Tensor, *, spacing_mm: Sequence[float]) -> Tensor:
        """Return probabilities (K, D, H, W) refined by image (C, D, H, W) of voxels (D, H, W) in mm."""


PROBABILITY_STEPS: Registry[Callable[..., ProbabilityStep]] = Registry(
    "probability step", "UNetSegmentationLib.postprocess.probabilities"
)


def parse_probability_step(text: str) -> ProbabilityStep:
    """Return the step of `name` or `name:option=value,option=value`.

    Raises:
        InputError: Unknown step or option, or a value that cannot be read or is out of range.
    """
    step, options = parse_call(text, PROBABILITY_STEPS)
    return step(**options)


def apply_probability_steps(
    probabilities: Tensor, image: Tensor, *, spacing_mm: Sequence[float], names: Iterable[str]
) -> Tensor:
    """Return the probabilities after every step, in the order given.

    Args:
        probabilities: (K, D, H, W), floating point, summing to 1 over K; D = 1 for a 2D image.
        image: (C, D, H, W), floating point, on the same grid and device.
        spacing_mm: Voxel size (D, H, W).
        names: `dense_crf`, `dense_crf:iterations=3,weight_smooth=2`, ...

    Raises:
        InputError: A step cannot be read, or the inputs do not fit.
    """
    steps = [parse_probability_step(name) for name in names]
    if probabilities.ndim != 4 or image.ndim != 4 or probabilities.shape[1:] != image.shape[1:]:
        raise InputError(
            f"probabilities {tuple(probabilities.shape)} and image {tuple(image.shape)} do not fit: "
            "pass (K, D, H, W) and (C, D, H, W) on the same grid"
        )
    if len(spacing_mm) != 3 or min(spacing_mm) <= 0:
        raise InputError(f"spacing_mm is {tuple(spacing_mm)}: must be three positive numbers (D, H, W)")
    for step in steps:
        probabilities = step.apply(probabilities, image, spacing_mm=spacing_mm)
    return probabilities
