"""Several networks of one shape used as one, such as the folds of a cross-validation."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from ..contract import SegmentationNetwork
from .wrapper import WrapperNetwork


class Ensemble(WrapperNetwork):
    """The mean of the members' logits.

    Args:
        members: At least one network; all of the same shape.
    """

    def __init__(self, members: Sequence[SegmentationNetwork]) -> None:
        super().__init__(members[0].config)
        self.members = nn.ModuleList(members)

    @property
    def inner(self) -> tuple[SegmentationNetwork, ...]:
        """The members."""
        return tuple(member for member in self.members if isinstance(member, SegmentationNetwork))
