"""Read a NIfTI-1 file with nibabel: ITK silently accepts truncated files, and reads NaN as 0."""

from __future__ import annotations

import gzip
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..core.errors import InputError
from .geometry import Array

_BLOCK = 2**22
_GZIP_MAGIC = b"\x1f\x8b"
_SIZE = 348
# Codes of metres and micrometres (nifti1.h); any other is read as millimetres.
_MILLIMETRES = {1: 1000.0, 3: 0.001}


@dataclass(frozen=True, kw_only=True)
class NiftiFile:
    """Content of a NIfTI-1 file.

    Attributes:
        stored: Voxels as they are stored, last axis of the file first: (D, H, W), or (T, D, H, W).
        slope: Factor that turns them into values, or None if they are the values.
        offset: Added after scaling.
        affine_ras: The 4x4 matrix from voxel index (x, y, z) to RAS millimetres (sform), or None.
    """

    stored: Array
    slope: float | None
    offset: float
    affine_ras: Array | None

    def values_as(self, dtype: np.dtype[Any]) -> Array:
        """Return the voxel values as a data type; infinite values become NaN."""
        values = self.stored.astype(dtype, copy=False)
        if self.slope is not None:
            values = np.empty_like(self.stored, dtype=dtype)
            for index, part in enumerate(
                self.stored
            ):  # in double precision like ITK, but slice by slice to save memory
                values[index] = part.astype(np.float64) * self.slope + self.offset
        if values.dtype.kind == "f" and not (is_finite := np.isfinite(values)).all():
            values[~is_finite] = np.nan
        return values


def read_nifti(path: Path) -> NiftiFile | None:
    """Return the content of a NIfTI-1 file, decompressed once, or None for other formats.

    Raises:
        InputError: The file is damaged or truncated.
    """
    try:
        with path.open("rb") as file:
            is_packed = file.read(2) == _GZIP_MAGIC
        with gzip.open(path) if is_packed else path.open("rb") as file:
            found = _read(file)
            while file.read(_BLOCK):  # the checksum comes last
                pass
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise InputError(f"{path} is damaged or truncated ({error}): copy or export it again") from error
    except _TruncatedError as error:
        raise InputError(f"{path} is truncated: copy or export it again") from error
    return found


class _TruncatedError(Exception):
    """There are fewer voxels than the header says."""


def _read(file: Any) -> NiftiFile | None:
    from nibabel.spatialimages import HeaderDataError
    from nibabel.volumeutils import array_from_file

    header = _read_header(file)
    if header is None:
        return None
    try:
        kind, shape, (slope, offset) = header.get_data_dtype(), header.get_data_shape(), header.get_slope_inter()
    except HeaderDataError:
        return None
    if kind.kind not in "iuf":  # neither real nor whole numbers
        return None
    try:
        # Not mapped into memory: the file may be replaced while its voxels are in use.
        stored = array_from_file(shape, kind, file, offset=header.get_data_offset(), mmap=False)
    except OSError as error:
        raise _TruncatedError from error
    matrix, _ = header.get_sform(coded=True)
    if matrix is not None:
        matrix[:3] *= _MILLIMETRES.get(int(header["xyzt_units"]) & 7, 1.0)
    is_scaled = slope is not None and (slope, offset) != (1.0, 0.0)
    return NiftiFile(stored=stored.T, slope=slope if is_scaled else None, offset=offset or 0.0, affine_ras=matrix)


def _read_header(file: Any) -> Any:
    from nibabel import Nifti1Header

    block = file.read(_SIZE)
    for order in "<>":
        if block[:4] == struct.pack(order + "i", _SIZE):
            if len(block) < _SIZE:
                raise _TruncatedError
            # Unchecked: ITK has already read the header, and is more lenient.
            return Nifti1Header(block, endianness=order, check=False)
    return None
