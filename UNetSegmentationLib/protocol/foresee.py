"""Check whether a segmentation would fit into memory: request and result."""

from __future__ import annotations

from dataclasses import dataclass

from .message import Message


@dataclass(frozen=True, kw_only=True)
class ForeseeRequest(Message):
    """Check whether a segmentation would fit into memory; no voxels are needed.

    Attributes:
        model: Model folder.
        shape: Sizes (C, D, H, W) of the volume with all channels on its grid.
        affine_ras: 4x4 from voxel index (x, y, z) to RAS millimetres.
        device: "auto", "cpu", "cuda" or "mps".
        tta: Average over mirrored copies.
        with_probabilities: Uncertainty or probability maps are requested.
        region_to_ras: As in SegmentRequest.
    """

    model: str
    shape: tuple[int, int, int, int]
    affine_ras: tuple[tuple[float, ...], ...]
    device: str = "auto"
    tta: bool = False
    with_probabilities: bool = False
    region_to_ras: tuple[tuple[float, ...], ...] | None = None


@dataclass(frozen=True, kw_only=True)
class ForeseeResult(Message):
    """Whether a segmentation would fit.

    Attributes:
        warning: A sentence if the segmentation would be refused or changed for lack of memory, else "".
    """

    warning: str
