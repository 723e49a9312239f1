"""Closed surfaces of segments, computed in a separate thread.

Slicer's own conversion holds Python's global lock for up to several seconds; its VTK filters release the lock while
they run. Steps and parameters are those of Slicer's conversion rule, so that surfaces look the same.
"""

import logging
from collections.abc import Generator
from typing import Any

import slicer
import vtk

from ..background.steps import Steps, inThread
from .scene_exchange import nodeById
from .segmentations import BINARY_LABELMAP

CLOSED_SURFACE = "Closed surface"
SMOOTHING = 0.5


def createSurfaces(segmentationId: str) -> Generator[Any, None, None]:
    """Create the missing closed surfaces of a segmentation; yields (fraction, name) and WAIT."""
    node = nodeById(segmentationId)
    count = node.GetSegmentation().GetNumberOfSegments() if node is not None else 0
    made = []
    for index in range(count):
        segment = _segmentWithoutSurface(segmentationId, index)
        if segment is None:
            continue
        yield index / count, segment.GetName()
        pipeline = _Pipeline(segment)
        yield from inThread(pipeline.run)
        made.append((index, segment, pipeline.surface))
    node = nodeById(segmentationId)
    if node is None:
        return
    # All at once: a 3D view that finds one surface creates the others immediately and blocks the window.
    with slicer.util.NodeModify(node):
        for index, segment, surface in made:
            if _segmentWithoutSurface(segmentationId, index) is segment:
                segment.AddRepresentation(CLOSED_SURFACE, surface)
        node.CreateClosedSurfaceRepresentation()


def show3D(segmentationNode: Any, isVisible: bool) -> None:
    """Show or hide the surfaces of a segmentation in 3D views."""
    display = segmentationNode.GetDisplayNode()
    if display is not None:
        display.SetPreferredDisplayRepresentationName3D(CLOSED_SURFACE)
        display.SetVisibility3D(isVisible)


def hasSurfaces(segmentationNode: Any) -> bool:
    """Return whether every segment has a surface."""
    segmentation = segmentationNode.GetSegmentation()
    segments = [segmentation.GetNthSegment(index) for index in range(segmentation.GetNumberOfSegments())]
    return all(segment.GetRepresentation(CLOSED_SURFACE) is not None for segment in segments)


class SurfaceDisplay:
    """Shows surfaces on request, creating missing ones in the background."""

    def __init__(self) -> None:
        self._steps: Steps | None = None

    def show(self, segmentationNode: Any, isVisible: bool) -> None:
        """Show or hide the surfaces of a segmentation."""
        self.stop()
        show3D(segmentationNode, isVisible)
        if isVisible and not hasSurfaces(segmentationNode):
            self._steps = Steps(
                createSurfaces(segmentationNode.GetID()),
                onDone=lambda _nothing: None,
                onFailed=lambda error: logging.error("Surfaces could not be created: %s", error),
            )

    def stop(self) -> None:
        """Stop creating surfaces."""
        steps, self._steps = self._steps, None
        if steps is not None:
            steps.stop()


def _segmentWithoutSurface(segmentationId: str, index: int) -> Any:
    node = nodeById(segmentationId)
    segment = node.GetSegmentation().GetNthSegment(index) if node is not None else None
    isOpen = segment is not None and segment.GetRepresentation(CLOSED_SURFACE) is None
    return segment if isOpen and segment.GetRepresentation(BINARY_LABELMAP) is not None else None


class _Pipeline:
    """Converts one label of a labelmap to a smooth closed surface in segmentation coordinates."""

    def __init__(self, segment: Any) -> None:
        self.surface = vtk.vtkPolyData()
        image = segment.GetRepresentation(BINARY_LABELMAP)
        toWorld = vtk.vtkMatrix4x4()
        image.GetImageToWorldMatrix(toWorld)
        # A plain image on the index grid; directions are applied to the points at the end.
        grid = vtk.vtkImageData()
        grid.SetExtent(image.GetExtent())
        grid.GetPointData().SetScalars(image.GetPointData().GetScalars())
        self._label = segment.GetLabelValue()
        self._pad = vtk.vtkImageConstantPad()
        self._pad.SetInputData(grid)
        first, last = image.GetExtent()[0::2], image.GetExtent()[1::2]
        # Without a background border, the surface would be open where a segment touches the edge of the crop.
        extent = [bound for pair in zip(first, last, strict=True) for bound in (pair[0] - 1, pair[1] + 1)]
        self._pad.SetOutputWholeExtent(extent)
        self._transform = vtk.vtkTransform()
        self._transform.SetMatrix(toWorld)

    def run(self) -> None:
        edges = vtk.vtkDiscreteFlyingEdges3D()
        edges.SetInputConnection(self._pad.GetOutputPort())
        edges.ComputeGradientsOff()
        edges.ComputeNormalsOff()
        edges.ComputeScalarsOff()
        edges.SetValue(0, self._label)
        edges.Update()
        smooth = vtk.vtkWindowedSincPolyDataFilter()
        smooth.SetInputConnection(edges.GetOutputPort())
        smooth.SetNumberOfIterations(round(20 + SMOOTHING * 40))
        smooth.SetPassBand(10.0 ** (-4.0 * SMOOTHING))
        smooth.BoundarySmoothingOff()
        smooth.FeatureEdgeSmoothingOff()
        smooth.NonManifoldSmoothingOn()
        smooth.NormalizeCoordinatesOn()
        smooth.Update()
        place = vtk.vtkTransformPolyDataFilter()
        place.SetInputConnection(smooth.GetOutputPort())
        place.SetTransform(self._transform)
        place.Update()
        outward = place
        if self._transform.GetMatrix().Determinant() < 0:
            # Left-handed voxel axes turn the surface inside out.
            outward = vtk.vtkReverseSense()
            outward.SetInputConnection(place.GetOutputPort())
        normals = vtk.vtkPolyDataNormals()
        normals.SetInputConnection(outward.GetOutputPort())
        normals.ConsistencyOff()
        normals.SplittingOff()
        normals.Update()
        self.surface.ShallowCopy(normals.GetOutput())
