"""Labels of a segmentation: value, name, colour and the coded anatomical term."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ..core.errors import InputError
from ..core.json_dataclass import JsonDataclass


@dataclass(frozen=True, kw_only=True)
class Code(JsonDataclass):
    """A coded term: scheme (SCT for SNOMED CT), value and meaning."""

    scheme: str
    value: str
    meaning: str


ANATOMICAL_STRUCTURE = Code(scheme="SCT", value="123037004", meaning="Anatomical Structure")


@dataclass(frozen=True, kw_only=True)
class Label(JsonDataclass):
    """One label value of a labelmap.

    Attributes:
        value: Voxel value, 1 to 65535.
        name: Display name.
        color: Red, green, blue, 0 to 255.
        category: Coded category of the term.
        term: Coded type of the term, or None if no code fits.
        modifier: Coded modifier of the term, such as a side.
    """

    value: int
    name: str
    color: tuple[int, int, int]
    category: Code = ANATOMICAL_STRUCTURE
    term: Code | None = None
    modifier: Code | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "color", tuple(self.color))
        if not 1 <= self.value <= 65535:
            raise InputError(f"label value {self.value} is out of range: give 1 to 65535 (0 is the background)")
        if not self.name.strip():
            raise InputError(f"label {self.value} has no name: enter one")
        if len(self.color) != 3 or not all(0 <= part <= 255 for part in self.color):
            raise InputError(
                f"colour {self.color} of label '{self.name}' is not valid: give three numbers from 0 to 255"
            )

    @property
    def terminology_entry(self) -> str:
        """Terminology entry as Slicer stores it in a segment's tag, or "" if there is no term."""
        if self.term is None:
            return ""
        parts = [f"{c.scheme}^{c.value}^{c.meaning}" if c else "^^" for c in (self.category, self.term, self.modifier)]
        return "~".join(
            [
                "Segmentation category and type - DICOM master list",
                *parts,
                "Anatomic codes - DICOM master list",
                "^^",
                "^^",
            ]
        )


def names_a_side(names: Iterable[str]) -> bool:
    """Return whether a name contains left or right, which would be wrong in a mirrored image."""
    return any(side in name.lower().replace("_", " ").split() for name in names for side in ("left", "right"))


# Distinct, readable in slices and 3D (Okabe and Ito 2008).
PALETTE = ((230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178), (213, 94, 0), (204, 121, 167))
