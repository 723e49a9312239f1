"""DICOM series: which files form a series, whether they are images, and whether a slice is missing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from ..core.errors import InputError

NOT_IMAGES = {"SEG": "segmentation", "RTSTRUCT": "structure set", "SR": "report", "PR": "presentation state"}


def modality_of(path: Path | str) -> str:
    """Return the DICOM modality code (0008,0060) of a file or a folder with a series, or "" if not DICOM."""
    path = Path(path)
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    codes = (_modality_of_file(file) for file in files if file.is_file())
    return next((code for code in codes if code and code not in NOT_IMAGES), "")


def _modality_of_file(path: Path | str) -> str:
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError:
        return ""
    return str(reader.GetMetaData("0008|0060")).strip() if reader.HasMetaDataKey("0008|0060") else ""


def read_series_of(path: Path, reader: sitk.ImageFileReader) -> sitk.Image:
    """Read the DICOM series that one file belongs to."""
    modality = reader.GetMetaData("0008|0060").strip() if reader.HasMetaDataKey("0008|0060") else ""
    if modality in NOT_IMAGES:
        raise InputError(
            f"{path} is a DICOM {NOT_IMAGES[modality]}, not an image: choose the image series it belongs to"
        )
    # Series are told apart as GDCM does it: anonymised files may have an empty series UID.
    for files in _series_in(path.parent):
        if any(Path(file).name == path.name for file in files):
            return _read_slices(files, path)
    return _read_slices((str(path),), path)


def _series_in(folder: Path) -> list[tuple[str, ...]]:
    uids = sitk.ImageSeriesReader.GetGDCMSeriesIDs(str(folder))
    return [tuple(sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder), uid)) for uid in uids]


def read_series(folder: Path) -> sitk.Image:
    """Read the only DICOM image series of a folder."""
    series = _series_in(folder)
    if not series:
        raise InputError(f"folder {folder} contains no DICOM images: choose an image file or the folder of a series")
    kinds = [_modality_of_file(files[0]) for files in series]
    series = [files for files, kind in zip(series, kinds, strict=True) if kind not in NOT_IMAGES]
    if not series:
        held = " and ".join(sorted({f"{NOT_IMAGES[kind]}s" for kind in kinds}))
        raise InputError(
            f"folder {folder} contains no images, only DICOM {held}: choose the image series they belong to"
        )
    if len(series) > 1:
        examples = ", ".join(f"{Path(files[0]).name} ({len(files)} files)" for files in series)
        raise InputError(
            f"folder {folder} contains {len(series)} DICOM series: choose one by giving one of its files: {examples}"
        )
    return _read_slices(series[0], folder)


def _read_slices(files: Sequence[str], source: Path) -> sitk.Image:
    try:
        if len(files) == 1:
            return sitk.ReadImage(files[0])
        reader = sitk.ImageSeriesReader()
        reader.SetFileNames(files)
        image: sitk.Image = reader.Execute()
    except RuntimeError as error:
        raise InputError(f"the DICOM series in {source} is damaged or incomplete: export it again") from error
    _check_slice_positions(files, source)
    return image


def _check_slice_positions(files: Sequence[str], source: Path) -> None:
    """Raise InputError if slices are missing or sheared: ITK would silently close the gap or straighten the stack."""
    positions = []
    reader = sitk.ImageFileReader()
    for file in files:
        reader.SetFileName(file)
        reader.ReadImageInformation()
        if reader.GetNumberOfComponents() != 1 or not reader.HasMetaDataKey("0020|0032"):
            return
        positions.append(np.array(reader.GetOrigin()[:3]))
    steps = np.linalg.norm(np.diff(positions, axis=0), axis=1)
    if steps.min() <= 0 or steps.max() - steps.min() > 0.1 * np.median(steps):
        raise InputError(
            f"the slices in {source} are {steps.min():.2f} to {steps.max():.2f} mm apart: "
            "a slice is missing or duplicated; export the series again"
        )
    normal = np.array(reader.GetDirection()).reshape(3, 3)[:, 2]
    way = positions[-1] - positions[0]
    drift = float(np.linalg.norm(way - normal * (way @ normal)))
    if drift > max(reader.GetSpacing()[:2]):
        raise InputError(
            f"the slices in {source} are sheared by {drift:.1f} mm from the first to the last (gantry "
            "tilt): resample the series to a rectangular grid"
        )
