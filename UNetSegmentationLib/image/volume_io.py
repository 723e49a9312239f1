"""Reading and writing volumes and labelmaps: NIfTI, NRRD, MetaImage, DICOM folders, PNG, JPEG, TIFF."""

from __future__ import annotations

import os
from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from ..core.errors import InputError
from ..core.files import atomic_path
from .dicom_series import read_series, read_series_of
from .geometry import Array, Volume, same_grid
from .labels import Label
from .nifti import NiftiFile, read_nifti
from .seg_nrrd_header import segment_entries

VOLUME_SUFFIXES = (".nii", ".nii.gz", ".nrrd", ".nhdr", ".mha", ".mhd", ".dcm")
NIFTI_SUFFIXES = (".nii", ".nii.gz")
PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")
LOSSY_SUFFIXES = (".jpg", ".jpeg")
LABELMAP_SUFFIXES = (".seg.nrrd", ".nii.gz", ".nii", ".nrrd", ".mha", ".png", ".tif", ".tiff")
# No detached headers: ITK would write the voxels to a second file under the temporary name.
WRITTEN_SUFFIXES = (".nii.gz", ".nii", ".nrrd", ".mha", *PICTURE_SUFFIXES)
LARGEST_LABEL = 65535

_RAS_FROM_LPS = np.diag((-1.0, -1.0, 1.0, 1.0))
_LUMINANCE = np.array((0.299, 0.587, 0.114))  # ITU-R BT.601

# Scanners and converters store rounded directions; by default ITK rejects such NIfTI headers.
os.environ.setdefault("ITK_NIFTI_SFORM_PERMISSIVE", "1")
sitk.ProcessObject.SetGlobalWarningDisplay(False)


def read_volume(path: Path | str, *, is_labelmap: bool = False) -> Volume:
    """Read an image of one or more channels.

    Args:
        path: A file, a folder with one DICOM series, or any file of a DICOM series (the whole series is read). Colour
            images are converted to luminance. The fourth axis of a 4D file becomes the channels.
        is_labelmap: Reject colour images, including those with a palette, instead of converting them to luminance.

    Raises:
        InputError: The file is missing, corrupt, of an unknown format or without voxels; the message says which.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path} does not exist: give an image file or a folder with a DICOM series")
    image, array = (read_series(path), None) if path.is_dir() else _read_file(path)
    return _volume_of(image, path, array=array, is_labelmap=is_labelmap)


def read_channels(paths: Sequence[Path | str]) -> Volume:
    """Read one channel per file and stack them; channels on other grids are resampled linearly to the first one's grid.

    Raises:
        InputError: A file cannot be read.
    """
    volumes = [read_volume(path) for path in paths]
    first = volumes[0]
    aligned = [volume if same_grid(first, volume) else resample_onto(volume, first) for volume in volumes]
    array = np.concatenate([volume.array for volume in aligned]) if len(aligned) > 1 else first.array
    return Volume(array, first.affine_ras)


def read_labelmap(path: Path | str) -> Volume:
    """Read a labelmap as a single integer channel.

    Raises:
        InputError: It cannot be read, has several channels or colours, or contains values that are not whole numbers
            or that lossy compression has changed.
    """
    path = Path(path)
    if path.name.lower().endswith(LOSSY_SUFFIXES):
        raise InputError(f"{path} is a JPEG, whose compression changes label values: export the labelmap as PNG")
    volume = read_volume(path, is_labelmap=True)
    if volume.channels != 1:
        raise InputError(
            f"{path} has {volume.channels} channels: a labelmap must have one; export it as a single labelmap"
        )
    array = volume.array
    if array.dtype.kind == "f":
        if not np.isfinite(array).all() or (array != np.rint(array)).any():
            raise InputError(f"{path} contains values that are not whole numbers: it is an image; choose a labelmap")
        if np.abs(array).max() > LARGEST_LABEL:
            raise InputError(f"{path} contains values above {LARGEST_LABEL}: it is an image; choose a labelmap")
        array = array.astype(np.int32)
    return Volume(array, volume.affine_ras)


def write_volume(path: Path | str, volume: Volume) -> None:
    """Write an image; the file name determines the format.

    Raises:
        InputError: The format is unknown or the file cannot be written.
    """
    path = Path(path)
    if not path.name.lower().endswith(WRITTEN_SUFFIXES):
        raise InputError(f"cannot write an image to '{path.name}': use a name ending in {', '.join(WRITTEN_SUFFIXES)}")
    _write(_image_of(volume.array, volume.affine_ras), path)


def write_labelmap(
    path: Path | str,
    labelmap: Array,
    *,
    affine_ras: Array,
    labels: Sequence[Label] = (),
) -> None:
    """Write a labelmap (D, H, W); a name ending in .seg.nrrd opens in Slicer as named, coloured segments.

    Args:
        path: File to write; the name determines the format (LABELMAP_SUFFIXES).
        labelmap: Integers (D, H, W), 0 is the background.
        affine_ras: Geometry of the segmented image.
        labels: Names, colours and terms, stored in .seg.nrrd.

    Raises:
        InputError: The format is unknown, a value is out of range or the file cannot be written.
    """
    path = Path(path)
    check_labelmap_name(path)
    lowest, highest = int(labelmap.min(initial=0)), int(labelmap.max(initial=0))
    if lowest < 0 or highest > LARGEST_LABEL:
        raise InputError(f"label values {lowest} to {highest} cannot be written: give 0 to {LARGEST_LABEL}")
    array = np.ascontiguousarray(labelmap, dtype=np.uint8 if highest < 256 else np.uint16)
    image = _image_of(array[np.newaxis], affine_ras)
    if path.name.lower().endswith(".seg.nrrd"):
        for key, value in segment_entries(array, labels).items():
            image.SetMetaData(key, value)
    _write(image, path)


def check_labelmap_name(path: Path | str) -> None:
    """Raise InputError if a labelmap cannot be written under this name."""
    name = Path(path).name.lower()
    if not name.endswith(LABELMAP_SUFFIXES):
        raise InputError(
            f"cannot write a segmentation to '{name}': use a name ending in {', '.join(LABELMAP_SUFFIXES)}"
        )


def stem_of(path: Path | str) -> str:
    """Return the file name without its known suffixes: "a.b.nii.gz" gives "a.b"."""
    name = Path(path).name
    for suffix in sorted((*VOLUME_SUFFIXES, *PICTURE_SUFFIXES, *LABELMAP_SUFFIXES), key=len, reverse=True):
        if name.lower().endswith(suffix) and len(name) > len(suffix):
            return name[: -len(suffix)]
    return name


def resample_onto(volume: Volume, grid: Volume, *, is_labelmap: bool = False) -> Volume:
    """Resample a volume to the grid of another; outside it is filled with its smallest value.

    Args:
        volume: Volume (C, D, H, W) to resample.
        grid: Volume with the target sizes and affine.
        is_labelmap: Use nearest-neighbour instead of linear interpolation.
    """
    reference = _image_of(grid.array[:1], grid.affine_ras)
    interpolator = sitk.sitkNearestNeighbor if is_labelmap else sitk.sitkLinear
    channels = []
    for channel in volume.array:
        image = _image_of(channel[np.newaxis], volume.affine_ras)
        fill = 0.0 if is_labelmap else float(channel.min())
        resampled = sitk.Resample(image, reference, sitk.Transform(), interpolator, fill, image.GetPixelID())
        channels.append(sitk.GetArrayFromImage(resampled))
    return Volume(np.stack(channels), grid.affine_ras)


def stack_channels(grid: Volume, channels: Sequence[Volume | None], *, names: Sequence[str]) -> Volume:
    """Return channels as one volume on a grid; those on other grids are resampled linearly, missing ones become NaN.

    Args:
        grid: Volume with the target sizes and affine.
        channels: One single-channel volume each, or None if it is missing.
        names: Channel names, for messages.

    Raises:
        InputError: All are missing, one has several channels, or one does not overlap with the grid.
    """
    if not any(channels):
        raise InputError("all channels of the image are missing: select at least one")
    aligned = []
    for name, channel in zip(names, channels, strict=True):
        if channel is not None and channel.channels != 1:
            raise InputError(f"{name} has {channel.channels} channels: select a volume with one channel")
        if channel is None or same_grid(channel, grid):
            aligned.append(channel)
        elif not _overlap(channel, grid):
            raise InputError(f"{name} does not overlap the volume: choose one of the same part of the patient")
        else:
            aligned.append(resample_onto(channel, grid))
    empty = np.full((1, *grid.shape), np.nan, dtype=np.float32)
    arrays = [empty if channel is None else channel.array for channel in aligned]
    return Volume(np.concatenate(arrays) if len(arrays) > 1 else arrays[0], grid.affine_ras)


def _overlap(first: Volume, second: Volume) -> bool:
    """Return whether the bounding boxes of the two volumes, along the axes of the second, overlap."""
    ends = np.array(np.meshgrid(*[(-0.5, extent - 0.5) for extent in first.shape[::-1]])).reshape(3, -1)
    corners = np.linalg.solve(second.affine_ras, first.affine_ras @ np.vstack([ends, np.ones(8)]))[:3]
    last = np.array(second.shape[::-1]) - 0.5
    return bool((corners.max(axis=1) > -0.5).all() and (corners.min(axis=1) < last).all())


def _read_file(path: Path) -> tuple[sitk.Image, Array | None]:
    """Return the image of a file, and its voxels if the image only has the geometry and the voxel type."""
    if path.stat().st_size == 0:
        raise InputError(f"{path} is empty (0 bytes): copy or export it again")
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        raise InputError(f"{path} cannot be read: it is damaged or not one of {_known_formats()}") from error
    if "DICOM" in _io_name(reader).upper() or "GDCM" in _io_name(reader).upper():
        return read_series_of(path, reader), None
    if 0 in reader.GetSize():
        raise InputError(f"{path} contains no voxels (sizes {reader.GetSize()}): export it again")
    try:
        nifti = read_nifti(path) if path.name.lower().endswith(NIFTI_SUFFIXES) else None
        if nifti is not None and nifti.stored.size == prod(reader.GetSize()) * reader.GetNumberOfComponents():
            return _image_of_nifti(nifti, reader, path)
        return reader.Execute(), None  # including complex numbers and colours
    except RuntimeError as error:
        raise InputError(
            f"{path} is damaged or truncated: its voxels cannot be read; copy or export it again"
        ) from error
    except MemoryError as error:
        raise InputError(f"{path} ({reader.GetSize()} voxels) does not fit into memory: crop or resample it") from error


def _image_of_nifti(nifti: NiftiFile, reader: sitk.ImageFileReader, path: Path) -> tuple[sitk.Image, Array]:
    """Return an image of one voxel with the geometry read by ITK, and all voxels with the type that ITK would use."""
    size, components = reader.GetSize(), reader.GetNumberOfComponents()
    image = sitk.Image([1] * len(size), reader.GetPixelID(), *([components] if components > 1 else []))
    image.SetSpacing(reader.GetSpacing())
    image.SetOrigin(reader.GetOrigin())
    image.SetDirection(reader.GetDirection())
    if len(size) >= 3 and nifti.affine_ras is not None:
        _fix_direction(image, nifti.affine_ras, size[:3], path)
    values = nifti.values_as(sitk.GetArrayViewFromImage(image).dtype)
    # The file stores component after component, ITK interleaves them.
    array = values.reshape(*([components] if components > 1 else []), *size[::-1])
    return image, np.moveaxis(array, 0, -1) if components > 1 else array


def _fix_direction(image: sitk.Image, affine_ras: Array, size: Sequence[int], path: Path) -> None:
    """Set the directions from the NIfTI header if they are not perpendicular.

    When ITK is allowed to read such headers, it uses the inverse of their rotation.
    """
    axes = (_RAS_FROM_LPS @ affine_ras)[:3, :3]
    spacing = np.linalg.norm(axes, axis=0)
    if not np.isfinite(axes).all() or spacing.min() <= 0:
        return
    _check_right_angles(axes, size, path)
    rotation = _orthonormal(axes / spacing)
    if np.abs(rotation - axes / spacing).max() <= 1e-6:
        return
    direction = np.eye(image.GetDimension())
    direction[:3, :3] = rotation
    image.SetDirection(direction.ravel().tolist())
    image.SetSpacing([*spacing.tolist(), *image.GetSpacing()[3:]])


def _check_right_angles(axes: Array, size: Sequence[int], path: Path) -> None:
    """Raise InputError if a sheared grid differs by more than a voxel from a rectangular one.

    Args:
        axes: Steps in millimetres along x, y and z, as columns.
        size: Voxels along x, y and z.
        path: The file, for the message.
    """
    spacing = np.linalg.norm(axes, axis=0)
    shift = np.linalg.norm((_orthonormal(axes / spacing) * spacing - axes) * (np.array(size) - 1), axis=0)
    if shift.max() > spacing.min():
        raise InputError(
            f"the axes of {path} are not perpendicular (off by {shift.max():.1f} mm at the far end): "
            "resample it to a rectangular grid"
        )


def _io_name(reader: sitk.ImageFileReader) -> str:
    return str(reader.GetImageIOFromFileName(reader.GetFileName()))


def _known_formats() -> str:
    return "NIfTI, NRRD, MetaImage, DICOM, PNG, JPEG or TIFF"


def _volume_of(image: sitk.Image, path: Path, *, array: Array | None, is_labelmap: bool) -> Volume:
    """Return the volume of an ITK image: 2D gets D = 1, vector pixels and a fourth axis become channels.

    Args:
        image: Image with the geometry.
        path: The file, for messages.
        array: Voxels in ITK's order, or None to take those of the image.
        is_labelmap: See read_volume.
    """
    if array is None:
        array = sitk.GetArrayFromImage(image)
    if array.dtype.kind == "c":
        raise InputError(f"{path} contains complex numbers: export its magnitude as an image")
    if image.GetNumberOfComponentsPerPixel() > 1:
        array = np.moveaxis(array, -1, 0)
        if path.name.lower().endswith(PICTURE_SUFFIXES):
            if is_labelmap and len(array) >= 3 and _is_coloured(array):
                raise InputError(f"{path} shows labels as colours: export the label values as a greyscale image")
            array = _luminance(array)
    elif image.GetDimension() <= 3:
        array = array[np.newaxis]
    if image.GetDimension() == 2:
        array = array[:, np.newaxis]
    if array.ndim != 4:
        raise InputError(
            f"{path} has {image.GetDimension()} axes of sizes {array.shape[::-1]}: give a 2D, 3D or 4D image"
        )
    affine = _affine_of(image)
    _check_right_angles(affine[:3, :3], array.shape[:0:-1], path)
    return Volume(array, affine)


def _luminance(channels: Array) -> Array:
    """Map grey+alpha, RGB or RGBA (C, ...) to one channel of the same type."""
    if len(channels) < 3 or not _is_coloured(channels):
        return channels[:1]
    grey = np.tensordot(_LUMINANCE, channels[:3].astype(np.float64), axes=1)
    return np.rint(grey).astype(channels.dtype)[np.newaxis] if channels.dtype.kind in "iu" else grey[np.newaxis]


def _is_coloured(channels: Array) -> bool:
    """Return whether red, green and blue of RGB or RGBA (C, ...) differ anywhere."""
    return bool((channels[0] != channels[1]).any() or (channels[0] != channels[2]).any())


def _affine_of(image: sitk.Image) -> Array:
    axes = min(image.GetDimension(), 3)
    direction = np.array(image.GetDirection()).reshape(image.GetDimension(), -1)[:axes, :axes]
    affine = np.eye(4)
    affine[:axes, :axes] = direction * np.array(image.GetSpacing()[:axes])
    affine[:axes, 3] = image.GetOrigin()[:axes]
    if image.GetDimension() == 4 and abs(np.linalg.det(affine[:3, :3])) < 1e-12:
        affine[:3, :3] = np.diag(image.GetSpacing()[:3])
    return _RAS_FROM_LPS @ affine


def _image_of(array: Array, affine_ras: Array) -> sitk.Image:
    """Return a 3D ITK image of (C, D, H, W)."""
    affine = _RAS_FROM_LPS @ np.asarray(affine_ras, dtype=np.float64)
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    # Not supported by ITK: half precision, booleans, the other byte order.
    known: dict[Any, Any] = {np.dtype(np.float16): np.dtype(np.float32), np.dtype(np.bool_): np.dtype(np.uint8)}
    channels = np.ascontiguousarray(array, dtype=known.get(array.dtype, array.dtype.newbyteorder("=")))
    if len(channels) == 1:
        image = sitk.GetImageFromArray(channels[0])
    else:
        image = sitk.GetImageFromArray(np.moveaxis(channels, 0, -1), isVector=True)
    image.SetSpacing(spacing.tolist())
    image.SetOrigin(affine[:3, 3].tolist())
    # ITK writes rotations only; rounding in a header is corrected, a sheared grid becomes its nearest rotation.
    image.SetDirection(_orthonormal(affine[:3, :3] / spacing).ravel().tolist())
    return image


def _orthonormal(directions: Array) -> Array:
    left, _, right = np.linalg.svd(directions)
    rotation = left @ right
    return directions if np.abs(rotation - directions).max() < 1e-6 else rotation


def _write(image: sitk.Image, path: Path) -> None:
    if path.name.lower().endswith(PICTURE_SUFFIXES):
        if image.GetSize()[2] != 1:
            raise InputError(f"cannot write {image.GetSize()[2]} slices to {path.name}: use .nii.gz or .nrrd")
        image = image[:, :, 0]
    with atomic_path(path) as temporary:
        try:
            sitk.WriteImage(image, str(temporary), useCompression=True)
            if path.name.lower().endswith(NIFTI_SUFFIXES):
                read_nifti(temporary)
        except (RuntimeError, InputError) as error:
            raise InputError(
                f"cannot write {path}: unknown format or the disk is full; choose another or free some space"
            ) from error
