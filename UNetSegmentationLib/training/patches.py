"""Training batches: augmented patches, deterministic for each step."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from ..augmentation import AugmentationConfig, augment_patch, source_size
from ..planning.plan import Plan
from .options import TrainingOptions
from .prepared_case import PreparedCase


class Patches(Protocol):
    """Source of the batches of a training."""

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """Return images (B, C, ...) and class numbers (B, ...) of a step, deterministic for each step."""

    def close(self) -> None:
        """Stop background work."""


class PatchSource:
    """Draws augmented batches; the next one is prepared in the background during a training step.

    Args:
        cases: Prepared cases.
        plan: Patch and batch size.
        options: Seed and share of patches on labelled voxels.
        augmentation: Augmentation of the patches.
        part: Which patches of a batch to draw; those of the plan's batch size by default. A patch does not depend on
            the others drawn with it, so that several processes can share a batch.
    """

    def __init__(
        self,
        cases: Sequence[PreparedCase],
        plan: Plan,
        options: TrainingOptions,
        augmentation: AugmentationConfig,
        *,
        part: range | None = None,
    ) -> None:
        self._cases = cases
        self._plan = plan
        self._options = options
        self._augmentation = augmentation
        self._part = range(plan.batch_size) if part is None else part
        self._source_size = source_size(plan.patch_size, augmentation)
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="patches")
        self._ahead: dict[int, Future[tuple[Tensor, Tensor]]] = {}

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """Return images (B, C, D, H, W) and class numbers (B, D, H, W) of a step; without D for a 2D plan."""
        future = self._ahead.pop(step, None) or self._pool.submit(self._draw, step)
        self._ahead = {step + 1: self._pool.submit(self._draw, step + 1)}
        return future.result()

    def close(self) -> None:
        """Stop the background thread."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _draw(self, step: int) -> tuple[Tensor, Tensor]:
        drawn = [self._patch(_generator_of(self._options.seed, step, index)) for index in self._part]
        images, labels = torch.stack([image for image, _ in drawn]), torch.stack([label for _, label in drawn])
        if self._plan.dimensions == 2:
            images, labels = images[:, :, 0], labels[:, 0]
        return images, labels.long()

    def _patch(self, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        case = self._cases[_random_below(len(self._cases), generator)]
        size, shape = self._source_size, case.labels.shape
        if len(case.foreground) and torch.rand((), generator=generator) < self._options.foreground_share:
            centre = case.foreground[_random_below(len(case.foreground), generator)].tolist()
        else:
            centre = [_random_below(extent, generator) for extent in shape]
        start = _window_start(centre, shape, self._plan.patch_size)
        margin = [(outer - inner) // 2 for outer, inner in zip(size, self._plan.patch_size, strict=True)]
        first = [position - extra for position, extra in zip(start, margin, strict=True)]
        image = crop_or_pad(case.image, first, size, padding=case.padding)
        labels = crop_or_pad(case.labels[None], first, size)[0]
        return augment_patch(
            image, labels, output_size=self._plan.patch_size, config=self._augmentation, generator=generator
        )


def _generator_of(*numbers: int) -> torch.Generator:
    """Return a generator whose draws depend on all the numbers, which may be negative."""
    # Sums would collide for neighbours, and torch's generator uses only 32 bits of a seed: mix them.
    (seed,) = np.random.SeedSequence([number % 2**63 for number in numbers]).generate_state(1)
    return torch.Generator().manual_seed(int(seed))


def crop_or_pad(array: Tensor, first: Sequence[int], size: Sequence[int], *, padding: Tensor | None = None) -> Tensor:
    """Return the window (C, *size) that starts at voxel `first` of (C, D, H, W).

    Outside the array it holds `padding` (C,), 0 by default.
    """
    window = array.new_zeros((len(array), *size))
    if padding is not None:
        window += padding[:, None, None, None]
    source, target = [slice(None)], [slice(None)]
    for position, extent, limit in zip(first, size, array.shape[1:], strict=True):
        begin, end = max(0, position), min(limit, position + extent)
        if begin >= end:
            return window
        source.append(slice(begin, end))
        target.append(slice(begin - position, end - position))
    window[tuple(target)] = array[tuple(source)]
    return window


def _window_start(centre: Sequence[int], shape: Sequence[int], patch: Sequence[int]) -> list[int]:
    """Return the start of a patch around `centre`: inside the image if it fits, else with the image in its middle."""
    start = []
    for position, size, extent in zip(centre, shape, patch, strict=True):
        low, high = (0, size - extent) if size >= extent else (-((extent - size) // 2),) * 2
        start.append(min(max(position - extent // 2, low), high))
    return start


def _random_below(limit: int, generator: torch.Generator) -> int:
    return int(torch.randint(limit, (), generator=generator))
