"""What ITK does not tell of a NIfTI-1 file: whether it is whole, and the matrix in its header (nifti1.h)."""

from __future__ import annotations

import gzip
import struct
import zlib
from math import prod
from pathlib import Path

import numpy as np

from .errors import InputError
from .geometry import Array

_SIZE = 348
_GZIP_MAGIC = b"\x1f\x8b"


def read_nifti_header(path: Path) -> bytes:
    """Return the header of a NIfTI-1 file that is whole; empty where the file is of another kind.

    Raises:
        InputError: The file is cut off; ITK reads and writes such files without a word.
    """
    try:
        with path.open("rb") as file:
            is_packed = file.read(2) == _GZIP_MAGIC
        with gzip.open(path) if is_packed else path.open("rb") as file:
            header = file.read(_SIZE)
            found = len(header)
            while block := file.read(2**22):
                found += len(block)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise InputError(f"{path} is damaged or cut off ({error}): copy or export it again") from error
    if not _is_nifti(header):
        return b""
    order = _byte_order(header)
    count, *sizes = struct.unpack(order + "8h", header[40:56])
    bits = struct.unpack(order + "h", header[72:74])[0]
    start = struct.unpack(order + "f", header[108:112])[0]
    wanted = int(np.nan_to_num(start)) + prod(sizes[:count]) * bits // 8
    if found < wanted:
        raise InputError(f"{path} is cut off ({found} of {wanted} bytes): copy or export it again")
    return header


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
