"""The plan: preprocessing, patches and geometry for the images of a data set."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

from ..core.errors import InputError
from ..core.json_dataclass import OMITTED_AT_DEFAULT, JsonDataclass
from ..core.registry import Registry
from ..image.geometry import is_orientation
from ..presets.contract import NORMALIZATIONS
from .monai_recipe import MonaiRecipe

# Their names alone: the package imports torch.
CONVENTIONS: Registry[object] = Registry("set of conventions", "UNetSegmentationLib.conventions")


@dataclass(frozen=True, kw_only=True)
class Normalization(JsonDataclass):
    """Intensity normalisation of one channel.

    Attributes:
        scheme: One of presets.contract.NORMALIZATIONS.
        mean: Foreground mean, for "ct".
        std: Foreground standard deviation, for "ct".
        lower: Clip from below, for "ct".
        upper: Clip from above, for "ct".
        use_mask: For "zscore": normalise only the nonzero voxels, by their mean and standard deviation.
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
            raise InputError(f"normalization '{self.scheme}' does not support use_mask: leave it out, or use 'zscore'")
        if self.scheme == "ct" and not (self.std > 0 and self.upper > self.lower):
            raise InputError(
                "normalization 'ct' needs std above 0 and upper above lower: take them from the training set"
            )


@dataclass(frozen=True, kw_only=True)
class Plan(JsonDataclass):
    """Geometry and intensity of the network's input.

    Attributes:
        dimensions: 2 (slices) or 3.
        spacing_mm: Spacing (D, H, W) of the network's input; 0 along an axis keeps the image's own.
        patch_size: Sizes (D, H, W) of a training patch and a prediction tile; D = 1 for 2D.
        batch_size: Patches in a training step.
        longest_side: If above 0, the longer side of a slice is resized to this many voxels and spacing_mm is not used:
            radiographs seldom state their pixel size.
        orientation: Three letters such as "RAS": the directions of the axes (x, y, z) after reorientation; "stored"
            keeps them as they are.
        normalization: One per channel.
        mirror_axes: Axes of (D, H, W) along which a mirrored image is as plausible.
        transpose: For each axis of the network's (D, H, W), the source axis after reorientation.
        conventions: "own", or "nnunet" for nnU-Net's weights: crop to nonzero, resample with splines (nearest
            neighbour across thick slices), pad with zeros, centre the tile weights on a voxel. "monai": as defined by
            `recipe`, which also normalises the intensities.
        recipe: For the conventions "monai".
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
    recipe: MonaiRecipe | None = field(default=None, metadata=OMITTED_AT_DEFAULT)

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
                self.orientation == "stored" or is_orientation(self.orientation),
                f"orientation is '{self.orientation}': give 'stored' or three letters such as RAS",
            ),
            (len(self.normalization) >= 1, "normalization needs one entry per channel"),
            (self.longest_side >= 0, f"longest_side is {self.longest_side}: give 0 or a size"),
            (all(axis in (0, 1, 2) for axis in self.mirror_axes), "mirror_axes are out of 0, 1, 2"),
            (sorted(self.transpose) == [0, 1, 2], f"transpose is {self.transpose}: give 0, 1 and 2 in some order"),
            (
                self.conventions in CONVENTIONS.declared,
                f"conventions is '{self.conventions}': choose {', '.join(CONVENTIONS.declared)}",
            ),
            (
                self.conventions == "own" or not self.longest_side,
                "longest_side is for the conventions 'own': leave it out",
            ),
            (
                (self.conventions == "monai") == (self.recipe is not None),
                "recipe belongs to the conventions 'monai': give both or neither",
            ),
        )
        for holds, message in requirements:
            if not holds:
                raise InputError(f"plan: {message}")

    @property
    def oriented_spacing_mm(self) -> tuple[float, float, float]:
        """Spacing of the network's input along (D, H, W) before the axes are transposed."""
        depth, height, width = (self.spacing_mm[self.transpose.index(axis)] for axis in range(3))
        return depth, height, width

    @property
    def spacing_in_words(self) -> str:
        """Target spacing (W, H, D) in mm as text, or "" if images keep their own."""
        steps = [f"{step:.3g}" for step in self.oriented_spacing_mm[::-1] if step]
        return " x ".join(steps) + (" mm" if len(steps) == 3 else " mm in-plane") if steps else ""


def read_plan(path: Path) -> Plan:
    """Return the plan in a file written by `unetseg plan`, or in a file with the plan alone.

    Raises:
        InputError: The file cannot be read or does not contain a plan.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        return Plan.from_dict(values.get("plan", values) if isinstance(values, dict) else values)
    except (OSError, ValueError) as error:
        raise InputError(f"the plan {path} cannot be used: {error}") from error
