"""Voxel arrays exchanged in memory-mapped files instead of the pipe."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..core.errors import InputError
from ..core.json_dataclass import JsonDataclass


@dataclass(frozen=True, kw_only=True)
class ArrayFile(JsonDataclass):
    """A C-contiguous array in a raw file that both processes map into memory.

    Attributes:
        path: The file.
        dtype: numpy name of the voxel type, little endian.
        shape: Sizes, slowest axis first.
    """

    path: str
    dtype: str
    shape: tuple[int, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", tuple(int(extent) for extent in self.shape))
        if min(self.shape, default=0) < 1:
            raise InputError(f"array of shape {self.shape} is empty: every size must be at least 1")
        if np.dtype(self.dtype).kind not in "iufb":
            raise InputError(f"array type '{self.dtype}' is not a number: use an integer or floating-point type")

    def open(self, mode: str = "r") -> np.memmap[Any, Any]:
        """Map the file: "r" reads, "w+" creates.

        Raises:
            InputError: The file is missing or too short for the shape.
        """
        if mode == "r":
            expected = int(np.prod(self.shape, dtype=np.int64)) * np.dtype(self.dtype).itemsize
            found = Path(self.path).stat().st_size if Path(self.path).is_file() else -1
            if found != expected:
                raise InputError(f"array file {self.path} has {found} bytes, but {expected} are needed: write it again")
        return np.memmap(self.path, dtype=self.dtype, mode=mode, shape=self.shape)  # type: ignore[call-overload,no-any-return]


@dataclass(frozen=True, kw_only=True)
class ChannelFile(JsonDataclass):
    """A channel with its own grid.

    Attributes:
        volume: Voxels (1, D, H, W).
        affine_ras: 4x4 from voxel index (x, y, z) to RAS millimetres.
    """

    volume: ArrayFile
    affine_ras: tuple[tuple[float, ...], ...]
