"""Whether a segmentation would fit into memory: what the panel asks, and the worker's answer."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from ..core.errors import InputError
from .arrays import rows_of


@dataclass(frozen=True, kw_only=True)
class ForeseeRequest:
    """Tell whether a segmentation would fit into memory; no voxels are needed for that.

    Attributes:
        model: Model folder.
        shape: Sizes (C, D, H, W) of the volume with all channels on its grid.
        affine_ras: 4x4 from voxel index (x, y, z) to RAS millimetres.
        device: "auto", "cpu", "cuda" or "mps".
        tta: Average over mirrored copies.
        with_probabilities: Uncertainty or probabilities are wanted.
        region_to_ras: As of SegmentRequest.
    """

    model: str
    shape: tuple[int, int, int, int]
    affine_ras: tuple[tuple[float, ...], ...]
    device: str = "auto"
    tta: bool = False
    with_probabilities: bool = False
    region_to_ras: tuple[tuple[float, ...], ...] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> ForeseeRequest:
        """Return the request of a JSON object.

        Raises:
            InputError: It cannot be understood.
        """
        try:
            channels, depth, height, width = map(int, values["shape"])
            region = values.get("region_to_ras")
            return cls(
                model=str(values["model"]),
                shape=(channels, depth, height, width),
                affine_ras=rows_of(values["affine_ras"]),
                device=str(values.get("device", "auto")),
                tta=bool(values.get("tta")),
                with_probabilities=bool(values.get("with_probabilities")),
                region_to_ras=None if region is None else rows_of(region),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"the foresee request cannot be understood ({error!r}): send all its fields") from error


@dataclass(frozen=True, kw_only=True)
class ForeseeResult:
    """Whether a segmentation would fit.

    Attributes:
        doubt: What to know before it begins, as a sentence: why it would be refused, or what would be done for want of
            memory; empty where all is well.
    """

    doubt: str

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> ForeseeResult:
        """Return the result of a JSON object."""
        return cls(doubt=str(values["doubt"]))
