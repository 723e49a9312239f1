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


def test_a_scene_that_is_added_brings_its_choices_and_leaves_what_was_there(panel):
    first = panel.addVolume(name="First")
    panel.chooseModel("empty")
    path = str(panel.folder / "first.mrb")
    panel.run("plain")
    panel.chooseModel("empty")
    assert slicer.util.saveScene(path)
    slicer.mrmlScene.Clear()
    second = panel.addVolume(name="Second")
    panel.run("plain")
    made = panel.parameters.outputSegmentation
    slicer.util.loadScene(path)
    assert spin(lambda: panel.ui.applyButton.enabled)
    assert len(slicer.util.getNodesByClass("vtkMRMLScriptedModuleNode")) == 1
    assert (panel.parameters.inputVolume.GetName(), panel.parameters.model) == ("First", "empty")
    assert panel.ui.inputSelector.currentNode() is panel.parameters.inputVolume is not first
    assert made.GetSegmentation().GetNumberOfSegments() == 2
    assert slicer.mrmlScene.GetNodeByID(second.GetID()) is second
    panel.ui.inputSelector.setCurrentNode(second)
    assert panel.parameters.outputSegmentation is None
    panel.run("plain")
    assert len(panel.segmentations()) == 3
    assert made.GetSegmentation().GetNumberOfSegments() == 2


def test_scenes_that_follow_each_other_keep_their_own_choices(panel):
    paths = []
    for name, model in (("First", "plain"), ("Second", "empty"), ("Third", "refuse")):
        panel.addVolume(name=name)
        panel.chooseModel(model)
        paths.append(str(panel.folder / f"{name}.mrb"))
        assert slicer.util.saveScene(paths[-1])
        slicer.mrmlScene.Clear()
    for path, name, model in (
        (paths[1], "Second", "empty"),
        (paths[0], "First", "plain"),
        (paths[2], "Third", "refuse"),
    ):
        slicer.util.loadScene(path)
        assert spin(lambda: panel.ui.applyButton.enabled)
        assert (panel.ui.inputSelector.currentNode().GetName(), panel.ui.modelComboBox.currentData) == (name, model)
        slicer.mrmlScene.Clear()
        assert panel.ui.inputSelector.currentNode() is None
