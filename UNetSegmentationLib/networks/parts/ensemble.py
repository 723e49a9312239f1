"""Several networks of one shape that answer as one, such as the folds of a cross-validation."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from ..contract import SegmentationNetwork


class Ensemble(SegmentationNetwork):
    """The mean of the members' logits.

    Args:
        members: At least one network; all of the same shape.
    """

    def __init__(self, members: Sequence[SegmentationNetwork]) -> None:
        super().__init__(members[0].config)
        self.members = nn.ModuleList(members)

    @property
    def alignment(self) -> tuple[int, ...]:
        """Sizes that the members ask for."""
        return self._first.alignment

    @property
    def accepts_missing_channels(self) -> bool:
        """What the members accept."""
        return self._first.accepts_missing_channels

    @property
    def raw_channels(self) -> tuple[int, ...]:
        """Channels that the members want as they are stored."""
        return self._first.raw_channels

    @property
    def _first(self) -> SegmentationNetwork:
        first = self.members[0]
        assert isinstance(first, SegmentationNetwork)
        return first

    def forward_aligned(self, image: Tensor) -> Tensor:
        """Map image (B, C, D, H, W) or (B, C, H, W) to logits (B, K, same size)."""
        total: Tensor = self.members[0](image)
        for member in list(self.members)[1:]:
            total = total + member(image)
        return total / len(self.members)
