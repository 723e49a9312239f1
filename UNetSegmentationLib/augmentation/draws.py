"""Single random numbers from one generator."""

from __future__ import annotations

import torch


class Draws:
    """Random numbers drawn in order from the given generator.

    Args:
        generator: CPU generator; its state alone decides what is drawn.
    """

    def __init__(self, generator: torch.Generator) -> None:
        self._generator = generator

    def uniform(self, low: float, high: float) -> float:
        """Return a number from low to high."""
        return low + (high - low) * float(torch.rand((), generator=self._generator))

    def uniforms(self, count: int, low: float, high: float) -> tuple[float, ...]:
        """Return `count` numbers from low to high."""
        return tuple(float(v) for v in torch.rand(count, generator=self._generator).mul_(high - low).add_(low).tolist())

    def normals(self, count: int) -> tuple[float, ...]:
        """Return `count` numbers of the standard normal distribution."""
        return tuple(float(v) for v in torch.randn(count, generator=self._generator).tolist())

    def happens(self, probability: float) -> bool:
        """Return True with the given probability; a number is drawn in any case."""
        return self.uniform(0.0, 1.0) < probability

    def integer(self, stop: int) -> int:
        """Return an integer from 0 to below `stop`."""
        return int(torch.randint(stop, (), generator=self._generator))
