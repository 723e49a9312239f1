"""MONAI's processing of an image as data: preprocessing steps, sliding-window tiles, and the way back."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from ..core.errors import InputError
from ..core.json_dataclass import JsonDataclass

RESTORED = ("logits", "probabilities", "classes")
TILE_WEIGHTS = ("constant", "gaussian")
TILE_PADDINGS = ("constant", "replicate")


@dataclass(frozen=True, kw_only=True)
class Resample(JsonDataclass):
    """Resample the image to the plan's spacing; voxel 0 stays in place, and values beyond the end are repeated.

    Attributes:
        is_nearest: Nearest-neighbour instead of linear interpolation.
    """

    step: Literal["resample"] = field(default="resample", init=False)
    is_nearest: bool = False


@dataclass(frozen=True, kw_only=True)
class CropForeground(JsonDataclass):
    """Crop to the bounding box of voxels above 0 in any channel.

    Attributes:
        margin: Voxels added on both sides of each axis.
        divisor: Sizes are enlarged to multiples of this.
        is_within: The margin stops at the edge of the image; otherwise it is padded with zeros.
    """

    step: Literal["crop_foreground"] = field(default="crop_foreground", init=False)
    margin: tuple[int, int, int] = (0, 0, 0)
    divisor: tuple[int, int, int] = (1, 1, 1)
    is_within: bool = False

    def __post_init__(self) -> None:
        for name in ("margin", "divisor"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        self.require(min(self.margin) >= 0, f"margin is {self.margin}: give numbers from 0")
        self.require(min(self.divisor) >= 1, f"divisor is {self.divisor}: give numbers from 1")


@dataclass(frozen=True, kw_only=True)
class ScaleRange(JsonDataclass):
    """Map a range of values linearly to another range.

    Attributes:
        source: Smallest and largest value.
        target: Target range; None means 0 to 1.
        is_clipped: Clip values to the target range.
    """

    step: Literal["scale_range"] = field(default="scale_range", init=False)
    source: tuple[float, float]
    target: tuple[float, float] | None = None
    is_clipped: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "source", tuple(self.source))
        self.require(self.source[0] != self.source[1], f"source is {self.source}: give two different values")
        if self.target is not None:
            object.__setattr__(self, "target", tuple(self.target))
        self.require(not self.is_clipped or self.target is not None, "values cannot be clipped without a target")


@dataclass(frozen=True, kw_only=True)
class ScalePercentiles(JsonDataclass):
    """Map the range between two percentiles of the image to another range.

    Attributes:
        percentiles: The lower and the upper one, 0 to 100.
        target: Target range; None means 0 to 1.
        is_clipped: Clip values to the target range.
        is_each_channel: Use the percentiles of each channel; otherwise those of all channels together.
    """

    step: Literal["scale_percentiles"] = field(default="scale_percentiles", init=False)
    percentiles: tuple[float, float]
    target: tuple[float, float] | None = None
    is_clipped: bool = False
    is_each_channel: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "percentiles", tuple(self.percentiles))
        lower, upper = self.percentiles
        self.require(
            0 <= lower < upper <= 100, f"percentiles are {self.percentiles}: give two increasing numbers from 0 to 100"
        )
        if self.target is not None:
            object.__setattr__(self, "target", tuple(self.target))
        self.require(not self.is_clipped or self.target is not None, "values cannot be clipped without a target")


@dataclass(frozen=True, kw_only=True)
class ScaleExtremes(JsonDataclass):
    """Map the minimum and maximum of the image to a target range; a constant image is multiplied by its lower end.

    Attributes:
        target: Target range.
        is_each_channel: Use the extremes of each channel; otherwise those of all channels together.
    """

    step: Literal["scale_extremes"] = field(default="scale_extremes", init=False)
    target: tuple[float, float] = (0.0, 1.0)
    is_each_channel: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "target", tuple(self.target))


@dataclass(frozen=True, kw_only=True)
class Standardise(JsonDataclass):
    """Subtract a mean and divide by a standard deviation; a deviation of 0 is treated as 1.

    Attributes:
        means: Means to subtract, one for all channels or one per channel; empty: those of the image.
        deviations: Standard deviations to divide by, likewise.
        is_masked: Voxels of value 0 stay 0 and are excluded from the statistics.
        is_each_channel: Use the statistics of each channel; otherwise those of all channels together.
    """

    step: Literal["standardise"] = field(default="standardise", init=False)
    means: tuple[float, ...] = ()
    deviations: tuple[float, ...] = ()
    is_masked: bool = False
    is_each_channel: bool = False

    def __post_init__(self) -> None:
        for name in ("means", "deviations"):
            values = tuple(getattr(self, name))
            object.__setattr__(self, name, values)
            self.require(
                self.is_each_channel or len(values) <= 1, f"{name} are {values}: give one, or set is_each_channel"
            )


Step = Resample | CropForeground | ScaleRange | ScalePercentiles | ScaleExtremes | Standardise


@dataclass(frozen=True, kw_only=True)
class Tiling(JsonDataclass):
    """How an image larger than the patch is divided.

    Attributes:
        overlap: Overlap of neighbouring tiles as a fraction, 0 to below 1.
        weights: One of TILE_WEIGHTS.
        sigma_ratio: Standard deviation as a fraction of the patch, for "gaussian".
        padding: One of TILE_PADDINGS: how an image smaller than the patch is padded.
        padding_value: Value for "constant".
        whole_axes: Axes of (D, H, W) along which a tile covers the whole image, regardless of the patch.
    """

    overlap: float = 0.25
    weights: str = "constant"
    sigma_ratio: float = 0.125
    padding: str = "constant"
    padding_value: float = 0.0
    whole_axes: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "whole_axes", tuple(self.whole_axes))
        self.require(0 <= self.overlap < 1, f"overlap is {self.overlap}: give a number from 0 to below 1")
        self.require(self.weights in TILE_WEIGHTS, f"weights is '{self.weights}': choose {' or '.join(TILE_WEIGHTS)}")
        self.require(self.sigma_ratio > 0, f"sigma_ratio is {self.sigma_ratio}: give a number above 0")
        self.require(self.padding in TILE_PADDINGS, f"padding is '{self.padding}': choose {' or '.join(TILE_PADDINGS)}")
        self.require(set(self.whole_axes) <= {0, 1, 2}, f"whole_axes are {self.whole_axes}: give some of 0, 1, 2")

    def patch_for(self, shape: tuple[int, int, int], patch_size: tuple[int, int, int]) -> tuple[int, int, int]:
        """Return the sizes (D, H, W) of a tile for an image of size `shape`."""
        depth, height, width = (
            size if axis in self.whole_axes else patch
            for axis, (size, patch) in enumerate(zip(shape, patch_size, strict=True))
        )
        return depth, height, width


@dataclass(frozen=True, kw_only=True)
class MonaiRecipe(JsonDataclass):
    """The part of a plan for the conventions "monai".

    Attributes:
        steps: Applied in this order to the reoriented image.
        tiling: How the image is divided.
        restored: One of RESTORED: what is resampled to the image's grid; "classes" by the nearest voxel, the others
            linearly.
    """

    steps: tuple[Step, ...] = ()
    tiling: Tiling = Tiling()
    restored: str = "probabilities"

    def __post_init__(self) -> None:
        object.__setattr__(self, "steps", tuple(self.steps))
        self.require(self.restored in RESTORED, f"restored is '{self.restored}': choose one of {', '.join(RESTORED)}")
        for kind in (Resample, CropForeground):
            if sum(isinstance(step, kind) for step in self.steps) > 1:
                raise InputError(f"MonaiRecipe: {kind.__name__} occurs twice: remove one")
        if not self.crops_last and any(
            isinstance(step, CropForeground) and self._may_leave(step) for step in self.steps
        ):
            raise InputError("MonaiRecipe: a crop that may extend beyond the image comes before Resample: swap the two")

    @property
    def crops_last(self) -> bool:
        """Whether the image is cropped on the network's grid, after resampling or without resampling."""
        kinds = [type(step) for step in self.steps if isinstance(step, Resample | CropForeground)]
        return kinds != [CropForeground, Resample]

    @staticmethod
    def _may_leave(step: CropForeground) -> bool:
        return max(step.divisor) > 1 or (max(step.margin) > 0 and not step.is_within)
