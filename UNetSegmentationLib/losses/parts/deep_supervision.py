"""Deep supervision: the same loss on the logits of every decoder level (Dou et al. 2016, arXiv:1607.00582)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ...core.errors import InputError
from ..contract import SegmentationLoss


class DeepSupervisionLoss(nn.Module):
    """Weighted mean of a loss over levels at weights 1, 1/2, 1/4, ..., which sum to 1.

    A coarser voxel i spans the finest voxels i s to i s + s - 1, s being the level's stride; its label is that of
    the voxel in the middle of its span, or of the last voxel if the middle lies beyond the image. Coarser logits
    entirely within the network's padding have no label and do not count.

    Args:
        loss: Loss of one level.
        alignment: The network's `alignment`, which determines how far a small image was padded. Empty: strides are
            inferred from the sizes, which is exact while the padding is smaller than half of the image.
    """

    def __init__(self, loss: SegmentationLoss, *, alignment: Sequence[int] = ()) -> None:
        super().__init__()
        self.loss = loss
        self.alignment = tuple(alignment)

    def forward(self, outputs: Tensor | Sequence[Tensor], target: Tensor) -> Tensor:
        """Return the loss, a scalar.

        Args:
            outputs: Logits (B, K, ...) of every level, finest first and on the target's grid; a tensor is one level.
            target: Integer labels (B, ...).

        Raises:
            InputError: No level, a finest level on another grid, or a level whose stride cannot be inferred.
        """
        levels = [outputs] if isinstance(outputs, Tensor) else list(outputs)
        if not levels:
            raise InputError("deep supervision needs at least the logits of the finest level")
        strides = level_strides(target.shape[1:], [level.shape[2:] for level in levels], self.alignment)
        total = levels[0].new_zeros((), dtype=torch.float32)
        for index, (level, stride) in enumerate(zip(levels, strides, strict=True)):
            coarse = reduce_labels(target, stride)
            inside = (slice(None), slice(None), *(slice(0, extent) for extent in coarse.shape[1:]))
            total = total + self.loss(level[inside], coarse) * 0.5**index
        return total / (2 - 0.5 ** (len(levels) - 1))


def level_strides(
    size: Sequence[int], level_sizes: Sequence[Sequence[int]], alignment: Sequence[int] = ()
) -> list[tuple[int, ...]]:
    """Return the stride of every level along each axis.

    Args:
        size: Size (D, H, W) or (H, W) of the labels.
        level_sizes: Size of the logits of each level, finest first.
        alignment: Sizes were padded to multiples of this; empty if unknown.

    Raises:
        InputError: A size that fits no stride.
    """
    if tuple(level_sizes[0]) != tuple(size):
        raise InputError(f"the finest logits {tuple(level_sizes[0])} are not on the labels' grid {tuple(size)}")
    strides = [(1,) * len(size)]
    finer = tuple(size)
    for coarse in level_sizes[1:]:
        if alignment:
            padded = [-(-n // a) * a for n, a in zip(size, alignment, strict=True)]
            stride = tuple(n // m if n % m == 0 else 0 for n, m in zip(padded, coarse, strict=True))
        else:
            steps = (-(-n // m) for n, m in zip(finer, coarse, strict=True))
            stride = tuple(s * step for s, step in zip(strides[-1], steps, strict=True))
        if any(s < 1 or -(-n // s) > m for n, s, m in zip(size, stride, coarse, strict=True)):
            raise InputError(
                f"logits {tuple(coarse)} do not cover labels {tuple(size)} at stride {stride}: "
                f"pass levels finest first and the network's alignment"
            )
        strides.append(stride)
        finer = tuple(coarse)
    return strides


def reduce_labels(target: Tensor, stride: Sequence[int]) -> Tensor:
    """Map labels (B, ...) to the labels of the centre voxels of blocks of `stride`, (B, ceil(... / stride))."""
    for axis, (extent, step) in enumerate(zip(target.shape[1:], stride, strict=True), start=1):
        if step > 1:
            middles = torch.arange(-(-extent // step), device=target.device) * step + step // 2
            target = target.index_select(axis, middles.clamp(max=extent - 1))
    return target
