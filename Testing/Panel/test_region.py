"""A markups ROI limits the run: what reaches the worker is where the box lies in the world."""

import numpy as np
import pytest
import slicer
import vtk
from panel_driver import spheres, spin
from test_geometry import GEOMETRIES, block, matrix


def addRegion(size=(10.0, 8.0, 6.0), toNode=None, parent=None):
    region = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsROINode", "Region")
    region.SetSize(*size)
    if toNode is not None:
        region.SetAndObserveObjectToNodeMatrix(toNode)
    if parent is not None:
        node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTransformNode", "Moved")
        node.SetMatrixTransformToParent(parent)
        region.SetAndObserveTransformNodeID(node.GetID())
    return region


def atCentre(size=20.0):
    region = addRegion(size=(size,) * 3)
    region.SetCenter(20.0, 20.0, 20.0)
    return region


def chooseRegion(panel, region):
    panel.ui.regionSelector.setCurrentNode(region)


@pytest.mark.parametrize("transformed", [False, True], ids=["in the world", "under a transform"])
def test_the_region_is_the_box_of_the_markups_node(module, clean_scene, transformed):  # noqa: ARG001
    from UNetSegmentationPanel.scene import scene_exchange

    turned = matrix(35.0, (1.0, 1.0, 1.0), (3.0, -9.0, 14.0))
    parent = matrix(-50.0, (1.3, 1.3, 1.3), (5.0, 60.0, -12.0)) if transformed else None
    region = addRegion(toNode=turned, parent=parent)
    toWorld = np.array(scene_exchange.regionToWorld(region))
    corners = np.array(np.meshgrid((-1, 1), (-1, 1), (-1, 1), (1,))).reshape(4, -1)
    bounds = [0.0] * 6
    region.GetRASBounds(bounds)
    np.testing.assert_allclose((toWorld @ corners)[:3].min(axis=1), bounds[0::2], atol=1e-3)
    np.testing.assert_allclose((toWorld @ corners)[:3].max(axis=1), bounds[1::2], atol=1e-3)
    if transformed:
        # Slicer's own test of a point leaves the scale of the transform out, its box in the views does not.
        return
    for point in np.random.default_rng(0).uniform(-1.4, 1.4, (300, 3)):
        largest = np.abs(point).max()
        if abs(largest - 1) > 0.001:
            assert bool(region.IsPointInROIWorld((toWorld @ (*point, 1.0))[:3])) == (largest < 1)


def test_a_run_is_limited_to_the_chosen_region(panel):
    panel.addVolume()
    region = atCentre()
    chooseRegion(panel, region)
    panel.run("plain")
    from UNetSegmentationPanel.scene import scene_exchange, segmentations

    made = segmentations.provenanceOf(panel.parameters.outputSegmentation)
    np.testing.assert_allclose(made["region_to_ras"], scene_exchange.regionToWorld(region))
    assert "Region: 20 x 20 x 20 mm around (20, 20, 20)" in panel.parameters.outputSegmentation.GetDescription()
    chooseRegion(panel, None)
    panel.run("plain")
    assert segmentations.provenanceOf(panel.parameters.outputSegmentation)["region_to_ras"] is None


def test_a_region_outside_the_volume_is_told_and_moving_it_back_helps(panel):
    panel.addVolume()
    region = atCentre()
    chooseRegion(panel, region)
    assert panel.ui.applyButton.enabled
    region.SetCenter(200.0, 0.0, 0.0)
    assert panel.says == "The region is outside the volume: move it into the volume."
    assert not panel.ui.applyButton.enabled
    region.SetCenter(20.0, 20.0, 20.0)
    assert panel.says == ""
    assert panel.ui.applyButton.enabled


def test_a_region_without_size_is_told(panel):
    panel.addVolume()
    chooseRegion(panel, addRegion(size=(0.0, 0.0, 0.0)))
    assert "no size yet" in panel.says


def test_a_region_under_a_warp_is_told(panel):
    panel.addVolume()
    region = atCentre()
    warp = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTransformNode", "Warp")
    warp.SetAndObserveTransformToParent(vtk.vtkThinPlateSplineTransform())
    region.SetAndObserveTransformNodeID(warp.GetID())
    chooseRegion(panel, region)
    assert "region is under a non-linear transform" in panel.says


@pytest.mark.parametrize("name", GEOMETRIES)
def test_a_new_region_lies_along_the_volume_inside_it(panel, name):
    from UNetSegmentationPanel.scene import scene_exchange

    volume = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "Block")
    volume.SetIJKToRASMatrix(GEOMETRIES[name])
    slicer.util.updateVolumeFromArray(volume, block())
    panel.parameters.inputVolume = volume
    region = panel.ui.regionSelector.addNode()
    assert panel.ui.regionSelector.currentNode() is region
    toIndex = np.linalg.solve(np.array(scene_exchange.worldAffine(volume)), scene_exchange.regionToWorld(region))
    size = np.array(block().shape[::-1])
    np.testing.assert_allclose(toIndex[:3, 3], (size - 1) / 2, atol=1e-4)
    np.testing.assert_allclose(np.abs(toIndex[:3, :3]), np.diag(0.35 * size), atol=1e-4)
    assert region.GetDisplayNode() is not None


def test_removing_the_region_takes_the_limit_away(panel):
    panel.addVolume()
    region = atCentre()
    region.SetCenter(200.0, 0.0, 0.0)
    chooseRegion(panel, region)
    slicer.mrmlScene.RemoveNode(region)
    assert panel.ui.regionSelector.currentNode() is None
    assert panel.ui.applyButton.enabled


def test_the_region_survives_save_and_reload(panel):
    panel.addVolume()
    chooseRegion(panel, atCentre(12.0))
    path = str(panel.folder / "scene.mrb")
    assert slicer.util.saveScene(path)
    slicer.mrmlScene.Clear()
    assert panel.ui.regionSelector.currentNode() is None
    slicer.util.loadScene(path)
    assert spin(lambda: panel.ui.regionSelector.currentNode() is not None)
    assert panel.ui.regionSelector.currentNode().GetSize()[0] == pytest.approx(12.0)


def test_a_script_limits_the_run_to_a_region(panel, models):
    from UNetSegmentationPanel.scene import scene_exchange, segmentations

    region = atCentre()
    outcome = panel.widget.logic.segment(panel.addVolume(spheres()), models / "plain", region=region)
    made = segmentations.provenanceOf(slicer.mrmlScene.GetNodeByID(outcome.segmentationId))
    np.testing.assert_allclose(made["region_to_ras"], scene_exchange.regionToWorld(region))
