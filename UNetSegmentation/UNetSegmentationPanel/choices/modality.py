"""The likely modality of a volume, from its DICOM attributes and intensities."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import slicer
from slicer.util import VTKObservationMixin
from vtk import vtkCommand

from UNetSegmentationLib.models.fit import CT_BELOW, lowest_value

from ..scene import scene_exchange
from . import choices


@dataclass(frozen=True, kw_only=True)
class Look:
    """Properties of a volume that indicate its modality.

    Attributes:
        code: DICOM modality code; empty if not loaded from DICOM.
        isFlat: Whether it is a single slice.
        lowest: Smallest finite value in a sample of its voxels; infinity if none is finite.
    """

    code: str
    isFlat: bool
    lowest: float

    def guess(self) -> str:
        """Return the name of the most likely preset."""
        for name, codes in choices.modalitiesByPreset().items():
            if self.code in codes:
                return name
        if self.isFlat:
            return "xray"
        return "ct" if self.lowest < CT_BELOW else "mri"


def lookAt(volumeNode: Any) -> Look:
    """Return the properties of a volume that has voxels."""
    isFlat = volumeNode.GetImageData().GetDimensions()[2] == 1
    return Look(code=codeOf(volumeNode), isFlat=isFlat, lowest=lowest_value(scene_exchange.sampleOf(volumeNode)))


def codeOf(volumeNode: Any) -> str:
    """Return the DICOM modality code of a volume; empty if it was not loaded from DICOM."""
    code = volumeNode.GetAttribute("DICOM.Modality")
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    if not code and hierarchy is not None:
        item = hierarchy.GetItemByDataNode(volumeNode)
        code = hierarchy.GetItemAttribute(item, "DICOM.Modality") if item else ""
    return code or ""


class Watch(VTKObservationMixin):
    """Observes one volume: voxels and DICOM attributes may be set after its node was chosen.

    Args:
        onChanged: Called when the voxels, spacing, transform, DICOM modality or display node of the volume changed.

    Attributes:
        look: Properties of the volume; None if there is no volume or it cannot be segmented.
    """

    def __init__(self, onChanged: Callable[[], None]) -> None:
        super().__init__()
        self._onChanged = onChanged
        self._volumeId: str | None = None
        self._known: tuple[Any, ...] = ()
        self.look: Look | None = None

    def follow(self, volumeNode: Any) -> None:
        """Observe another volume, or none."""
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
        self._known = _attributesOf(volumeNode)

    def _onVoxelsModified(self, _caller: Any, _event: str) -> None:
        self._lookAgain()
        self._onChanged()

    def _onAttributesModified(self, _caller: Any, _event: str) -> None:
        volumeNode = scene_exchange.nodeById(self._volumeId)
        if volumeNode is None or self.look is None:
            return
        if _attributesOf(volumeNode) != self._known:
            self._lookAgain()
            self._onChanged()


def _attributesOf(volumeNode: Any) -> tuple[Any, ...]:
    """Return the attributes of a volume that may be set after its voxels."""
    if volumeNode is None:
        return ()
    return codeOf(volumeNode), volumeNode.GetSpacing(), volumeNode.GetDisplayNodeID()
