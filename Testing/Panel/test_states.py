"""What the panel says and offers in each of its states."""

import re
import shutil

import numpy as np
import pytest
import qt
import slicer
import vtk
from panel_driver import spheres, spin

OWN_CONTROLS = {
    "inputSelector",
    "channelComboBox",
    "regionSelector",
    "presetComboBox",
    "networkComboBox",
    "modelComboBox",
    "deviceComboBox",
    "outputSelector",
    "mirrorCheckBox",
    "uncertaintyCheckBox",
    "probabilitiesCheckBox",
    "mostUncertainButton",
    "overlayCheckBox",
    "newButton",
    "addButton",
    "replaceButton",
    "withdrawButton",
    "show3DCheckBox",
    "opacitySlider",
    "applyButton",
    "installButton",
    "manageButton",
}


def test_an_empty_scene_says_what_to_do_first(panel):
    assert "Load an image" in panel.says
    assert not panel.ui.applyButton.enabled
    assert not panel.ui.resultSection.visible
    assert not panel.ui.progressBar.visible


def test_a_loaded_volume_is_ready_for_apply_without_any_choice(panel):
    volume = panel.addVolume()
    assert panel.ui.inputSelector.currentNode() is volume
    assert panel.ui.presetComboBox.currentData == "mri"
    assert panel.ui.networkComboBox.currentData == "unet"
    assert panel.ui.applyButton.enabled
    assert panel.says == ""
    assert panel.ui.advancedSection.collapsed


@pytest.mark.parametrize(
    ("array", "preset"),
    [
        (spheres(20), "mri"),
        (spheres(20) - 1024, "ct"),
        (spheres(20)[:1], "xray"),
    ],
)
def test_the_modality_is_guessed_from_the_values(panel, array, preset):
    panel.addVolume(array)
    assert panel.ui.presetComboBox.currentData == preset


def test_the_modality_of_dicom_goes_before_the_guess(panel):
    volume = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "Series")
    volume.SetAttribute("DICOM.Modality", "CT")
    slicer.util.updateVolumeFromArray(volume, spheres(20))
    panel.parameters.inputVolume = volume
    assert spin(lambda: panel.ui.presetComboBox.currentData == "ct")


def test_a_chosen_modality_is_kept_until_another_volume_is_chosen(panel):
    volume = panel.addVolume()
    panel.choose(panel.ui.presetComboBox, "ct")
    volume.Modified()
    slicer.util.updateVolumeFromArray(volume, spheres(24))
    assert panel.parameters.preset == "ct"
    assert panel.ui.modelComboBox.currentData == "ct-other"
    panel.parameters.inputVolume = panel.addVolume(name="Other")
    assert panel.parameters.preset == "mri"


def test_the_modality_is_guessed_again_when_dicom_tells_it_later(panel):
    volume = panel.addVolume()
    assert panel.parameters.preset == "mri"
    hierarchy = slicer.mrmlScene.GetSubjectHierarchyNode()
    hierarchy.SetItemAttribute(hierarchy.GetItemByDataNode(volume), "DICOM.Modality", "CT")
    assert panel.ui.presetComboBox.currentData == "ct"


def test_the_modality_of_a_loaded_scene_is_read_when_all_of_it_is_there(panel):
    volume = panel.addVolume()
    hierarchy = slicer.mrmlScene.GetSubjectHierarchyNode()
    hierarchy.SetItemAttribute(hierarchy.GetItemByDataNode(volume), "DICOM.Modality", "CT")
    slicer.mrmlScene.RemoveNode(panel.parameters.parameterNode)
    path = str(panel.folder / "scene.mrb")
    assert slicer.util.saveScene(path)
    slicer.mrmlScene.Clear()
    slicer.util.loadScene(path)
    assert panel.ui.presetComboBox.currentData == "ct"


def test_a_chosen_modality_stays_when_dicom_says_another_one_later_and_the_panel_asks(panel):
    volume = panel.addVolume()
    panel.choose(panel.ui.presetComboBox, "xray")
    panel.choose(panel.ui.presetComboBox, "ct")
    volume.SetAttribute("DICOM.Modality", "MR")
    assert panel.parameters.preset == "ct"
    assert panel.says == "The volume is MR according to its DICOM header, but CT is selected: check the modality."
    assert panel.ui.applyButton.enabled


@pytest.mark.parametrize(
    ("array", "preset", "clue"),
    [
        (spheres(20) - 1024, "mri", "but MRI is selected: check the modality"),
        (spheres(20), "ct", "intensities of the volume are unusual for CT"),
        (spheres(20) - 1024, "ct", ""),
        (spheres(20), "mri", ""),
        (spheres(20) - 60, "ct", ""),
        (spheres(20) - 60, "mri", ""),
    ],
)
def test_a_modality_that_the_values_contradict_is_doubted_and_not_refused(panel, array, preset, clue):
    panel.addVolume(array)
    panel.choose(panel.ui.presetComboBox, preset)
    assert clue in panel.says
    assert bool(panel.says) == bool(clue)
    assert panel.ui.applyButton.enabled
    panel.press()
    panel.waitForEnd()
    assert "check the modality" not in panel.says


def test_a_modality_without_any_model_says_what_to_do(panel, models):
    for folder in models.glob("ct-*"):
        shutil.rmtree(folder)
    panel.widget.enter()
    panel.addVolume(spheres(20) - 1024)
    assert re.sub("<[^>]+>", "", panel.says) == "No CT model is installed: train one or import one."
    assert not panel.ui.applyButton.enabled


def test_a_network_without_a_model_says_so_and_which_one_to_take(panel):
    panel.addVolume()
    without = [
        panel.ui.networkComboBox.itemData(index)
        for index in range(panel.ui.networkComboBox.count)
        if "(no model yet)" in panel.ui.networkComboBox.itemText(index)
    ]
    panel.choose(panel.ui.networkComboBox, without[0])
    assert not panel.ui.applyButton.enabled
    assert "choose U-Net" in panel.says
    panel.choose(panel.ui.networkComboBox, "unet")
    assert panel.ui.applyButton.enabled


def test_networks_with_a_model_stand_apart_from_all_others(panel):
    from UNetSegmentationPanel.choices import choices

    panel.addVolume()
    combo = panel.ui.networkComboBox
    offered = [(combo.itemData(index), combo.itemText(index)) for index in range(combo.count)]
    assert offered[:2] == [("unet", "U-Net"), (None, "")]
    assert sorted(name for name, _text in offered if name) == sorted(choices.declaredNetworks())
    assert all("no model yet" in text for _name, text in offered[2:])
    line = combo.model().index(1, 0)
    assert not int(combo.model().flags(line)) & int(qt.Qt.ItemIsEnabled)


def test_the_menu_of_networks_is_left_alone_while_nothing_changes(panel):
    panel.addVolume()
    panel.ui.networkComboBox.setItemData(0, "still here", qt.Qt.ToolTipRole)
    panel.widget.panel.refresh()
    assert panel.ui.networkComboBox.itemData(0, qt.Qt.ToolTipRole) == "still here"


def test_the_model_shows_its_figures_and_its_card(panel):
    panel.addVolume()
    panel.chooseModel("plain")
    text = re.sub("<[^>]+>", "", panel.ui.modelLabel.text)
    assert "Body, Core, Absent" in text
    assert "Dice 0.85 on 12 unseen cases" in text
    assert "CC BY 4.0" in text
    assert not panel.ui.cardBrowser.visible
    panel.ui.modelLabel.linkActivated.emit("card")
    assert panel.ui.cardBrowser.visible
    assert "Trained on spheres" in panel.ui.cardBrowser.plainText


def test_a_volume_without_voxels_is_refused_in_a_sentence(panel):
    panel.parameters.inputVolume = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "Nothing")
    assert "is empty" in panel.says
    assert not panel.ui.applyButton.enabled


def test_several_values_a_voxel_are_refused_in_a_sentence(panel):
    volume = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLVectorVolumeNode", "Four")
    slicer.util.updateVolumeFromArray(volume, np.zeros((4, 4, 4, 3), np.uint8))
    panel.parameters.inputVolume = volume
    assert spin(lambda: "3 values per voxel" in panel.says)


def test_a_non_linear_transform_is_refused_and_taking_it_away_helps(panel):
    volume = panel.addVolume()
    warp = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTransformNode", "Warp")
    warp.SetAndObserveTransformToParent(vtk.vtkThinPlateSplineTransform())
    volume.SetAndObserveTransformNodeID(warp.GetID())
    assert "non-linear" in panel.says
    assert not panel.ui.applyButton.enabled
    volume.SetAndObserveTransformNodeID(None)
    assert panel.ui.applyButton.enabled


def test_a_single_slice_does_not_go_to_a_model_of_volumes(panel):
    panel.addVolume(spheres(20)[:1])
    panel.choose(panel.ui.presetComboBox, "mri")
    assert "single slice" in panel.says


def test_a_volume_does_not_go_to_a_model_of_single_images(panel):
    panel.addVolume(spheres(20))
    panel.choose(panel.ui.presetComboBox, "xray")
    assert panel.says == "The volume has 20 slices and this model is for single images: choose another model."
    assert not panel.ui.applyButton.enabled


def test_voxels_of_another_size_than_in_training_are_told_before_the_run(panel):
    volume = panel.addVolume(spheres(20))
    assert panel.says == ""
    volume.SetSpacing(1.0, 1.0, 4.0)
    assert panel.says == (
        "The voxels are 1 x 1 x 4 mm, but the model was trained at 1 x 1 x 1 mm: check the result carefully."
    )
    assert panel.ui.applyButton.enabled


def test_the_time_left_follows_the_pace_of_the_stage(panel):  # noqa: ARG001
    from UNetSegmentationPanel.background.time_left import Pace

    # A slow start, then a tenth of the whole every 5 s.
    moments = [(0.0, 0.0, "a"), (30.0, 0.02, "a"), (31.0, 0.1, "b"), (32.0, 0.12, "b"), (36.0, 0.2, "b")]
    clock = iter([seconds for seconds, _fraction, _stage in moments])
    pace = Pace(clock=lambda: next(clock))
    told = [pace.left_s(fraction, stage) for _seconds, fraction, stage in moments]
    assert told[:4] == [None] * 4
    assert told[4] == pytest.approx(40.0)


def window(volume):
    display = volume.GetDisplayNode()
    return None if display.GetAutoWindowLevel() else (display.GetWindow(), display.GetLevel())


def test_ct_is_shown_in_the_window_of_soft_tissue_and_mri_as_the_viewer_likes(panel):
    assert window(panel.addVolume()) is None
    ct = panel.addVolume(spheres(20) - 1024, name="CT")
    assert window(ct) is None
    panel.parameters.inputVolume = ct
    assert window(ct) == (400.0, 40.0)
    panel.choose(panel.ui.presetComboBox, "mri")
    assert window(ct) is None
    panel.choose(panel.ui.presetComboBox, "ct")
    assert window(ct) == (400.0, 40.0)


def test_an_xray_image_is_stretched_between_percentiles(panel):
    array = np.arange(1000, dtype=np.float32).reshape(1, 25, 40)
    array[0, 0, 0], array[0, 0, 1] = 1e6, np.nan
    wide, level = window(panel.addVolume(array))
    assert (level - wide / 2, level + wide / 2) == pytest.approx((10, 990), abs=3)


def test_a_window_that_a_person_set_is_left_alone(panel):
    volume = panel.addVolume(spheres(20) - 1024)
    assert window(volume) == (400.0, 40.0)
    volume.GetDisplayNode().SetWindowLevel(1500.0, -600.0)
    panel.choose(panel.ui.presetComboBox, "mri")
    panel.choose(panel.ui.presetComboBox, "ct")
    assert window(volume) == (1500.0, -600.0)


def test_how_a_result_was_made_can_be_read_in_the_panel_and_on_the_node(panel):
    panel.addVolume(name="<Head>")
    panel.run("plain")
    assert "Made with Spheres, plain on AUTO." in panel.ui.provenanceLabel.text
    assert not panel.ui.provenanceBrowser.visible
    panel.ui.provenanceLabel.linkActivated.emit("details")
    text = panel.ui.provenanceBrowser.plainText
    for part in ("Spheres, plain", "Model ID\nplain", "<Head>", "0.2 s"):
        assert part in text
    description = panel.parameters.outputSegmentation.GetDescription()
    assert "Model ID: plain\nVolume: <Head>\n" in description
    panel.ui.provenanceLabel.linkActivated.emit("details")
    assert not panel.ui.provenanceBrowser.visible


def withGaps():
    array = spheres(20, np.float32)
    array[3, 4, 5] = np.nan
    array[3, 4, 6] = -np.inf
    return array


@pytest.mark.parametrize(("model", "message"), [("plain", "Found Body, Core"), ("empty", "Nothing was found")])
def test_gaps_go_to_the_worker_and_its_warnings_are_shown(panel, model, message):
    panel.addVolume(withGaps())
    assert panel.parameters.preset == "mri"
    panel.run(model)
    assert message in panel.says
    assert "The volume has &lt;gaps&gt;." in panel.says
    assert "2 voxels were taken as background." in panel.says
    assert panel.ui.statusIcon.visible


def test_the_worker_offers_its_devices(panel):
    panel.addVolume()
    combo = panel.ui.deviceComboBox
    assert spin(lambda: combo.findData("cuda") >= 0)
    panel.choose(combo, "cuda")
    assert panel.parameters.device == "cuda"


def test_every_control_says_what_it_is_for_and_can_be_reached_by_keyboard(panel):
    panel.addVolume()
    assert [name for name in OWN_CONTROLS if not getattr(panel.ui, name).toolTip] == []
    buddies = [label.buddy() for name, label in vars(panel.ui).items() if name.endswith("Label")]
    labelled = {buddy.name for buddy in buddies if buddy is not None}
    assert labelled == {name for name in OWN_CONTROLS if name.endswith(("Selector", "ComboBox", "Slider"))}
    for label in (panel.ui.modelLabel, panel.ui.statusLabel):
        assert int(label.textInteractionFlags) & int(qt.Qt.LinksAccessibleByKeyboard)
