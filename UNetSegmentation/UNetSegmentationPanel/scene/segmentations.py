"""Results of the worker as segmentations in the scene, and protection of the user's edits."""

import json
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import slicer
import vtk
from slicer.i18n import tr as _
from vtk.util.numpy_support import get_vtk_array_type, vtk_to_numpy

from UNetSegmentationLib.core.errors import InputError
from UNetSegmentationLib.protocol.segment import SegmentFound, SegmentResult

from . import provenance
from .scene_exchange import SLAB_BYTES, existingVolume, nodeById, voxels
from .undo import FormerContent, clear, fingerprint

PROVENANCE_ATTRIBUTE = "UNetSegmentation.Provenance"
UNTOUCHED_ATTRIBUTE = "UNetSegmentation.Untouched"
BINARY_LABELMAP = "Binary labelmap"
REPLACE, ADD, KEEP = "replace", "add", "keep"


@dataclass(frozen=True, kw_only=True)
class Target:
    """Target segmentation of a result.

    Attributes:
        segmentationId: ID of a segmentation in the scene.
        fingerprint: Fingerprint of its content when it was chosen; later changes are never overwritten.
        mode: REPLACE its segments, ADD to them, or KEEP it hidden and create a new segmentation.
    """

    segmentationId: str
    fingerprint: str
    mode: str


def targetIn(segmentationNode: Any, mode: str) -> Target:
    """Return a segmentation with its current content as the target of a result."""
    return Target(segmentationId=segmentationNode.GetID(), fingerprint=fingerprint(segmentationNode), mode=mode)


@dataclass(frozen=True, kw_only=True)
class Imported:
    """A result in the scene.

    Attributes:
        segmentationId: ID of its segmentation.
        former: Previous content of the segmentation; None for a new one.
    """

    segmentationId: str
    former: FormerContent | None

    @property
    def isNew(self) -> bool:
        return self.former is None


def importSegmentation(
    result: SegmentResult, *, volumeId: str, target: Target | None, channelIds: Sequence[str | None] = ()
) -> Generator[float, None, Imported]:
    """Add a result to the scene as a segmentation, slab by slab; yields the completed fraction.

    A new segmentation is created if there is no target, if it was removed, or if replacing its segments would
    overwrite changes made after it was chosen.

    Raises:
        InputError: The volume was removed or changed its size during the run.
    """
    found = [segment for segment in result.segments if segment.voxels]
    labelmap = result.labelmap.open()
    if tuple(labelmap.shape) != voxels(existingVolume(volumeId)).shape[:3]:
        raise InputError(_("The size of the volume changed during segmentation: press Apply again."))
    image = yield from _croppedImage(labelmap, _unionOfBounds(found))
    volumeNode = existingVolume(volumeId)
    toWorld = vtk.vtkMatrix4x4()
    volumeNode.GetIJKToRASMatrix(toWorld)
    made = _provenance(result, volumeNode, [nodeById(channelId) for channelId in channelIds])
    # The rest is one step: a cancelled job must not leave a partial result or a partly removed previous one.
    slicer.mrmlScene.SaveStateForUndo()
    node, former = _targetNode(target, volumeNode)
    isAdded = former is not None and target.mode == ADD
    image.SetImageToWorldMatrix(_inCoordinatesOf(node, volumeNode, toWorld) if isAdded else toWorld)
    with slicer.util.NodeModify(node):
        if isAdded:
            made["added_to"] = provenanceOf(node) or node.GetName()
        else:
            clear(node)
            node.GetSegmentation().SetSourceRepresentationName(BINARY_LABELMAP)
            _placeOn(node, volumeNode)
        for segment in found:
            _addSegment(node, segment, image)
        node.SetAttribute(PROVENANCE_ATTRIBUTE, json.dumps(made, ensure_ascii=False))
        node.SetDescription(provenance.asText(provenance.linesOf(made, "")))
    if isAdded:
        node.RemoveAttribute(UNTOUCHED_ATTRIBUTE)
    else:
        # Outside the block above, because the display node may assign colours when it ends.
        node.SetAttribute(UNTOUCHED_ATTRIBUTE, fingerprint(node))
    if former is not None:
        former.seal()
    return Imported(segmentationId=node.GetID(), former=former)


def belongsTo(segmentationNode: Any, volumeNode: Any) -> bool:
    """Return whether a segmentation has a volume as its reference geometry."""
    role = segmentationNode.GetReferenceImageGeometryReferenceRole()
    return segmentationNode.GetNodeReferenceID(role) == volumeNode.GetID()


def isReplaceable(segmentationNode: Any, volumeNode: Any) -> bool:
    """Return whether a segmentation is empty or contains only our unchanged result for this volume."""
    if segmentationNode.GetSegmentation().GetNumberOfSegments() == 0:
        return True
    mark = segmentationNode.GetAttribute(UNTOUCHED_ATTRIBUTE)
    return bool(mark) and belongsTo(segmentationNode, volumeNode) and mark == fingerprint(segmentationNode)


def canAdd(segmentationNode: Any) -> bool:
    """Return whether segments can be added to a segmentation without changing existing ones."""
    parent = segmentationNode.GetParentTransformNode()
    isStraight = parent is None or bool(parent.IsTransformToWorldLinear())
    return isStraight and segmentationNode.GetSegmentation().GetSourceRepresentationName() == BINARY_LABELMAP


def provenanceOf(segmentationNode: Any) -> dict[str, Any]:
    """Return the provenance of a segmentation; empty if it was not made by a run."""
    text = segmentationNode.GetAttribute(PROVENANCE_ATTRIBUTE)
    return json.loads(text) if text else {}


def showResult(volumeNode: Any, segmentationNode: Any, *, isNew: bool) -> None:
    """Show a result over its volume; for a new one, slices jump to its centre."""
    if segmentationNode.GetDisplayNode() is not None:
        # A previous result may have been hidden.
        segmentationNode.GetDisplayNode().SetVisibility(True)
    layoutManager = slicer.app.layoutManager()
    if layoutManager is None:
        return
    if volumeNode.GetID() not in _backgroundVolumeIds():
        slicer.util.setSliceViewerLayers(background=volumeNode, fit=True)
    bounds = [0.0] * 6
    segmentationNode.GetRASBounds(bounds)
    if isNew and bounds[0] <= bounds[1]:
        center = [(bounds[2 * axis] + bounds[2 * axis + 1]) / 2 for axis in range(3)]
        slicer.vtkMRMLSliceNode.JumpAllSlices(slicer.mrmlScene, *center, slicer.vtkMRMLSliceNode.CenteredJumpSlice)


def hide(segmentationId: str | None) -> None:
    """Hide a segmentation, if it exists; it stays in the scene unchanged."""
    node = nodeById(segmentationId)
    display = node.GetDisplayNode() if node is not None else None
    if display is not None:
        display.SetVisibility(False)


def _targetNode(target: Target | None, volumeNode: Any) -> tuple[Any, FormerContent | None]:
    """Return the segmentation for a result, and its previous content if it is not new."""
    chosen = nodeById(target.segmentationId) if target is not None else None
    isUnchanged = chosen is not None and fingerprint(chosen) == target.fingerprint
    if chosen is not None and (target.mode == ADD or (target.mode == REPLACE and isUnchanged)):
        if chosen.GetDisplayNode() is None:
            chosen.CreateDefaultDisplayNodes()
        return chosen, FormerContent(chosen)
    name = slicer.mrmlScene.GetUniqueNameByString(f"{volumeNode.GetName()} segmentation")
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", name)
    node.CreateDefaultDisplayNodes()
    return node, None


def _placeOn(segmentationNode: Any, volumeNode: Any) -> None:
    segmentationNode.SetReferenceImageGeometryParameterFromVolumeNode(volumeNode)
    segmentationNode.SetNodeReferenceID(segmentationNode.GetReferenceImageGeometryReferenceRole(), volumeNode.GetID())
    segmentationNode.SetAndObserveTransformNodeID(volumeNode.GetTransformNodeID())


def _inCoordinatesOf(segmentationNode: Any, volumeNode: Any, toVolume: Any) -> Any:
    """Return a matrix to the volume's coordinates as a matrix to those of a segmentation under another transform."""
    between = vtk.vtkMatrix4x4()
    slicer.vtkMRMLTransformNode.GetMatrixTransformBetweenNodes(
        volumeNode.GetParentTransformNode(), segmentationNode.GetParentTransformNode(), between
    )
    seen = vtk.vtkMatrix4x4()
    vtk.vtkMatrix4x4.Multiply4x4(between, toVolume, seen)
    return seen


def _unionOfBounds(found: list[SegmentFound]) -> tuple[tuple[int, int], ...]:
    bounds = np.array([segment.bounds for segment in found])
    lower, upper = bounds[:, :, 0].min(axis=0), bounds[:, :, 1].max(axis=0)
    return tuple((int(first), int(last)) for first, last in zip(lower, upper, strict=True))


def _croppedImage(labelmap: np.ndarray, bounds: tuple[tuple[int, int], ...]) -> Generator[float, None, Any]:
    """Copy a box of the labelmap to a vtkOrientedImageData shared by all segments; yields the completed fraction."""
    (k0, k1), (j0, j1), (i0, i1) = bounds
    image = slicer.vtkOrientedImageData()
    image.SetExtent(i0, i1, j0, j1, k0, k1)
    image.AllocateScalars(get_vtk_array_type(labelmap.dtype), 1)
    target = vtk_to_numpy(image.GetPointData().GetScalars()).reshape(k1 - k0 + 1, j1 - j0 + 1, i1 - i0 + 1)
    source = labelmap[k0 : k1 + 1, j0 : j1 + 1, i0 : i1 + 1]
    step = max(1, SLAB_BYTES // max(1, source[0].nbytes))
    for start in range(0, len(source), step):
        target[start : start + step] = source[start : start + step]
        yield min(1.0, (start + step) / len(source))
    return image


def _addSegment(node: Any, found: SegmentFound, image: Any) -> None:
    label = found.label
    segment = slicer.vtkSegment()
    segment.SetName(label.name)
    segment.SetColor(*(part / 255 for part in label.color))
    segment.SetLabelValue(label.value)
    if label.terminology_entry:
        segment.SetTag(slicer.vtkSegment.GetTerminologyEntryTagName(), label.terminology_entry)
    segment.AddRepresentation(BINARY_LABELMAP, image)
    segmentation = node.GetSegmentation()
    segmentation.AddSegment(segment, segmentation.GenerateUniqueSegmentID(f"Segment_{label.value}"))


def _provenance(result: SegmentResult, volumeNode: Any, channelNodes: Sequence[Any]) -> dict[str, Any]:
    return {
        **result.provenance,
        "volume": volumeNode.GetName(),
        "channel_volumes": [node.GetName() if node is not None else None for node in channelNodes],
        "duration_s": result.duration_s,
        "date": datetime.now().astimezone().isoformat(sep=" ", timespec="seconds"),
        "warnings": list(result.warnings),
    }


def _backgroundVolumeIds() -> set[str]:
    nodes = slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode")
    return {node.GetBackgroundVolumeID() for node in nodes}
