"""What kind of image a volume looks like, from what DICOM says of it and from its values."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import slicer
from slicer.util import VTKObservationMixin
from vtk import vtkCommand

from UNetSegmentationLib.modalities import CT_BELOW, lowest_value

from . import choices, scene_exchange

SAMPLE_VOXELS = 500_000


@dataclass(frozen=True, kw_only=True)
class Look:
    """What a volume with voxels shows of its kind.

    Attributes:
        code: DICOM modality code; empty when it did not come from DICOM.
        isFlat: Whether it is a single slice.
        lowest: Smallest finite value of a sample of its voxels; infinity where none is finite.
    """

    code: str
    isFlat: bool
    lowest: float

    def guess(self) -> str:
        """Return the name of the preset that the volume most likely needs."""
        for name, codes in choices.modalitiesByPreset().items():
            if self.code in codes:
                return name
        if self.isFlat:
            return "xray"
        return "ct" if self.lowest < CT_BELOW else "mri"


def lookAt(volumeNode: Any) -> Look:
    """Look at a volume that has voxels."""
    array = scene_exchange.voxels(volumeNode)
    # The exact minimum of 512³ voxels would take longer than a person should wait for a menu.
    step = max(1, round((array.size / SAMPLE_VOXELS) ** (1 / 3)))
    sample = array[::step, ::step, ::step]
    return Look(code=codeOf(volumeNode), isFlat=array.shape[0] == 1, lowest=lowest_value(sample))


def codeOf(volumeNode: Any) -> str:
    """Return the DICOM modality code of a volume; empty when it did not come from DICOM."""
    code = volumeNode.GetAttribute("DICOM.Modality")
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    if not code and hierarchy is not None:
        item = hierarchy.GetItemByDataNode(volumeNode)
        code = hierarchy.GetItemAttribute(item, "DICOM.Modality") if item else ""
    return code or ""


class Watch(VTKObservationMixin):
    """Follows one volume: a node may be chosen before its voxels are there, and those before what DICOM says.

    Args:
        onChanged: Called when the voxels, their size, the place or the DICOM modality of the volume changed.

    Attributes:
        look: What the volume shows; None while there is no volume or none that can be segmented.
    """

    def __init__(self, onChanged: Callable[[], None]) -> None:
        super().__init__()
        self._onChanged = onChanged
        self._volumeId: str | None = None
        self._spacing: tuple[float, ...] = ()
        self.look: Look | None = None

    def follow(self, volumeNode: Any) -> None:
        """Follow another volume, or none."""
        self.removeObservers()
        self._volumeId = volumeNode.GetID() if volumeNode is not None else None
        self._lookAgain()
        if volumeNode is None:
            return
        self.addObserver(volumeNode, volumeNode.ImageDataModifiedEvent, self._onVoxelsModified)
        self.addObserver(volumeNode, volumeNode.TransformModifiedEvent, self._onVoxelsModified)
        self.addObserver(volumeNode, vtkCommand.ModifiedEvent, self._onAttributesModified)
        hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
        if hierarchy is not None:
            self.addObserver(hierarchy, hierarchy.SubjectHierarchyItemModifiedEvent, self._onAttributesModified)

    def _lookAgain(self) -> None:
        volumeNode = scene_exchange.nodeById(self._volumeId)
        isUsable = volumeNode is not None and not scene_exchange.whyUnusable(volumeNode)
        self.look = lookAt(volumeNode) if isUsable else None
        self._spacing = volumeNode.GetSpacing() if volumeNode is not None else ()

    def _onVoxelsModified(self, _caller: Any, _event: str) -> None:
        self._lookAgain()
        self._onChanged()

    def _onAttributesModified(self, _caller: Any, _event: str) -> None:
        volumeNode = scene_exchange.nodeById(self._volumeId)
        if volumeNode is None or self.look is None:
            return
        if codeOf(volumeNode) != self.look.code or volumeNode.GetSpacing() != self._spacing:
            self._lookAgain()
            self._onChanged()
