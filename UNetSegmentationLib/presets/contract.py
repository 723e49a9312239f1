"""What a modality preset defines."""

from __future__ import annotations

from dataclasses import dataclass

from ..core.errors import InputError
from ..core.registry import Registry

NORMALIZATIONS = ("zscore", "ct", "percentile", "rescale", "rgb", "none")


@dataclass(frozen=True, kw_only=True)
class Preset:
    """Choices that follow from the modality.

    Attributes:
        title: Display name.
        modalities: DICOM modality codes of the preset.
        normalization: "zscore" (per image), "ct" (clip and scale by the training foreground) or
            "percentile" (1st to 99th percentile to 0..1); "rescale" (smallest to largest to 0..1), "rgb" (divided by
            255) and "none" (stored values) are for networks that require them.
        display_window: (width, level) of the viewer in stored units, or None to let the viewer choose.
        dimensions: Spatial dimensions of images of this modality that can be segmented.
        channel_names: Suggested names for the first channels.
        tissue_ranges_hu: Tissues suggested by the stored value alone, each (name, lower, upper); None means no limit.
    """

    title: str
    modalities: tuple[str, ...]
    normalization: str
    display_window: tuple[float, float] | None = None
    dimensions: tuple[int, ...] = (3,)
    channel_names: tuple[str, ...] = ()
    tissue_ranges_hu: tuple[tuple[str, float | None, float | None], ...] = ()

    def __post_init__(self) -> None:
        if self.normalization not in NORMALIZATIONS:
            raise InputError(f"normalization '{self.normalization}' is unknown: choose {', '.join(NORMALIZATIONS)}")


PRESETS: Registry[Preset] = Registry("preset", "UNetSegmentationLib.presets")
