"""What ITK does not tell of a NIfTI-1 file: whether it is whole, its matrix, and where it is NaN (nifti1.h)."""

from __future__ import annotations

import gzip
import struct
import zlib
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np

from ..core.errors import InputError
from .geometry import Array

_SIZE = 348
_BLOCK = 2**22
_GZIP_MAGIC = b"\x1f\x8b"


@dataclass(frozen=True, kw_only=True)
class NiftiFile:
    """What a NIfTI-1 file holds beside its voxels.

    Attributes:
        header: Its 348 bytes; empty where the file is of another kind.
        gaps: Positions, in the order of the file, of voxels that are NaN or infinite.
    """

    header: bytes
    gaps: Array


def read_nifti(path: Path) -> NiftiFile:
    """Return the header of a NIfTI-1 file that is whole, and where its voxels are no numbers.

    Raises:
        InputError: The file is cut off; ITK reads and writes such files without a word.
    """
    gaps: list[Array] = []
    try:
        with path.open("rb") as file:
            is_packed = file.read(2) == _GZIP_MAGIC
        with gzip.open(path) if is_packed else path.open("rb") as file:
            header = file.read(_SIZE)
            start, wanted, kind = _layout(header)
            found = len(header) + len(file.read(max(0, start - _SIZE)))
            while block := file.read(_BLOCK):
                if kind:
                    values = np.frombuffer(block, dtype=kind, count=len(block) // np.dtype(kind).itemsize)
                    gaps.append(np.flatnonzero(~np.isfinite(values)) + (found - start) // values.itemsize)
                found += len(block)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise InputError(f"{path} is damaged or cut off ({error}): copy or export it again") from error
    if found < wanted:
        raise InputError(f"{path} is cut off ({found} of {wanted} bytes): copy or export it again")
    positions = np.concatenate(gaps) if gaps else np.zeros(0, dtype=np.int64)
    return NiftiFile(header=header if wanted else b"", gaps=positions[positions < _count_of(header)])


def _layout(header: bytes) -> tuple[int, int, str]:
    """Return where the voxels start, how long the file must be and the type of real voxels; 0, 0 and "" elsewhere."""
    if not _is_nifti(header):
        return 0, 0, ""
    order = _byte_order(header)
    kind, bits = struct.unpack(order + "2h", header[70:74])
    start = int(np.nan_to_num(struct.unpack(order + "f", header[108:112])[0]))
    types = {16: "f4", 64: "f8"}
    return start, start + _count_of(header) * bits // 8, order + types[kind] if kind in types else ""


def _count_of(header: bytes) -> int:
    """Return the number of voxels; 0 where the file is of another kind."""
    if not _is_nifti(header):
        return 0
    count, *sizes = struct.unpack(_byte_order(header) + "8h", header[40:56])
    return prod(sizes[:count])


def nifti_affine(header: bytes) -> Array | None:
    """Return the 4x4 matrix from voxel index (x, y, z) to RAS millimetres (sform); None where the header has none."""
    if not _is_nifti(header) or struct.unpack(_byte_order(header) + "h", header[254:256])[0] <= 0:
        return None
    rows = np.frombuffer(header, dtype=_byte_order(header) + "f4", count=12, offset=280).reshape(3, 4)
    return np.vstack([rows.astype(np.float64), (0.0, 0.0, 0.0, 1.0)])


def _is_nifti(header: bytes) -> bool:
    return len(header) == _SIZE and struct.unpack(_byte_order(header) + "i", header[:4])[0] == _SIZE


def _byte_order(header: bytes) -> str:
    return "<" if header[:4] == struct.pack("<i", _SIZE) else ">"
