"""Puts data nodes into the subject hierarchy, which in Slicer is the work of a logic written with Qt."""

import slicer
import vtk

_DATA_CLASSES = (
    *("vtkMRMLVolumeNode", "vtkMRMLSegmentationNode", "vtkMRMLModelNode", "vtkMRMLMarkupsNode"),
    *("vtkMRMLTransformNode", "vtkMRMLTableNode", "vtkMRMLTextNode", "vtkMRMLSequenceNode"),
    *("vtkMRMLPlotChartNode", "vtkMRMLPlotSeriesNode", "vtkMRMLCameraNode"),
)


def _hierarchy(scene):
    return slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)


def _belongs(node):
    return node is not None and not node.GetHideFromEditors() and any(node.IsA(name) for name in _DATA_CLASSES)


class SubjectHierarchyKeeper:
    """Keeps one item for each data node of a scene."""

    def __init__(self, scene):
        for event, callback in (
            (slicer.vtkMRMLScene.NodeAddedEvent, self._on_added),
            (slicer.vtkMRMLScene.NodeAboutToBeRemovedEvent, self._on_about_to_be_removed),
            (slicer.vtkMRMLScene.EndCloseEvent, self._on_closed),
            (slicer.vtkMRMLScene.EndImportEvent, self._on_imported),
        ):
            scene.AddObserver(event, callback)

    def _put(self, scene, node):
        hierarchy = _hierarchy(scene)
        if hierarchy is not None and not hierarchy.GetItemByDataNode(node):
            hierarchy.CreateItem(hierarchy.GetSceneItemID(), node)

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def _on_added(self, scene, _event, node):
        if node is not None and node.IsA("vtkMRMLSubjectHierarchyNode"):
            slicer.vtkMRMLSubjectHierarchyNode.ResolveSubjectHierarchy(scene)
        elif not scene.IsImporting() and _belongs(node):
            self._put(scene, node)

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def _on_about_to_be_removed(self, scene, _event, node):
        hierarchy = None if scene.IsClosing() or not _belongs(node) else _hierarchy(scene)
        item = hierarchy.GetItemByDataNode(node) if hierarchy is not None else 0
        if item:
            hierarchy.RemoveItem(item, False, False)

    def _on_closed(self, scene, _event):
        slicer.vtkMRMLSubjectHierarchyNode.ResolveSubjectHierarchy(scene)

    def _on_imported(self, scene, _event):
        for index in range(scene.GetNumberOfNodes()):
            node = scene.GetNthNode(index)
            if _belongs(node):
                self._put(scene, node)
