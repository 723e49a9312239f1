"""The plan: how images of a data set are brought to a network and back."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from .errors import InputError
from .presets import PRESETS
from .presets.contract import NORMALIZATIONS

ORIENTATIONS = ("RAS", "stored")


@dataclass(frozen=True, kw_only=True)
class Normalization:
    """Intensity scaling of one channel.

    Attributes:
        scheme: One of presets.contract.NORMALIZATIONS.
        mean: Foreground mean, for "ct".
        std: Foreground standard deviation, for "ct".
        lower: Clip from below, for "ct".
        upper: Clip from above, for "ct".
    """

    scheme: str
    mean: float = 0.0
    std: float = 1.0
    lower: float = 0.0
    upper: float = 1.0

    def __post_init__(self) -> None:
        if self.scheme not in NORMALIZATIONS:
            raise InputError(f"normalization '{self.scheme}' is unknown: choose {', '.join(NORMALIZATIONS)}")
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
        orientation: "RAS" turns axes to the canonical order first, "stored" takes them as they are.
        normalization: One a channel.
        mirror_axes: Axes of (D, H, W) along which a mirrored image is as plausible.
    """

    dimensions: int
    spacing_mm: tuple[float, float, float]
    patch_size: tuple[int, int, int]
    batch_size: int
    orientation: str
    normalization: tuple[Normalization, ...]
    mirror_axes: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        for name in ("spacing_mm", "patch_size", "normalization", "mirror_axes"):
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
            (all(axis in (0, 1, 2) for axis in self.mirror_axes), "mirror_axes are out of 0, 1, 2"),
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
