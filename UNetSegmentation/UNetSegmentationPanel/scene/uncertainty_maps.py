"""Probability and uncertainty maps of a result."""

from collections.abc import Generator
from typing import Any

import numpy as np
import slicer
import vtk
from slicer.i18n import tr as _
from vtk.util.numpy_support import vtk_to_numpy

from UNetSegmentationLib.protocol.segment import SegmentResult

from .scene_exchange import MAP_ATTRIBUTE, SLAB_BYTES, nodeById

UNCERTAINTY_ROLE = "UNetSegmentation.uncertainty"
PROBABILITY_ROLE = "UNetSegmentation.probability"
MOST_UNCERTAIN_ATTRIBUTE = "UNetSegmentation.MostUncertain"
OVERLAY_OPACITY = 0.5


def importMaps(result: SegmentResult, *, segmentationId: str, volumeId: str) -> Generator[float, None, None]:
    """Add the probability and uncertainty maps of a result to the scene, slab by slab; yields the completed fraction.

    Previous maps of the segmentation are removed.
    """
    segmentation = nodeById(segmentationId)
    if segmentation is None:
        return
    removeMaps(segmentation)
    maps = []
    if result.uncertainty is not None:
        maps.append((_("uncertainty"), UNCERTAINTY_ROLE, result.uncertainty.open()))
    if result.probabilities is not None:
        probabilities = result.probabilities.open()
        for index, found in enumerate(result.segments, start=1):
            if found.voxels:
                name = _("probability of {name}").format(name=found.label.name)
                maps.append((name, PROBABILITY_ROLE, probabilities[index]))
    for number, (name, role, array) in enumerate(maps):
        image = yield from _image(array, start=number / len(maps), share=1 / len(maps))
        segmentation, volume = nodeById(segmentationId), nodeById(volumeId)
        if segmentation is None or volume is None:
            return
        node = _add(image, volume, name)
        segmentation.AddNodeReferenceID(role, node.GetID())
        if role == UNCERTAINTY_ROLE:
            node.SetAttribute(MOST_UNCERTAIN_ATTRIBUTE, " ".join(map(str, result.most_uncertain)))


def removeMaps(segmentationNode: Any) -> None:
    """Remove the maps of a result from the scene."""
    for role in (UNCERTAINTY_ROLE, PROBABILITY_ROLE):
        ids = [
            segmentationNode.GetNthNodeReferenceID(role, index)
            for index in range(segmentationNode.GetNumberOfNodeReferences(role))
        ]
        segmentationNode.RemoveNodeReferenceIDs(role)
        for node in filter(None, map(nodeById, ids)):
            slicer.mrmlScene.RemoveNode(node)


def uncertaintyOf(segmentationNode: Any) -> Any:
    """Return the uncertainty map of a result, or None."""
    return segmentationNode.GetNodeReference(UNCERTAINTY_ROLE) if segmentationNode is not None else None


def goToMostUncertain(uncertaintyNode: Any) -> None:
    """Move each slice view to the most uncertain slice along its axis."""
    index = [int(part) for part in uncertaintyNode.GetAttribute(MOST_UNCERTAIN_ATTRIBUTE).split()]
    toWorld = vtk.vtkMatrix4x4()
    uncertaintyNode.GetIJKToRASMatrix(toWorld)
    point = toWorld.MultiplyPoint((*index[::-1], 1.0))[:3]
    world = [0.0, 0.0, 0.0]
    uncertaintyNode.TransformPointToWorld(point, world)
    slicer.vtkMRMLSliceNode.JumpAllSlices(slicer.mrmlScene, *world, slicer.vtkMRMLSliceNode.CenteredJumpSlice)


def isOverlaid(uncertaintyNode: Any) -> bool:
    """Return whether a slice view shows the uncertainty map over its image."""
    nodes = slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode")
    return any(node.GetForegroundVolumeID() == uncertaintyNode.GetID() for node in nodes)


def overlay(uncertaintyNode: Any, isShown: bool) -> None:
    """Show or hide the uncertainty map over the image in all slice views."""
    for node in slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode"):
        if isShown:
            node.SetForegroundVolumeID(uncertaintyNode.GetID())
            node.SetForegroundOpacity(OVERLAY_OPACITY)
        elif node.GetForegroundVolumeID() == uncertaintyNode.GetID():
            node.SetForegroundVolumeID(None)


def _image(array: np.ndarray, *, start: float, share: float) -> Generator[float, None, Any]:
    """Copy (D, H, W) to a single-precision vtkImageData, the smallest float type that VTK supports."""
    image = vtk.vtkImageData()
    image.SetDimensions(*array.shape[::-1])
    image.AllocateScalars(vtk.VTK_FLOAT, 1)
    target = vtk_to_numpy(image.GetPointData().GetScalars()).reshape(array.shape)
    step = max(1, SLAB_BYTES // max(1, target[0].nbytes))
    for first in range(0, len(array), step):
        target[first : first + step] = array[first : first + step]
        yield start + share * min(1.0, (first + step) / len(array))
    return image


def _add(image: Any, volumeNode: Any, name: str) -> Any:
    node = slicer.vtkMRMLScalarVolumeNode()
    name = f"{volumeNode.GetName()} {name}"
    isTaken = slicer.mrmlScene.GetFirstNodeByName(name) is not None
    node.SetName(slicer.mrmlScene.GetUniqueNameByString(name) if isTaken else name)
    # Set before the node is added to the scene: the panel does not offer maps as input.
    node.SetAttribute(MAP_ATTRIBUTE, "1")
    toLocal = vtk.vtkMatrix4x4()
    volumeNode.GetIJKToRASMatrix(toLocal)
    node.SetIJKToRASMatrix(toLocal)
    node.SetAndObserveTransformNodeID(volumeNode.GetTransformNodeID())
    slicer.mrmlScene.AddNode(node)
    display = slicer.vtkMRMLScalarVolumeDisplayNode()
    # Automatic window and level takes a second for a large volume.
    display.SetAutoWindowLevel(False)
    display.SetWindowLevel(1.0, 0.5)
    display.SetAndObserveColorNodeID("vtkMRMLColorTableNodeIron")
    # Certain voxels are transparent in an overlay.
    display.SetLowerThreshold(0.05)
    display.SetUpperThreshold(1.0)
    display.SetApplyThreshold(True)
    slicer.mrmlScene.AddNode(display)
    node.SetAndObserveDisplayNodeID(display.GetID())
    node.SetAndObserveImageData(image)
    return node
