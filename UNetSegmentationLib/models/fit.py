"""Whether an image is of the modality that a preset is made for, as far as its header and its values tell."""

from __future__ import annotations

import numpy as np

from ..core.errors import InputError
from ..core.messages import sentence
from ..image.geometry import Array
from ..presets import PRESETS
from .description import ModelDescription

# Air in the lungs and round the body is near -1000 HU; other scanners seldom store anything like it.
CT_BELOW = -500
# DICOM codes of channels that data sets call by these names, in capitals.
MODALITIES_OF_NAMES = {"CT": "CT", "CBCT": "CT", "PET": "PT", "SPECT": "NM", "MR": "MR", "MRI": "MR"}
# What exported and scanned pictures say, of whatever modality they are.
UNTOLD_MODALITIES = ("", "OT", "SC")


def lowest_value(array: Array) -> float:
    """Return the smallest finite value of an array; infinity where there is none."""
    if array.dtype.kind != "f":
        return float(array.min())
    return float(np.min(array, where=np.isfinite(array), initial=np.inf))


def why_unsuited(preset: str, *, lowest: float, is_flat: bool, modality: str = "") -> str:
    """Return why an image is not of a preset's modality, "is CT by its DICOM header"; empty where nothing says so.

    Args:
        preset: Registered name.
        lowest: The image's smallest value.
        is_flat: The image is 2D.
        modality: DICOM modality code of the image, where it is known.
    """
    allowed = PRESETS[preset].modalities
    if modality not in UNTOLD_MODALITIES:
        return "" if modality in allowed else f"is {modality} by its DICOM header"
    if not is_flat and lowest < CT_BELOW and "CT" not in allowed:
        return sentence(f"has values down to {lowest:.0f}, as CT has")
    return ""


def doubt_of_values(preset: str, *, lowest: float) -> str:
    """Return a warning where the values of an image are not those of a preset's modality; empty where they may be."""
    title, modalities = PRESETS[preset].title, PRESETS[preset].modalities
    if "CT" not in modalities and lowest < CT_BELOW:
        return sentence(
            f"the image has values down to {lowest:.0f}, as CT has, but the model is for {title}: "
            "the result may be unreliable"
        )
    if modalities == ("CT",) and lowest >= 0:
        return sentence(
            f"the image has no negative values, but the model is for {title} in Hounsfield units: "
            "the result may be unreliable"
        )
    return ""


# A model is warned about, not refused, where voxels are this many times larger or smaller than in its training.
_SPACING_RATIO_WARNED = 2.5


def check_image_fits(
    description: ModelDescription, *, channels: int, shape: tuple[int, int, int], name: str = "the image"
) -> None:
    """Raise InputError where a model cannot take an image of so many channels and sizes (D, H, W).

    Args:
        description: The model.
        channels: Of the image.
        shape: Of the image.
        name: What the message calls the image.
    """
    names = ", ".join(channel.name for channel in description.channels)
    if channels > len(description.channels) == 1:
        raise InputError(
            f"{name} has {channels} channels or time points, model '{description.id}' takes 1 ({names}): "
            "export the one that you want as a file of its own"
        )
    if channels != len(description.channels):
        raise InputError(
            f"{name} has {channels} channel(s), model '{description.id}' needs "
            f"{len(description.channels)} ({names}): give one file a channel, in this order"
        )
    is_flat = shape[0] == 1
    if description.plan.dimensions == 3 and is_flat:
        raise InputError(f"{name} is 2D, model '{description.id}' needs a 3D volume: choose a model for 2D images")
    if PRESETS[description.preset].dimensions == (2,) and not is_flat:
        raise InputError(
            f"{name} has {shape[0]} slices, model '{description.id}' needs a single 2D image: "
            "choose a model for 3D volumes"
        )


def doubt_of_spacing(description: ModelDescription, spacing_mm: tuple[float, float, float]) -> str:
    """Return a warning where voxels are far larger or smaller than in a model's training; empty where they are not.

    Args:
        description: The model.
        spacing_mm: Of the image, (D, H, W).
    """
    plan = description.plan
    if plan.longest_side:
        return ""
    # Where the plan gives no spacing between slices, the two finest of the volume are those in the slice.
    trained = sorted(step for step in plan.spacing_mm if step)
    ratios = [new / old for new, old in zip(sorted(spacing_mm), trained, strict=False)]
    if all(max(ratio, 1 / ratio) < _SPACING_RATIO_WARNED for ratio in ratios):
        return ""
    spacing = " x ".join(f"{value:.3g}" for value in spacing_mm[::-1])
    return sentence(
        f"the voxels are {spacing} mm, the model was trained at {plan.spacing_in_words}: check the result with care"
    )
