"""The plan: how images of a data set are brought to a network and back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from .errors import InputError
from .presets import PRESETS
from .presets.contract import NORMALIZATIONS
from .stages import StagePlan, plan_stages

ORIENTATIONS = ("RAS", "stored")
CONVENTIONS = ("own", "nnunet")


@dataclass(frozen=True, kw_only=True)
class Normalization:
    """Intensity scaling of one channel.

    Attributes:
        scheme: One of presets.contract.NORMALIZATIONS.
        mean: Foreground mean, for "ct".
        std: Foreground standard deviation, for "ct".
        lower: Clip from below, for "ct".
        upper: Clip from above, for "ct".
        use_mask: For "zscore": mean and deviation of the voxels that are not zero, and only these are changed.
    """

    scheme: str
    mean: float = 0.0
    std: float = 1.0
    lower: float = 0.0
    upper: float = 1.0
    use_mask: bool = False

    def __post_init__(self) -> None:
        if self.scheme not in NORMALIZATIONS:
            raise InputError(f"normalization '{self.scheme}' is unknown: choose {', '.join(NORMALIZATIONS)}")
        if self.use_mask and self.scheme != "zscore":
            raise InputError(f"normalization '{self.scheme}' knows no use_mask: leave it out, or take 'zscore'")
        if self.scheme == "ct" and not (self.std > 0 and self.upper > self.lower):
            raise InputError(
                "normalization 'ct' needs std above 0 and upper above lower: take them from the training set"
            )


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Geometry and intensity of the network's input.

    Attributes:
        dimensions: 2 (slices) or 3.
        spacing_mm: Spacing (D, H, W) of the network's input; 0 along an axis keeps the image's own.
        patch_size: Sizes (D, H, W) of a training patch and a prediction tile; D = 1 for 2D.
        batch_size: Patches in a training step.
        longest_side: Where above 0, the longer side of a slice is brought to this many voxels and spacing_mm is not
            used: radiographs seldom say how large a pixel is.
        orientation: "RAS" turns axes to the canonical order first, "stored" takes them as they are.
        normalization: One a channel.
        mirror_axes: Axes of (D, H, W) along which a mirrored image is as plausible.
        transpose: For each axis of the network's (D, H, W) the axis that it is taken from, once they are oriented.
        conventions: "own", or "nnunet" for weights from there: crop to what is not zero, resample by splines and
            across thick slices by the nearest, pad with zeros, centre the tiles' weights on a voxel.
    """

    dimensions: int
    spacing_mm: tuple[float, float, float]
    patch_size: tuple[int, int, int]
    batch_size: int
    orientation: str
    normalization: tuple[Normalization, ...]
    mirror_axes: tuple[int, ...] = ()
    longest_side: int = 0
    transpose: tuple[int, int, int] = (0, 1, 2)
    conventions: str = "own"

    def __post_init__(self) -> None:
        for name in ("spacing_mm", "patch_size", "normalization", "mirror_axes", "transpose"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        requirements = (
            (self.dimensions in (2, 3), f"dimensions is {self.dimensions}: give 2 or 3"),
            (len(self.spacing_mm) == 3 and min(self.spacing_mm) >= 0, "spacing_mm needs three numbers from 0"),
            (len(self.patch_size) == 3 and min(self.patch_size) >= 1, "patch_size needs three sizes from 1"),
            (self.dimensions == 3 or self.patch_size[0] == 1, "a 2D plan needs a patch of depth 1"),
            (self.batch_size >= 1, f"batch_size is {self.batch_size}: give at least 1"),
            (
                self.orientation in ORIENTATIONS,
                f"orientation is '{self.orientation}': choose {', '.join(ORIENTATIONS)}",
            ),
            (len(self.normalization) >= 1, "normalization needs one entry a channel"),
            (self.longest_side >= 0, f"longest_side is {self.longest_side}: give 0 or a size"),
            (all(axis in (0, 1, 2) for axis in self.mirror_axes), "mirror_axes are out of 0, 1, 2"),
            (sorted(self.transpose) == [0, 1, 2], f"transpose is {self.transpose}: give 0, 1 and 2 in some order"),
            (
                self.conventions in CONVENTIONS,
                f"conventions is '{self.conventions}': choose {', '.join(CONVENTIONS)}",
            ),
            (
                self.conventions == "own" or not self.longest_side,
                "longest_side is for the conventions 'own': leave it out",
            ),
        )
        for holds, message in requirements:
            if not holds:
                raise InputError(f"plan: {message}")

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Plan:
        """Return the plan of a JSON object; an unknown entry is an error."""
        unknown = sorted(set(values) - set(cls.__dataclass_fields__))
        if unknown:
            raise InputError(f"plan has unknown entries {', '.join(unknown)}: remove them")
        schemes = tuple(Normalization(**entry) for entry in values["normalization"])
        return cls(**{**values, "normalization": schemes})


def normalization_of(preset: str, *, statistics: dict[str, float] | None = None) -> Normalization:
    """Return the normalization that a preset asks for.

    Args:
        preset: Registered name.
        statistics: mean, std, lower and upper of the training foreground; needed by "ct".
    """
    scheme = PRESETS[preset].normalization
    return Normalization(scheme=scheme, **(statistics or {})) if scheme == "ct" else Normalization(scheme=scheme)


@dataclass(frozen=True, kw_only=True)
class Fingerprint:
    """What the planner needs to know of a data set.

    Attributes:
        shapes: Sizes (D, H, W) of every case after turning its axes.
        spacings_mm: Spacing (D, H, W) of every case, likewise.
        channels: Number of channels.
        foreground: For each channel mean, std, lower (0.5th) and upper (99.5th percentile) of the labelled voxels.
    """

    shapes: tuple[tuple[int, int, int], ...]
    spacings_mm: tuple[tuple[float, float, float], ...]
    channels: int
    foreground: tuple[dict[str, float], ...]


# Voxels of a patch that two CPU cores train on in about half a second a step with 16 features at full resolution.
PATCH_VOXELS = {2: 256 * 256, 3: 96 * 96 * 96}
FEATURES = {2: 32, 3: 16}
MAX_FEATURES = 256
# No axis of a patch is shrunk below this.
_SMALLEST_PATCH = 8
LONGEST_RADIOGRAPH_SIDE = 256


def make_plan(fingerprint: Fingerprint, preset: str, *, batch_size: int = 2) -> Plan:
    """Return the plan for a data set; the same fingerprint always gives the same plan.

    The target spacing is the median; the patch is the median size at that spacing, shrunk along its longest axes until
    it fits PATCH_VOXELS, rounded up to what the strides divide. Radiographs are brought to one size.
    """
    dimensions = 2 if max(shape[0] for shape in fingerprint.shapes) == 1 else 3
    is_radiograph = dimensions == 2 and PRESETS[preset].dimensions == (2,)
    spacing_mm = _median(fingerprint.spacings_mm)
    extents = [
        tuple(size * old / new for size, old, new in zip(shape, spacing, spacing_mm, strict=True))
        for shape, spacing in zip(fingerprint.shapes, fingerprint.spacings_mm, strict=True)
    ]
    size = [max(1, round(extent)) for extent in _median(extents)]
    if is_radiograph:
        scale = LONGEST_RADIOGRAPH_SIDE / max(size[1:])
        size = [1, *(round(extent * scale) for extent in size[1:])]
    depth, height, width = _patch_size(size, spacing_mm, dimensions)
    return Plan(
        dimensions=dimensions,
        spacing_mm=spacing_mm if dimensions == 3 else (0.0, 0.0, 0.0),
        patch_size=(depth, height, width),
        batch_size=batch_size if dimensions == 3 else 4 * batch_size,
        orientation="stored" if dimensions == 2 else "RAS",
        normalization=tuple(normalization_of(preset, statistics=entry) for entry in fingerprint.foreground),
        longest_side=LONGEST_RADIOGRAPH_SIDE if is_radiograph else 0,
    )


def network_shape_for(plan: Plan) -> dict[str, Any]:
    """Return features_per_stage, strides and kernel_sizes for a network trained under a plan, as JSON."""
    stages = _stages_of(plan.patch_size, plan.spacing_mm, plan.dimensions)
    return {
        "features_per_stage": list(stages.features_per_stage),
        "strides": [list(stride) for stride in stages.strides],
        "kernel_sizes": [list(kernel) for kernel in stages.kernel_sizes],
    }


def _stages_of(patch_size: Sequence[int], spacing_mm: Sequence[float], dimensions: int) -> StagePlan:
    first = 3 - dimensions
    spacing = [step or 1.0 for step in spacing_mm]
    return plan_stages(
        patch_size[first:], spacing[first:], base_features=FEATURES[dimensions], max_features=MAX_FEATURES
    )


def _patch_size(size: list[int], spacing_mm: tuple[float, float, float], dimensions: int) -> list[int]:
    """Shrink the axis of the largest extent in millimetres until the patch fits, then round up to the strides."""
    patch = list(size)
    first = 3 - dimensions
    if dimensions == 2:
        patch[0] = 1
    while patch[0] * patch[1] * patch[2] > PATCH_VOXELS[dimensions]:
        # Few thick slices stay the longest axis however few they become.
        axes = [axis for axis in range(first, 3) if patch[axis] > _SMALLEST_PATCH]
        longest = max(axes, key=lambda axis: patch[axis] * spacing_mm[axis])
        patch[longest] = round(patch[longest] * 0.9)
    return [*patch[:first], *_stages_of(patch, spacing_mm, dimensions).patch_size]


def _median(rows: Sequence[Sequence[float]]) -> tuple[float, float, float]:
    depth, height, width = (float(value) for value in np.median(np.array(rows, dtype=np.float64), axis=0))
    return depth, height, width
