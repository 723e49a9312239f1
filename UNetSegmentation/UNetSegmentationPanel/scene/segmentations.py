"""Results of the worker as segmentations of the scene, and what of the user's they may take the place of."""

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
from .scene_exchange import SLAB_BYTES, nodeById, presentVolume, voxels
from .undo import FormerContent, clear, fingerprint

PROVENANCE_ATTRIBUTE = "UNetSegmentation.Provenance"
UNTOUCHED_ATTRIBUTE = "UNetSegmentation.Untouched"
BINARY_LABELMAP = "Binary labelmap"
REPLACE, ADD, BESIDE = "replace", "add", "beside"


@dataclass(frozen=True, kw_only=True)
class Target:
    """Where a result goes.

    Attributes:
        segmentationId: ID of a segmentation of the scene.
        fingerprint: Of its content at the time when it was chosen: what was changed since is not given up.
        mode: REPLACE its segments, ADD to them, or leave it alone and hide it for a new one BESIDE it.
    """

    segmentationId: str
    fingerprint: str
    mode: str


def targetIn(segmentationNode: Any, mode: str) -> Target:
    """Return a segmentation as it is now as the target of a result."""
    return Target(segmentationId=segmentationNode.GetID(), fingerprint=fingerprint(segmentationNode), mode=mode)


@dataclass(frozen=True, kw_only=True)
class Imported:
    """A result that is in the scene.

    Attributes:
        segmentationId: ID of its segmentation.
        former: What that held before; None for a new one.
    """

    segmentationId: str
    former: FormerContent | None

    @property
    def isNew(self) -> bool:
        return self.former is None


def importSegmentation(
    result: SegmentResult, *, volumeId: str, target: Target | None, channelIds: Sequence[str | None] = ()
) -> Generator[float, None, Imported]:
    """Put a result into the scene as a segmentation, slab by slab; yields the fraction done.

    It goes to a new segmentation where there is no target or that is gone, and where it would replace what was changed
    since the target was chosen.

    Raises:
        InputError: The volume vanished or changed its size while the job ran.
    """
    found = [segment for segment in result.segments if segment.voxels]
    labelmap = result.labelmap.open()
    if tuple(labelmap.shape) != voxels(presentVolume(volumeId)).shape[:3]:
        raise InputError(_("The volume changed its size while it was segmented: press Apply again."))
    image = yield from _croppedImage(labelmap, _unionOfBounds(found))
    volumeNode = presentVolume(volumeId)
    toWorld = vtk.vtkMatrix4x4()
    volumeNode.GetIJKToRASMatrix(toWorld)
    made = _provenance(result, volumeNode, [nodeById(channelId) for channelId in channelIds])
    # From here on in one step: a cancelled job must not leave half a result, nor half of the one before it.
    slicer.mrmlScene.SaveStateForUndo()
    node, former = _targetNode(target, volumeNode)
    isAdded = former is not None and target.mode == ADD
    image.SetImageToWorldMatrix(_asSeenFrom(node, volumeNode, toWorld) if isAdded else toWorld)
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
        # Outside the block above: the display node may choose colours at its end.
        node.SetAttribute(UNTOUCHED_ATTRIBUTE, fingerprint(node))
    if former is not None:
        former.seal()
    return Imported(segmentationId=node.GetID(), former=former)


def belongsTo(segmentationNode: Any, volumeNode: Any) -> bool:
    """Tell whether a segmentation was made on a volume."""
    role = segmentationNode.GetReferenceImageGeometryReferenceRole()
    return segmentationNode.GetNodeReferenceID(role) == volumeNode.GetID()


def isFree(segmentationNode: Any, volumeNode: Any) -> bool:
    """Tell whether a segmentation holds nothing, or nothing but our result for this volume as we left it."""
    if segmentationNode.GetSegmentation().GetNumberOfSegments() == 0:
        return True
    mark = segmentationNode.GetAttribute(UNTOUCHED_ATTRIBUTE)
    return bool(mark) and belongsTo(segmentationNode, volumeNode) and mark == fingerprint(segmentationNode)


def canAdd(segmentationNode: Any) -> bool:
    """Tell whether segments can be added to a segmentation without a change of those that are there."""
    parent = segmentationNode.GetParentTransformNode()
    isStraight = parent is None or bool(parent.IsTransformToWorldLinear())
    return isStraight and segmentationNode.GetSegmentation().GetSourceRepresentationName() == BINARY_LABELMAP


def provenanceOf(segmentationNode: Any) -> dict[str, Any]:
    """Return how a segmentation was made; empty when it is not one of ours."""
    text = segmentationNode.GetAttribute(PROVENANCE_ATTRIBUTE)
    return json.loads(text) if text else {}


def showResult(volumeNode: Any, segmentationNode: Any, *, isNew: bool) -> None:
    """Show a result over its volume; the first time, slices go to its centre."""
    if segmentationNode.GetDisplayNode() is not None:
        # An older result may have been hidden since.
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
    """Stop showing a segmentation, where there is one; it stays in the scene as it is."""
    node = nodeById(segmentationId)
    display = node.GetDisplayNode() if node is not None else None
    if display is not None:
        display.SetVisibility(False)


def _targetNode(target: Target | None, volumeNode: Any) -> tuple[Any, FormerContent | None]:
    """Return the segmentation for a result, and what it held before where it is not new."""
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


def _asSeenFrom(segmentationNode: Any, volumeNode: Any, toVolume: Any) -> Any:
    """Return a matrix to the volume's coordinates as one to those of a segmentation under another transform."""
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
    """Copy a box of the labelmap to the vtkOrientedImageData that all segments share; yields the fraction done."""
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
