"""The fingerprint: what the planner needs to know about a data set."""

from __future__ import annotations

from dataclasses import dataclass

from ..core.errors import InputError
from ..core.json_dataclass import JsonDataclass
from ..image.labels import names_a_side

Size = tuple[int, int, int]


@dataclass(frozen=True, kw_only=True)
class Fingerprint(JsonDataclass):
    """Statistics of a data set.

    Attributes:
        shapes: Sizes (D, H, W) of every case after reorientation.
        spacings_mm: Spacing (D, H, W) of every case, likewise.
        channels: Number of channels.
        foreground: For each channel, mean, std, lower (0.5th) and upper (99.5th percentile) of the labelled voxels.
        cropped_shapes: Sizes (D, H, W) of the box outside which every channel has its smallest value; if empty,
            `shapes`.
        channel_names: Names of the channels, such as "CT" or "T1"; empty if unknown.
        class_shares: Share of all voxels for each label value, without the background.
        label_names: Names of the labels.
        subjects: Number of subjects; 0: every case is a separate subject.
    """

    shapes: tuple[Size, ...]
    spacings_mm: tuple[tuple[float, float, float], ...]
    channels: int
    foreground: tuple[dict[str, float], ...]
    cropped_shapes: tuple[Size, ...] = ()
    channel_names: tuple[str, ...] = ()
    class_shares: dict[int, float] | None = None
    label_names: tuple[str, ...] = ()
    subjects: int = 0

    def __post_init__(self) -> None:
        for name in ("shapes", "spacings_mm", "cropped_shapes"):
            object.__setattr__(self, name, tuple(tuple(row) for row in getattr(self, name)))
        for name in ("foreground", "channel_names", "label_names"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        requirements = (
            (len(self.shapes) >= 1, "there are no cases"),
            (len(self.spacings_mm) == len(self.shapes), "spacings_mm needs one entry per case"),
            (len(self.cropped_shapes) in (0, len(self.shapes)), "cropped_shapes needs one entry per case"),
            (len(self.foreground) == self.channels >= 1, "foreground needs one entry per channel"),
            (len(self.channel_names) in (0, self.channels), "channel_names needs one entry per channel"),
        )
        for holds, message in requirements:
            if not holds:
                raise InputError(f"fingerprint: {message}")

    @property
    def content_shapes(self) -> tuple[Size, ...]:
        """Sizes that the patch has to cover."""
        return self.cropped_shapes or self.shapes

    @property
    def names_a_side(self) -> bool:
        """Whether a label names left or right."""
        return names_a_side(self.label_names)
