"""Volumes of probabilities and uncertainty, and the way to the slice to look at first."""

import numpy as np
import pytest
import slicer
import vtk
from fake_worker import MOST_UNCERTAIN
from panel_driver import spheres


def maps():
    return {node.GetName(): node for node in slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode") if isMap(node)}


def isMap(node):
    return node.GetAttribute("UNetSegmentation.Map") is not None


@pytest.fixture
def volume(panel):
    return panel.addVolume()


def test_none_is_made_unless_it_is_asked_for(panel, volume):  # noqa: ARG001
    panel.run()
    assert maps() == {}
    assert not panel.ui.mostUncertainButton.visible


def test_the_uncertainty_lies_on_the_grid_of_the_volume_under_its_transform(panel, volume):
    turn = vtk.vtkTransform()
    turn.RotateWXYZ(33.0, 0.3, 0.5, 0.8)
    volume.SetIJKToRASMatrix(turn.GetMatrix())
    moved = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "Moved")
    volume.SetAndObserveTransformNodeID(moved.GetID())
    panel.ui.uncertaintyCheckBox.click()
    panel.run()
    [(name, node)] = maps().items()
    assert name == "Head uncertainty"
    np.testing.assert_array_equal(slicer.util.arrayFromVolume(node), np.where(spheres() == 150, 0.5, 0))
    matrices = [vtk.vtkMatrix4x4(), vtk.vtkMatrix4x4()]
    for one, matrix in zip((volume, node), matrices, strict=True):
        one.GetIJKToRASMatrix(matrix)
    np.testing.assert_allclose(*([m.GetElement(i // 4, i % 4) for i in range(16)] for m in matrices))
    assert node.GetTransformNodeID() == moved.GetID()
    assert node.GetDisplayNode().GetColorNode() is not None


def test_every_found_segment_gets_its_probabilities(panel, volume):  # noqa: ARG001
    panel.ui.probabilitiesCheckBox.click()
    panel.run()
    found = maps()
    assert set(found) == {"Head probability of Body", "Head probability of Core"}
    array = slicer.util.arrayFromVolume(found["Head probability of Core"])
    np.testing.assert_array_equal(array, 0.75 * (spheres() == 250))
    assert not panel.ui.mostUncertainButton.visible


def test_the_button_moves_every_slice_to_the_most_uncertain_place(panel, volume):
    volume.SetSpacing(1.0, 2.0, 3.0)
    panel.ui.uncertaintyCheckBox.click()
    panel.run()
    panel.ui.mostUncertainButton.click()
    world = np.array(MOST_UNCERTAIN[::-1]) * (1.0, 2.0, 3.0)
    for name, axis in (("Red", 2), ("Green", 1), ("Yellow", 0)):
        toWorld = slicer.mrmlScene.GetNodeByID(f"vtkMRMLSliceNode{name}").GetSliceToRAS()
        assert toWorld.GetElement(axis, 3) == pytest.approx(world[axis])
        assert abs(toWorld.GetElement(axis, 2)) == 1


def test_the_overlay_is_shown_and_taken_away_again(panel, volume):  # noqa: ARG001
    panel.ui.uncertaintyCheckBox.click()
    panel.run()
    composite = slicer.mrmlScene.GetNodeByID("vtkMRMLSliceCompositeNodeRed")
    panel.ui.overlayCheckBox.click()
    assert composite.GetForegroundVolumeID() == maps()["Head uncertainty"].GetID()
    panel.ui.overlayCheckBox.click()
    assert composite.GetForegroundVolumeID() is None


def test_the_next_run_replaces_the_volumes_and_undo_removes_them(panel, volume):  # noqa: ARG001
    panel.ui.uncertaintyCheckBox.click()
    panel.run()
    panel.run()
    assert list(maps()) == ["Head uncertainty"]
    panel.ui.statusLabel.linkActivated.emit("undo")
    assert maps() == {}
    assert not panel.ui.mostUncertainButton.visible


def test_a_volume_of_uncertainty_is_not_suggested_as_an_input(panel, volume):
    panel.ui.uncertaintyCheckBox.click()
    panel.run()
    panel.parameters.inputVolume = None
    panel.widget.initializeParameterNode()
    assert panel.parameters.inputVolume is volume


def test_the_button_goes_with_the_volume(panel, volume):  # noqa: ARG001
    panel.ui.uncertaintyCheckBox.click()
    panel.run()
    assert panel.ui.mostUncertainButton.visible
    slicer.mrmlScene.RemoveNode(maps()["Head uncertainty"])
    assert not panel.ui.mostUncertainButton.visible
