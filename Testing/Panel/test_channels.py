"""Models of several channels: which volume is which, what is missing, and what reaches the worker."""

import re

import numpy as np
import pytest
import slicer
from panel_driver import spheres, spin

from UNetSegmentationLib.models.description import Channel


def rows(panel):
    """Return the selectors of the further channels that are on display, by channel."""
    return {
        row.label.text.rstrip(":"): row.selector for row in panel.section("InputSection")._rows if row.selector.visible
    }


def chosen(panel):
    return {name: _nameOf(selector.currentNode()) for name, selector in rows(panel).items()}


def _nameOf(node):
    return node.GetName() if node is not None else None


def provenance(panel):
    from UNetSegmentationPanel.scene import segmentations

    return segmentations.provenanceOf(panel.parameters.outputSegmentation)


def test_a_model_of_one_channel_shows_the_volume_alone(panel):
    panel.addVolume()
    panel.chooseModel("pair")
    assert list(rows(panel)) == ["FLAIR"]
    panel.chooseModel("plain")
    assert rows(panel) == {}
    assert not panel.ui.channelComboBox.visible


def test_what_is_missing_is_named_until_it_is_chosen(panel):
    panel.addVolume()
    other = panel.addVolume(spheres() + 1, name="Other")
    panel.chooseModel("pair")
    assert panel.ui.channelComboBox.currentText == "T1"
    assert panel.says == "The model also needs FLAIR: choose its volume above."
    assert not panel.ui.applyButton.enabled
    rows(panel)["FLAIR"].setCurrentNode(other)
    assert panel.says == ""
    panel.press()
    panel.waitForEnd()
    assert "Found Body, Core" in panel.says


def test_every_channel_reaches_the_worker_in_the_models_order_with_its_own_geometry(panel):
    first = panel.addVolume(name="a")
    second = panel.addVolume(spheres(20) * 2, name="b")
    second.SetSpacing(2.0, 2.0, 2.0)
    second.SetOrigin(5.0, 6.0, 7.0)
    panel.chooseModel("pair")
    panel.choose(panel.ui.channelComboBox, "FLAIR")
    assert list(rows(panel)) == ["T1"]
    rows(panel)["T1"].setCurrentNode(second)
    panel.press()
    panel.waitForEnd()
    made = provenance(panel)
    assert made["channel_means"] == pytest.approx([(spheres(20) * 2).mean(), spheres().mean()])
    affine = np.diag((2.0, 2.0, 2.0, 1.0))
    affine[:3, 3] = (5.0, 6.0, 7.0)
    np.testing.assert_allclose(made["channels"][0]["affine_ras"], affine)
    np.testing.assert_allclose(made["channels"][1]["affine_ras"], made["affine_ras"])
    from UNetSegmentationPanel.scene import segmentations

    assert segmentations.belongsTo(panel.parameters.outputSegmentation, first)


def test_optional_channels_may_be_missing(panel):
    panel.addVolume()
    panel.chooseModel("fused")
    assert panel.ui.applyButton.enabled
    panel.press()
    panel.waitForEnd()
    assert provenance(panel)["channels"][1:] == [None, None]


def test_names_tell_which_volume_is_which(panel):
    for name in ("p1_T1_contrast", "p1_FLAIR", "p1_t1", "p1_T2"):
        panel.addVolume(name=name)
    assert panel.ui.inputSelector.currentNode().GetName() == "p1_T1_contrast"
    panel.chooseModel("fused")
    assert panel.ui.channelComboBox.currentText == "T1 contrast"
    assert chosen(panel) == {"T1": "p1_t1", "FLAIR": "p1_FLAIR"}


def test_numbers_of_nnunet_tell_which_volume_is_which(panel):
    panel.addVolume(name="case_0001")
    panel.chooseModel("pair")
    panel.addVolume(name="case_0000")
    assert panel.ui.channelComboBox.currentText == "FLAIR"
    assert chosen(panel) == {"T1": "case_0000"}
    assert panel.ui.applyButton.enabled


def test_one_volume_for_two_channels_is_refused(panel):
    volume = panel.addVolume(name="<Head>")
    panel.chooseModel("pair")
    rows(panel)["FLAIR"].setCurrentNode(volume)
    assert panel.says.startswith("&lt;Head&gt; is used for both T1 and FLAIR")


def test_a_channel_that_cannot_be_used_is_named(panel):
    panel.addVolume()
    empty = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "Nothing")
    panel.chooseModel("pair")
    rows(panel)["FLAIR"].setCurrentNode(empty)
    assert panel.says.startswith("FLAIR: The volume is empty")


def test_removing_a_channel_cancels_the_run(panel):
    panel.addVolume()
    other = panel.addVolume(name="FLAIR")
    panel.chooseModel("pair")
    panel.press()
    slicer.mrmlScene.RemoveNode(other)
    assert not panel.jobs.isRunning
    assert re.search("the volume was removed|also needs FLAIR", panel.says)
    assert chosen(panel) == {"FLAIR": None}
    assert panel.segmentations() == []


def test_channels_survive_save_and_reload(panel):
    panel.addVolume(name="A")
    other = panel.addVolume(name="B")
    panel.chooseModel("pair")
    panel.choose(panel.ui.channelComboBox, "FLAIR")
    rows(panel)["T1"].setCurrentNode(other)
    path = str(panel.folder / "scene.mrb")
    assert slicer.util.saveScene(path)
    slicer.mrmlScene.Clear()
    slicer.util.loadScene(path)
    assert spin(lambda: panel.ui.applyButton.enabled)
    assert panel.ui.channelComboBox.currentText == "FLAIR"
    assert chosen(panel) == {"T1": "B"}


def test_any_name_of_a_channel_can_be_stored(panel, users):
    from fake_models import describe

    from UNetSegmentationLib.models.description import write_description

    names = ("a: b;c", "Ü <x>")
    description = describe("odd", channels=tuple(Channel(name=name) for name in names))
    (users / "odd").mkdir(parents=True)
    write_description(users / "odd", description)
    panel.widget.enter()
    panel.addVolume(name="A")
    other = panel.addVolume(name="B")
    panel.chooseModel("odd")
    rows(panel)["Ü <x>"].setCurrentNode(other)
    path = str(panel.folder / "scene.mrb")
    assert slicer.util.saveScene(path)
    slicer.mrmlScene.Clear()
    slicer.util.loadScene(path)
    assert spin(lambda: panel.ui.applyButton.enabled)
    assert chosen(panel) == {"Ü <x>": "B"}


def test_a_script_gives_the_channels(panel, models):
    first, second = panel.addVolume(name="A"), panel.addVolume(spheres() * 2, name="B")
    outcome = panel.widget.logic.segment(first, models / "pair", channels=[second, first])
    assert outcome.kind == "done"
    from UNetSegmentationPanel.scene import segmentations

    made = segmentations.provenanceOf(slicer.mrmlScene.GetNodeByID(outcome.segmentationId))
    assert made["channel_means"] == pytest.approx([(spheres() * 2).mean(), spheres().mean()])
