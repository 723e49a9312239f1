"""Whether an image is of the modality that a preset is made for, as far as its header and its values tell."""

from __future__ import annotations

import numpy as np

from ..image.geometry import Array
from ..presets import PRESETS

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
        return f"has values down to {lowest:.0f}, as CT has"
    return ""


def doubt_of_values(preset: str, *, lowest: float) -> str:
    """Return a warning where the values of an image are not those of a preset's modality; empty where they may be."""
    title, modalities = PRESETS[preset].title, PRESETS[preset].modalities
    if "CT" not in modalities and lowest < CT_BELOW:
        return f"the image has values down to {lowest:.0f}, as CT has, but the model is for {title}: do not rely on it"
    if modalities == ("CT",) and lowest >= 0:
        return f"the image has no negative values, but the model is for {title} in Hounsfield units: do not rely on it"
    return ""
