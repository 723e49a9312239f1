"""Whether an image suits a model, judging by its channels, header and values."""

from __future__ import annotations

import numpy as np

from ..core.errors import InputError
from ..core.messages import sentence
from ..image.geometry import Array
from ..presets import PRESETS
from .description import ModelDescription

# Air in the lungs and around the body is near -1000 HU; other modalities rarely store such values.
CT_BELOW = -500
# DICOM codes for channel names (in capitals) used by data sets.
MODALITIES_OF_NAMES = {"CT": "CT", "CBCT": "CT", "PET": "PT", "SPECT": "NM", "MR": "MR", "MRI": "MR"}
# Codes of exported and scanned images, whose modality is unknown.
UNKNOWN_MODALITIES = ("", "OT", "SC")


def lowest_value(array: Array) -> float:
    """Return the smallest finite value of an array, or infinity if there is none."""
    if array.dtype.kind != "f":
        return float(array.min())
    return float(np.min(array, where=np.isfinite(array), initial=np.inf))


def why_unsuited(preset: str, *, lowest: float, is_flat: bool, modality: str = "") -> str:
    """Return why an image is not of a preset's modality, as in "is CT by its DICOM header", or "" if it may be.

    Args:
        preset: Registered name.
        lowest: The image's smallest value.
        is_flat: Whether the image is 2D.
        modality: DICOM modality code of the image, if known.
    """
    allowed = PRESETS[preset].modalities
    if modality not in UNKNOWN_MODALITIES:
        return "" if modality in allowed else f"is {modality} according to its DICOM header"
    if not is_flat and lowest < CT_BELOW and "CT" not in allowed:
        return sentence(f"has values down to {lowest:.0f}, as CT has")
    return ""


def value_warning(preset: str, *, lowest: float) -> str:
    """Return a warning if the values of an image do not match a preset's modality, or ""."""
    title, modalities = PRESETS[preset].title, PRESETS[preset].modalities
    if "CT" not in modalities and lowest < CT_BELOW:
        return sentence(
            f"the image has values down to {lowest:.0f}, as CT has, but the model is for {title}: "
            "do not rely on the result"
        )
    if modalities == ("CT",) and lowest >= 0:
        return sentence(
            f"the image has no negative values, but the model is for {title} in Hounsfield units: "
            "do not rely on the result"
        )
    return ""


# Voxels this many times larger or smaller than in training cause a warning, not an error.
_SPACING_RATIO_WARNED = 2.5


def check_image_fits(
    description: ModelDescription, *, channels: int, shape: tuple[int, int, int], name: str = "the image"
) -> None:
    """Raise InputError if a model does not accept an image with this number of channels and size (D, H, W).

    Args:
        description: The model.
        channels: Number of channels of the image.
        shape: Size of the image.
        name: Name of the image in the message.
    """
    names = ", ".join(channel.name for channel in description.channels)
    if channels > len(description.channels) == 1:
        raise InputError(
            f"{name} has {channels} channels or time points, but model '{description.id}' needs 1 ({names}): "
            "export the one you want as a separate file"
        )
    if channels != len(description.channels):
        raise InputError(
            f"{name} has {channels} channel(s), but model '{description.id}' needs "
            f"{len(description.channels)} ({names}): give one file per channel, in this order"
        )
    is_flat = shape[0] == 1
    if description.plan.dimensions == 3 and is_flat:
        raise InputError(f"{name} is 2D, but model '{description.id}' needs a 3D volume: choose a model for 2D images")
    if PRESETS[description.preset].dimensions == (2,) and not is_flat:
        raise InputError(
            f"{name} has {shape[0]} slices, but model '{description.id}' needs a single 2D image: "
            "choose a model for 3D volumes"
        )


def spacing_warning(description: ModelDescription, spacing_mm: tuple[float, float, float]) -> str:
    """Return a warning if voxels are much larger or smaller than in a model's training, or "".

    Args:
        description: The model.
        spacing_mm: Spacing (D, H, W) of the image.
    """
    plan = description.plan
    if plan.longest_side:
        return ""
    # If the plan has no spacing between slices, the two finest of the volume are the in-plane ones.
    trained = sorted(step for step in plan.spacing_mm if step)
    ratios = [new / old for new, old in zip(sorted(spacing_mm), trained, strict=False)]
    if all(max(ratio, 1 / ratio) < _SPACING_RATIO_WARNED for ratio in ratios):
        return ""
    spacing = " x ".join(f"{value:.3g}" for value in spacing_mm[::-1])
    return sentence(
        f"the voxels are {spacing} mm, but the model was trained at {plan.spacing_in_words}: check the result carefully"
    )
