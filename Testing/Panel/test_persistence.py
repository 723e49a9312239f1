"""Choices and results survive saving and loading the scene."""

import slicer
from panel_driver import spin


def test_choices_and_result_survive_save_and_reload(panel):
    panel.addVolume()
    panel.choose(panel.ui.presetComboBox, "ct")
    panel.chooseModel("ct-plain")
    panel.choose(panel.ui.deviceComboBox, "cpu")
    panel.ui.mirrorCheckBox.click()
    panel.press()
    panel.waitForEnd()
    panel.ui.show3DCheckBox.click()
    path = str(panel.folder / "scene.mrb")
    assert slicer.util.saveScene(path)
    slicer.mrmlScene.Clear()
    assert panel.parameters.inputVolume is None
    assert not panel.ui.resultSection.visible
    slicer.util.loadScene(path)
    assert spin(lambda: panel.parameters.inputVolume is not None)
    parameters = panel.parameters
    assert (parameters.preset, parameters.model, parameters.device) == ("ct", "ct-plain", "cpu")
    assert parameters.mirror
    assert not parameters.show3D
    assert panel.ui.inputSelector.currentNode() is parameters.inputVolume
    assert panel.ui.presetComboBox.currentData == "ct"
    assert panel.ui.mirrorCheckBox.checked
    assert not panel.ui.show3DCheckBox.checked
    assert panel.ui.segmentsTable.segmentationNode() is parameters.outputSegmentation
    assert "Spheres, ct-plain" in panel.ui.provenanceLabel.text


def test_a_reloaded_result_counts_as_the_users_own(panel):
    panel.addVolume()
    panel.run()
    path = str(panel.folder / "scene.mrb")
    assert slicer.util.saveScene(path)
    slicer.mrmlScene.Clear()
    slicer.util.loadScene(path)
    assert spin(lambda: panel.ui.applyButton.enabled)
    former = panel.parameters.outputSegmentation
    panel.press()
    assert panel.ui.questionFrame.visible
    panel.ui.newButton.click()
    panel.waitForEnd()
    assert panel.parameters.outputSegmentation is not former
    assert former.GetSegmentation().GetNumberOfSegments() == 2


def test_a_second_scene_starts_with_defaults(panel):
    panel.addVolume()
    panel.choose(panel.ui.presetComboBox, "ct")
    slicer.mrmlScene.Clear()
    assert panel.parameters.preset == ""
    panel.addVolume()
    assert panel.parameters.preset == "mri"
