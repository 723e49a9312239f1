"""Content of a segmentation before a run changed it, for undo."""

import uuid
from typing import Any

import slicer

from .scene_exchange import nodeById

ATTRIBUTES_PREFIX = "UNetSegmentation."
# Modification times restart in every session, so a stored one is valid only together with this.
_SESSION = uuid.uuid4().hex


class FormerContent:
    """The content of a segmentation at one moment; voxels are shared, not copied.

    Args:
        segmentationNode: The segmentation.
    """

    def __init__(self, segmentationNode: Any) -> None:
        self._id = segmentationNode.GetID()
        segmentation = segmentationNode.GetSegmentation()
        self._source = segmentation.GetSourceRepresentationName()
        self._segments = [
            (segmentation.GetNthSegmentID(index), _copyOf(segmentation.GetNthSegment(index)))
            for index in range(segmentation.GetNumberOfSegments())
        ]
        self._attributes = {name: segmentationNode.GetAttribute(name) for name in _attributesOf(segmentationNode)}
        self._description = segmentationNode.GetDescription()
        self._geometry = segmentation.GetConversionParameter(_GEOMETRY)
        self._volumeId = segmentationNode.GetNodeReferenceID(segmentationNode.GetReferenceImageGeometryReferenceRole())
        self._transformId = segmentationNode.GetTransformNodeID()
        self._display = None
        if segmentationNode.GetDisplayNode() is not None:
            self._display = slicer.vtkMRMLSegmentationDisplayNode()
            self._display.CopyContent(segmentationNode.GetDisplayNode())
        self._seal = ""

    @property
    def segmentationNode(self) -> Any:
        return nodeById(self._id)

    def seal(self) -> None:
        """Record the content after the run, so that later edits are detected."""
        self._seal = fingerprint(self.segmentationNode)

    def restore(self) -> bool:
        """Restore the previous content; False if the segmentation was removed or changed after the run."""
        node = self.segmentationNode
        if node is None or fingerprint(node) != self._seal:
            return False
        segmentation = node.GetSegmentation()
        with slicer.util.NodeModify(node):
            clear(node)
            segmentation.SetSourceRepresentationName(self._source)
            segmentation.SetConversionParameter(_GEOMETRY, self._geometry)
            node.SetNodeReferenceID(node.GetReferenceImageGeometryReferenceRole(), self._volumeId)
            node.SetAndObserveTransformNodeID(self._transformId)
            for segmentId, segment in self._segments:
                segmentation.AddSegment(segment, segmentId)
            for name in _attributesOf(node) - self._attributes.keys():
                node.RemoveAttribute(name)
            for name, value in self._attributes.items():
                node.SetAttribute(name, value)
            node.SetDescription(self._description)
        if self._display is not None and node.GetDisplayNode() is not None:
            node.GetDisplayNode().CopyContent(self._display)
        return True


_GEOMETRY = slicer.vtkSegmentationConverter.GetReferenceImageGeometryParameterName()


def clear(segmentationNode: Any) -> None:
    """Remove all segments, without first copying the labelmap that they share for each of them."""
    segmentation = segmentationNode.GetSegmentation()
    for index in range(segmentation.GetNumberOfSegments()):
        segmentation.GetNthSegment(index).RemoveAllRepresentations()
    segmentation.RemoveAllSegments()


def _copyOf(segment: Any) -> Any:
    copy = slicer.vtkSegment()
    copy.DeepCopyMetadata(segment)
    names: list[str] = []
    segment.GetContainedRepresentationNames(names)
    for name in names:
        copy.AddRepresentation(name, segment.GetRepresentation(name))
    return copy


def _attributesOf(node: Any) -> set[str]:
    return {name for name in node.GetAttributeNames() or () if name.startswith(ATTRIBUTES_PREFIX)}


def fingerprint(segmentationNode: Any) -> str:
    """Return a string that changes with every edit of a segmentation."""
    segmentation = segmentationNode.GetSegmentation()
    parts = []
    for index in range(segmentation.GetNumberOfSegments()):
        segment = segmentation.GetNthSegment(index)
        content = segment.GetRepresentation(segmentation.GetSourceRepresentationName())
        color = ",".join(f"{part:.4f}" for part in segment.GetColor())
        changed = content.GetMTime() if content else 0
        parts.append(f"{segmentation.GetNthSegmentID(index)}:{segment.GetName()}:{color}:{changed}")
    return f"{_SESSION} {' '.join(parts)}"
