"""Volumes and regions of the scene as arrays and matrices; only this folder converts between RAS, IJK and KJI.

Long operations are generators for background.steps.Steps: each step copies a few megabytes in milliseconds.
"""

from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import slicer
import vtk
from slicer.i18n import tr as _
from vtk.util.numpy_support import vtk_to_numpy

from UNetSegmentationLib.core.errors import InputError
from UNetSegmentationLib.image.geometry import Volume, crop_to_region
from UNetSegmentationLib.protocol.arrays import ArrayFile

SLAB_BYTES = 4 * 2**20
SAMPLE_VOXELS = 500_000

# Marks probability and uncertainty maps made by a run.
MAP_ATTRIBUTE = "UNetSegmentation.Map"
# Same as in the form's selector.
NOT_INPUT = ("vtkMRMLLabelMapVolumeNode", "vtkMRMLDiffusionWeightedVolumeNode")
# The handles of a new region are inside the volume, within reach.
NEW_REGION_SHARE = 0.7


def nodeById(nodeId: str | None) -> Any:
    """Return the node with an ID, or None if it does not exist."""
    return slicer.mrmlScene.GetNodeByID(nodeId) if nodeId else None


def idOf(node: Any) -> str | None:
    """Return the ID of a node, or None."""
    return node.GetID() if node is not None else None


def isInput(node: Any) -> bool:
    """Return whether a node is a volume that the panel offers."""
    isVolume = node is not None and node.IsA("vtkMRMLScalarVolumeNode") and not node.GetHideFromEditors()
    isVolume = isVolume and not node.GetAttribute(MAP_ATTRIBUTE)
    return isVolume and not any(node.IsA(name) for name in NOT_INPUT)


def inputVolumes() -> list[Any]:
    """Return the volumes in the scene that the panel offers."""
    return [node for node in slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode") if isInput(node)]


def whyUnusable(volumeNode: Any) -> str:
    """Return why a volume cannot be segmented, in one sentence; empty if it can.

    Checks only the header. The worker checks the voxels; it fills gaps (NaN) and warns about them.
    """
    image = volumeNode.GetImageData()
    scalars = image.GetPointData().GetScalars() if image is not None else None
    # While the image data is being replaced, the number of voxels and the dimensions may disagree.
    if scalars is None or not 0 < scalars.GetNumberOfTuples() == image.GetNumberOfPoints():
        return _("The volume is empty: choose one that has voxels.")
    components = image.GetNumberOfScalarComponents()
    if components != 1 and not (components in (3, 4) and image.GetDimensions()[2] == 1):
        return _("The volume has {count} values per voxel: choose one with a single value.").format(count=components)
    parent = volumeNode.GetParentTransformNode()
    if parent is not None and not parent.IsTransformToWorldLinear():
        return _("The volume is under a non-linear transform: harden the transform (Transforms module).")
    matrix = np.array(worldAffine(volumeNode))
    if not np.isfinite(matrix).all() or abs(np.linalg.det(matrix)) < 1e-9:
        return _("The volume's axes are degenerate: correct its spacing and directions (Volumes module).")
    return ""


def worldAffine(volumeNode: Any) -> tuple[tuple[float, ...], ...]:
    """Return the 4x4 matrix from voxel index (i, j, k) to world RAS millimetres, including linear parent transforms."""
    affine = vtk.vtkMatrix4x4()
    volumeNode.GetIJKToRASMatrix(affine)
    return _inWorld(volumeNode, affine)


def _inWorld(node: Any, matrix: Any) -> tuple[tuple[float, ...], ...]:
    """Return a matrix to node coordinates as a matrix to world coordinates, including linear parent transforms."""
    parent = node.GetParentTransformNode()
    if parent is not None:
        toWorld = vtk.vtkMatrix4x4()
        parent.GetMatrixTransformToWorld(toWorld)
        vtk.vtkMatrix4x4.Multiply4x4(toWorld, matrix, matrix)
    return tuple(tuple(matrix.GetElement(row, column) for column in range(4)) for row in range(4))


def regionToWorld(regionNode: Any) -> tuple[tuple[float, ...], ...]:
    """Return the 4x4 that maps the cube from -1 to 1 onto a markups ROI in world coordinates, rotated or not."""
    matrix = vtk.vtkMatrix4x4()
    matrix.DeepCopy(regionNode.GetObjectToNodeMatrix())
    size = regionNode.GetSize()
    for row in range(3):
        for column in range(3):
            matrix.SetElement(row, column, matrix.GetElement(row, column) * size[column] / 2)
    return _inWorld(regionNode, matrix)


def whyRegionUnusable(regionNode: Any, volumeNode: Any) -> str:
    """Return why a run cannot be limited to a region, in one sentence; empty if it can."""
    parent = regionNode.GetParentTransformNode()
    if parent is not None and not parent.IsTransformToWorldLinear():
        return _("The region is under a non-linear transform: remove the transform (Transforms module).")
    region = np.array(regionToWorld(regionNode))
    if not np.isfinite(region).all() or abs(np.linalg.det(region[:3, :3])) < 1e-9:
        return _("The region has no size yet: place it in the views, or choose another one.")
    shape = tuple(reversed(volumeNode.GetImageData().GetDimensions()))
    try:
        crop_to_region(Volume(np.broadcast_to(np.uint8(0), (1, *shape)), np.array(worldAffine(volumeNode))), region)
    except InputError:
        return _("The region is outside the volume: move it into the volume.")
    return ""


def fitRegion(regionNode: Any, volumeNode: Any) -> None:
    """Center a region in a volume, aligned with its axes."""
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
    """Return every n-th voxel along each axis: scanning all voxels of a 512³ volume would delay a menu."""
    array = voxels(volumeNode)
    step = max(1, round((array.size / SAMPLE_VOXELS) ** (1 / 3)))
    return array[::step, ::step, ::step]


def exportVolume(volumeId: str, path: Path) -> Generator[float, None, ArrayFile]:
    """Write the voxels of a volume as (1, D, H, W) to a raw file, slab by slab; yields the completed fraction.

    Raises:
        InputError: The volume was removed or cannot be segmented.
    """
    volumeNode = existingVolume(volumeId)
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
            if existingVolume(volumeId).GetImageData() is None:
                raise InputError(_("The volume lost its voxels while it was being read: choose it again."))
    return ArrayFile(path=str(path), dtype=dtype.name, shape=(1, *array.shape[:3]))


def exportVolumes(volumeIds: Sequence[str], folder: Path) -> Generator[float, None, dict[str, ArrayFile]]:
    """Write volumes to files in a folder (see exportVolume); returns the files by ID."""
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


def existingVolume(volumeId: str) -> Any:
    """Return the volume node with an ID.

    Raises:
        InputError: The volume was removed.
    """
    node = nodeById(volumeId)
    if node is None:
        raise InputError(_("The volume was removed from the scene before its result was ready."))
    return node


def _grey(slab: np.ndarray) -> np.ndarray:
    """Return rows as grey values (rows, W); photographs and X-ray images may be saved in RGB."""
    return slab if slab.ndim == 2 else slab[..., :3].mean(axis=-1, dtype=np.float32)
