"""Probabilities and ranges of augmentation, checked."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Self

from ..core.errors import InputError
from ..core.json_dataclass import JsonDataclass

Range = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class AugmentationConfig(JsonDataclass):
    """Probabilities (0 to 1, each per patch) and ranges of every step.

    Attributes:
        spacing_mm: Voxel size (D, H, W) of the patch; rotations, scaling and elastic deformation happen in millimetres.
        mirror_axes: Axes 0 to 2 (D, H, W) that may be flipped, each with probability one half. Leave out the axis
            from left to right if labels name a side.
        rotation_probability: Rotation by any angle.
        rotation_deg: Largest angle about each axis.
        scaling_probability: Isotropic scaling.
        scale_range: Magnification factors; above 1 enlarges.
        elastic_probability: Elastic deformation by a cubic B-spline.
        elastic_points: Control points along the longest axis of the patch.
        elastic_range: Standard deviation of a control point's displacement in units of the control-point spacing;
            well below 0.4 the deformation does not fold.
        right_angle_probability: Rotation by 90, 180 or 270 degrees in a plane of equal size and spacing.
        anisotropy_limit: An axis whose spacing exceeds the finest by more than this factor is only flipped.
        outside_label: Label of voxels that lie outside the source: -1 (ignored by the losses) or 0. The image
            is padded with its border values there.
        gamma_probability: Power law between the channel's extremes; mean and standard deviation are kept.
        gamma_range: Exponents, drawn log-uniformly.
        gamma_invert_probability: Share of the power laws that act on the inverted channel.
        brightness_probability: Shift by a share of the channel's standard deviation.
        brightness_range: Shifts.
        contrast_probability: Stretching about the channel's mean; values stay within the channel's extremes.
        contrast_range: Factors.
        remap_probability: Random piecewise-linear remapping of the intensities, which makes a network independent of
            the contrast, at some cost in accuracy if the contrast never changes.
        remap_knots: Knots of the remapping between the 0.5th and the 99.5th percentile.
        bias_field_probability: Smooth multiplicative field like a coil's sensitivity.
        bias_field_range: Standard deviations of the logarithm of the factor at its control points.
        blur_probability: Gaussian blur.
        blur_sigma_range: Standard deviations in voxels of the finest axis.
        low_resolution_probability: Sampling down to the nearest voxels and up again linearly.
        low_resolution_range: Shares of the voxels kept along an axis.
        noise_probability: Gaussian noise.
        noise_range: Standard deviations in units of the channel's standard deviation.
    """

    spacing_mm: tuple[float, float, float] = (1.0, 1.0, 1.0)
    mirror_axes: tuple[int, ...] = (0, 1, 2)
    rotation_probability: float = 0.2
    rotation_deg: float = 20.0
    scaling_probability: float = 0.2
    scale_range: Range = (0.8, 1.25)
    elastic_probability: float = 0.1
    elastic_points: int = 6
    elastic_range: Range = (0.0, 0.2)
    right_angle_probability: float = 0.0
    anisotropy_limit: float = 3.0
    outside_label: int = -1
    raw_channels: tuple[int, ...] = ()
    gamma_probability: float = 0.3
    gamma_range: Range = (0.7, 1.5)
    gamma_invert_probability: float = 0.25
    brightness_probability: float = 0.15
    brightness_range: Range = (-0.3, 0.3)
    contrast_probability: float = 0.15
    contrast_range: Range = (0.75, 1.25)
    remap_probability: float = 0.1
    remap_knots: int = 6
    bias_field_probability: float = 0.1
    bias_field_range: Range = (0.0, 0.3)
    blur_probability: float = 0.15
    blur_sigma_range: Range = (0.5, 1.0)
    low_resolution_probability: float = 0.15
    low_resolution_range: Range = (0.5, 1.0)
    noise_probability: float = 0.15
    noise_range: Range = (0.0, 0.3)

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, list):  # tuples keep the dataclass hashable
                object.__setattr__(self, field.name, tuple(value))
            if field.name.endswith("_probability") and not 0 <= value <= 1:
                raise InputError(f"{field.name} is {value}: must be 0 to 1")
            if field.name.endswith("_range") and not (len(value) == 2 and value[0] <= value[1]):
                raise InputError(f"{field.name} is {value}: must be two numbers, the lower first")
        self._check()

    def _check(self) -> None:
        requirements = (
            (
                len(self.spacing_mm) == 3 and min(self.spacing_mm) > 0,
                f"spacing_mm is {self.spacing_mm}: must be three positive numbers (D, H, W)",
            ),
            (
                set(self.mirror_axes) <= {0, 1, 2},
                f"mirror_axes is {self.mirror_axes}: choose from 0, 1 and 2 (D, H, W)",
            ),
            (0 <= self.rotation_deg <= 180, f"rotation_deg is {self.rotation_deg}: must be 0 to 180"),
            (self.elastic_points >= 2, f"elastic_points is {self.elastic_points}: must be at least 2"),
            (self.remap_knots >= 2, f"remap_knots is {self.remap_knots}: must be at least 2"),
            (self.anisotropy_limit >= 1, f"anisotropy_limit is {self.anisotropy_limit}: must be at least 1"),
            (min(self.raw_channels, default=0) >= 0, f"raw_channels is {self.raw_channels}: must be 0 or more"),
            (self.outside_label in (-1, 0), f"outside_label is {self.outside_label}: must be -1 (ignored) or 0"),
            (self.elastic_range[0] >= 0, f"elastic_range is {self.elastic_range}: must be 0 or more"),
            (self.bias_field_range[0] >= 0, f"bias_field_range is {self.bias_field_range}: must be 0 or more"),
            (self.noise_range[0] >= 0, f"noise_range is {self.noise_range}: must be 0 or more"),
            (
                min(self.scale_range[0], self.gamma_range[0], self.contrast_range[0], self.blur_sigma_range[0]) > 0,
                "scale_range, gamma_range, contrast_range and blur_sigma_range need positive numbers",
            ),
            (
                self.low_resolution_range[0] > 0 and self.low_resolution_range[1] <= 1,
                f"low_resolution_range is {self.low_resolution_range}: must be above 0 to 1",
            ),
        )
        for holds, message in requirements:
            if not holds:
                raise InputError(message)

    @classmethod
    def none(cls, **changes: Any) -> Self:
        """Return a configuration with all augmentation off, except for the options given."""
        off = {field.name: 0.0 for field in fields(cls) if field.name.endswith("_probability")}
        return cls(**{**off, "mirror_axes": (), **changes})
