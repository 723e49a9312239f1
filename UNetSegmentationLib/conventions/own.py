"""The library's own conventions: normalise, then resample linearly over the extent of the image."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import ceil

from torch import Tensor

from ..core.task import Task
from ..image.geometry import Array, AxisOrder, Volume
from .contract import CONVENTIONS, Conventions, PreparedVolume, Sizes
from .parts.axes import network_shape, stack_channels
from .parts.intensity import normalize, padding_of
from .parts.resampling import resample_image

# Minimum size at the network's bottleneck: instance norm would turn a single voxel into 0.
_FEWEST_AT_THE_BOTTOM = 2


@CONVENTIONS.register("own", title="Own")
class OwnConventions(Conventions):
    """Every channel is normalised, then resampled."""

    may_shrink_tiles = True

    def _prepare(self, turned: Volume, order: AxisOrder, *, labelled: Array | None, task: Task) -> PreparedVolume:
        del labelled
        shape = network_shape(turned, self.plan)

        def channels() -> Iterator[Tensor]:
            for channel, scheme in zip(turned.array, self.plan.normalization, strict=True):
                task.check()
                # One at a time: blurring needs several times the memory of its input.
                yield resample_image(normalize(channel, scheme)[None], shape, task=task)[0]

        depth, height, width = (
            step * before / after for step, before, after in zip(turned.spacing_mm, turned.shape, shape, strict=True)
        )
        return PreparedVolume(
            image=stack_channels(channels(), turned.channels),
            padding=padding_of(turned.array, self.plan.normalization),
            spacing_mm=(depth, height, width),
            shape=turned.shape,
            order=order,
            turned_shape=turned.shape,
        )

    def _tile_size(self, shape: Sequence[int], alignment: Sequence[int]) -> Sizes:
        """Return the plan's patch, smaller where that is mostly padding.

        A stack of few slices under a deep patch would be mostly padding, which instance norm treats as image.
        """
        steps = (*(1,) * (3 - len(alignment)), *alignment)
        depth, height, width = (
            min(patch, max(_FEWEST_AT_THE_BOTTOM * step, ceil(size / step) * step)) if 2 * size <= patch else patch
            for patch, size, step in zip(self.plan.patch_size, shape, steps, strict=True)
        )
        return depth, height, width
