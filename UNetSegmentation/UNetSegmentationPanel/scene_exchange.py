"""Nodes to arrays and back; the only place where RAS, IJK and KJI are converted.

Long work comes as generators for steps.Steps: each step moves a few megabytes and returns within milliseconds.
"""

import json
import uuid
from collections.abc import Generator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import slicer
import vtk
from slicer.i18n import tr as _
from vtk.util.numpy_support import get_vtk_array_type, vtk_to_numpy

from UNetSegmentationLib.errors import InputError
from UNetSegmentationLib.geometry import Volume, crop_to_region
from UNetSegmentationLib.protocol import ArrayFile, SegmentFound, SegmentResult

from . import provenance

SLAB_BYTES = 4 * 2**20
SAMPLE_VOXELS = 500_000

# As in the form's selector.
NOT_INPUT = ("vtkMRMLLabelMapVolumeNode", "vtkMRMLDiffusionWeightedVolumeNode")
# Handles of a new region lie inside the volume, where they can be reached.
NEW_REGION_SHARE = 0.7

PROVENANCE_ATTRIBUTE = "UNetSegmentation.Provenance"
UNTOUCHED_ATTRIBUTE = "UNetSegmentation.Untouched"
BINARY_LABELMAP = "Binary labelmap"
# Modification times start anew in every session, so that a stored one is only worth something together with this.
_SESSION = uuid.uuid4().hex


def nodeById(nodeId: str | None) -> Any:
    """Return the node of the scene with an ID, or None when it is gone."""
    return slicer.mrmlScene.GetNodeByID(nodeId) if nodeId else None


def isInput(node: Any) -> bool:
    """Tell whether a node is a volume that the panel offers."""
    isVolume = node is not None and node.IsA("vtkMRMLScalarVolumeNode") and not node.GetHideFromEditors()
    return isVolume and not any(node.IsA(name) for name in NOT_INPUT)


def inputVolumes() -> list[Any]:
    """Return the volumes of the scene that the panel offers."""
    return [node for node in slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode") if isInput(node)]


def whyUnusable(volumeNode: Any) -> str:
    """Return why a volume cannot be segmented, in one sentence; empty when nothing speaks against it.

    Looks at the header alone; voxels are checked by the worker, which fills gaps (NaN) and warns of them.
    """
    image = volumeNode.GetImageData()
    scalars = image.GetPointData().GetScalars() if image is not None else None
    # While voxels are exchanged, their number and the dimensions may disagree.
    if scalars is None or not 0 < scalars.GetNumberOfTuples() == image.GetNumberOfPoints():
        return _("The volume is empty: choose one that has voxels.")
    components = image.GetNumberOfScalarComponents()
    if components != 1 and not (components in (3, 4) and image.GetDimensions()[2] == 1):
        return _("The volume has {count} values per voxel: choose one with a single value.").format(count=components)
    parent = volumeNode.GetParentTransformNode()
    if parent is not None and not parent.IsTransformToWorldLinear():
        return _("The volume is under a non-linear transform: harden the transform first (Transforms module).")
    matrix = np.array(worldAffine(volumeNode))
    if not np.isfinite(matrix).all() or abs(np.linalg.det(matrix)) < 1e-9:
        return _("The volume's axes are degenerate: correct its spacing and directions (Volumes module).")
    return ""


def worldAffine(volumeNode: Any) -> tuple[tuple[float, ...], ...]:
    """Return the 4x4 from voxel index (i, j, k) to world RAS millimetres, through linear parent transforms."""
    affine = vtk.vtkMatrix4x4()
    volumeNode.GetIJKToRASMatrix(affine)
    return _inWorld(volumeNode, affine)


def _inWorld(node: Any, matrix: Any) -> tuple[tuple[float, ...], ...]:
    """Return a matrix to the coordinates of a node as one to the world, through linear parent transforms."""
    parent = node.GetParentTransformNode()
    if parent is not None:
        toWorld = vtk.vtkMatrix4x4()
        parent.GetMatrixTransformToWorld(toWorld)
        vtk.vtkMatrix4x4.Multiply4x4(toWorld, matrix, matrix)
    return tuple(tuple(matrix.GetElement(row, column) for column in range(4)) for row in range(4))


def regionToWorld(regionNode: Any) -> tuple[tuple[float, ...], ...]:
    """Return the 4x4 that maps the cube from -1 to 1 onto a markups ROI in the world, oblique ones included."""
    matrix = vtk.vtkMatrix4x4()
    matrix.DeepCopy(regionNode.GetObjectToNodeMatrix())
    size = regionNode.GetSize()
    for row in range(3):
        for column in range(3):
            matrix.SetElement(row, column, matrix.GetElement(row, column) * size[column] / 2)
    return _inWorld(regionNode, matrix)


def whyRegionUnusable(regionNode: Any, volumeNode: Any) -> str:
    """Return why a run cannot be limited to a region, in one sentence; empty when it can."""
    parent = regionNode.GetParentTransformNode()
    if parent is not None and not parent.IsTransformToWorldLinear():
        return _("The region is under a non-linear transform: take it out (Transforms module).")
    region = np.array(regionToWorld(regionNode))
    if not np.isfinite(region).all() or abs(np.linalg.det(region[:3, :3])) < 1e-9:
        return _("The region has no size yet: draw it, or choose another one.")
    shape = tuple(reversed(volumeNode.GetImageData().GetDimensions()))
    try:
        crop_to_region(Volume(np.broadcast_to(np.uint8(0), (1, *shape)), np.array(worldAffine(volumeNode))), region)
    except InputError:
        return _("The region lies outside the volume: move it there.")
    return ""


def fitRegion(regionNode: Any, volumeNode: Any) -> None:
    """Place a region in the middle of a volume, along its axes."""
    affine = np.array(worldAffine(volumeNode))
    dimensions = np.array(volumeNode.GetImageData().GetDimensions())
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    axes = affine[:3, :3] / spacing
    if np.linalg.det(axes) < 0:
        axes[:, 0] *= -1
    centre = affine @ (*((dimensions - 1) / 2), 1.0)
    matrix = vtk.vtkMatrix4x4()
    for row in range(3):
        for column in range(3):
            matrix.SetElement(row, column, axes[row, column])
        matrix.SetElement(row, 3, centre[row])
    regionNode.SetAndObserveObjectToNodeMatrix(matrix)
    # A single slice keeps its whole thickness.
    shares = np.where(dimensions == 1, 1.0, NEW_REGION_SHARE)
    regionNode.SetSize(*(dimensions * spacing * shares))


def voxels(volumeNode: Any) -> np.ndarray:
    """Return the voxels (D, H, W), or (D, H, W, components), in place."""
    image = volumeNode.GetImageData()
    array = vtk_to_numpy(image.GetPointData().GetScalars())
    shape = tuple(reversed(image.GetDimensions()))
    components = image.GetNumberOfScalarComponents()
    return array.reshape(shape if components == 1 else (*shape, components))


def sampleOf(volumeNode: Any) -> np.ndarray:
    """Return every n-th voxel along each axis: the exact extremes of 512³ voxels would hold up a menu."""
    array = voxels(volumeNode)
    step = max(1, round((array.size / SAMPLE_VOXELS) ** (1 / 3)))
    return array[::step, ::step, ::step]


def exportVolume(volumeId: str, path: Path) -> Generator[float, None, ArrayFile]:
    """Write the voxels of a volume as (1, D, H, W) to a raw file, slab by slab; yields the fraction done.

    Raises:
        InputError: The volume vanished or cannot be segmented.
    """
    volumeNode = _presentVolume(volumeId)
    reason = whyUnusable(volumeNode)
    if reason:
        raise InputError(reason)
    array = voxels(volumeNode)
    dtype = array.dtype if array.ndim == 3 else np.dtype(np.float32)
    rows = array.reshape(-1, *array.shape[2:])
    rowsPerSlab = max(1, SLAB_BYTES // max(1, rows[0].nbytes))
    with path.open("wb") as file:
        for start in range(0, len(rows), rowsPerSlab):
            slab = _grey(rows[start : start + rowsPerSlab])
            slab.astype(dtype.newbyteorder("<"), copy=False).tofile(file)
            yield min(1.0, (start + rowsPerSlab) / len(rows))
            if _presentVolume(volumeId).GetImageData() is None:
                raise InputError(_("The volume lost its voxels while they were read: choose it again."))
    return ArrayFile(path=str(path), dtype=dtype.name, shape=(1, *array.shape[:3]))


def exportVolumes(volumeIds: Sequence[str], folder: Path) -> Generator[float, None, dict[str, ArrayFile]]:
    """Write volumes to files in a folder, see exportVolume; returns the files by ID."""
    files = {}
    for number, volumeId in enumerate(volumeIds):
        work = exportVolume(volumeId, folder / f"volume{number}.raw")
        while True:
            try:
                yield (number + next(work)) / len(volumeIds)
            except StopIteration as end:
                files[volumeId] = end.value
                break
    return files


def importSegmentation(
    result: SegmentResult, *, volumeId: str, outputId: str | None, channelIds: Sequence[str | None] = ()
) -> Generator[float, None, tuple[str, bool]]:
    """Put a result into the scene as a segmentation, slab by slab; yields the fraction done.

    The result replaces the content of the chosen output only where that is our own untouched result for the same
    volume; in every other case it goes to a new segmentation.

    Returns:
        ID of the segmentation and whether it is new.

    Raises:
        InputError: The volume vanished or changed its size while the job ran.
    """
    found = [segment for segment in result.segments if segment.voxels]
    labelmap = result.labelmap.open()
    if tuple(labelmap.shape) != voxels(_presentVolume(volumeId)).shape[:3]:
        raise InputError(_("The volume changed its size while it was segmented: press Apply again."))
    image = yield from _croppedImage(labelmap, _unionOfBounds(found))
    volumeNode = _presentVolume(volumeId)
    toWorld = vtk.vtkMatrix4x4()
    volumeNode.GetIJKToRASMatrix(toWorld)
    image.SetImageToWorldMatrix(toWorld)
    made = _provenance(result, volumeNode, [nodeById(channelId) for channelId in channelIds])
    # From here on in one step: a cancelled job must not leave half a result, nor half of the one before it.
    node, isNew = _target(volumeNode, nodeById(outputId))
    with slicer.util.NodeModify(node):
        node.GetSegmentation().RemoveAllSegments()
        node.GetSegmentation().SetSourceRepresentationName(BINARY_LABELMAP)
        for segment in found:
            _addSegment(node, segment, image)
        node.SetAttribute(PROVENANCE_ATTRIBUTE, json.dumps(made, ensure_ascii=False))
        node.SetDescription(provenance.asText(provenance.linesOf(made, "")))
    # Outside the block above: the display node may choose colours at its end.
    node.SetAttribute(UNTOUCHED_ATTRIBUTE, _fingerprint(node))
    return node.GetID(), isNew


def belongsTo(segmentationNode: Any, volumeNode: Any) -> bool:
    """Tell whether a segmentation was made on a volume."""
    role = segmentationNode.GetReferenceImageGeometryReferenceRole()
    return segmentationNode.GetNodeReferenceID(role) == volumeNode.GetID()


def isUntouchedResult(segmentationNode: Any, volumeNode: Any) -> bool:
    """Tell whether a segmentation holds nothing but our result for this volume, as we left it."""
    mark = segmentationNode.GetAttribute(UNTOUCHED_ATTRIBUTE)
    return bool(mark) and belongsTo(segmentationNode, volumeNode) and mark == _fingerprint(segmentationNode)


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


def _presentVolume(volumeId: str) -> Any:
    node = nodeById(volumeId)
    if node is None:
        raise InputError(_("The volume was removed from the scene before its result was there."))
    return node


def _grey(slab: np.ndarray) -> np.ndarray:
    """Return (rows, W) of rows that may have colours: photographs and X-ray pictures saved in RGB."""
    return slab if slab.ndim == 2 else slab[..., :3].mean(axis=-1, dtype=np.float32)


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


def _target(volumeNode: Any, chosen: Any) -> tuple[Any, bool]:
    """Return the segmentation for a result, on the volume's geometry, and whether it is new."""
    isNew = chosen is None or not isUntouchedResult(chosen, volumeNode)
    if isNew:
        name = slicer.mrmlScene.GetUniqueNameByString(f"{volumeNode.GetName()} segmentation")
        node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", name)
        node.CreateDefaultDisplayNodes()
    else:
        node = chosen
    node.SetReferenceImageGeometryParameterFromVolumeNode(volumeNode)
    node.SetNodeReferenceID(node.GetReferenceImageGeometryReferenceRole(), volumeNode.GetID())
    node.SetAndObserveTransformNodeID(volumeNode.GetTransformNodeID())
    return node, isNew


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


def _fingerprint(segmentationNode: Any) -> str:
    segmentation = segmentationNode.GetSegmentation()
    parts = []
    for index in range(segmentation.GetNumberOfSegments()):
        segment = segmentation.GetNthSegment(index)
        image = segment.GetRepresentation(BINARY_LABELMAP)
        color = ",".join(f"{part:.4f}" for part in segment.GetColor())
        changed = image.GetMTime() if image else 0
        parts.append(f"{segmentation.GetNthSegmentID(index)}:{segment.GetName()}:{color}:{changed}")
    return f"{_SESSION} {' '.join(parts)}"


def _backgroundVolumeIds() -> set[str]:
    nodes = slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode")
    return {node.GetBackgroundVolumeID() for node in nodes}
