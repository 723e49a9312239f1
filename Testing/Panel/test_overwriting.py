"""Segments that are not the panel's own are never touched without a question, and one step brings them back."""

import time

import numpy as np
import pytest
import slicer
import vtk
from panel_driver import spheres, spin

CHANGES = {
    "a colour": lambda segmentation: segmentation.GetNthSegment(0).SetColor(0, 1, 0),
    "a name": lambda segmentation: segmentation.GetNthSegment(0).SetName("Mine"),
    "a segment more": lambda segmentation: segmentation.AddEmptySegment("mine", "Mine"),
    "a segment less": lambda segmentation: segmentation.RemoveSegment(segmentation.GetNthSegmentID(0)),
}


def addOwn(panel, volume, name="Mine"):
    """Add a segmentation with one segment of a single voxel, choose it as the target, and return it."""
    own = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", name)
    own.CreateDefaultDisplayNodes()
    own.SetReferenceImageGeometryParameterFromVolumeNode(volume)
    own.GetSegmentation().AddEmptySegment("mine", "Mine")
    slicer.util.updateSegmentBinaryLabelmapFromArray(oneVoxel(), own, "mine", volume)
    panel.ui.outputSelector.setCurrentNode(own)
    return own


def oneVoxel():
    mask = np.zeros(spheres().shape, np.uint8)
    mask[1, 2, 3] = 1
    return mask


def namesIn(node):
    segmentation = node.GetSegmentation()
    return [segmentation.GetNthSegment(index).GetName() for index in range(segmentation.GetNumberOfSegments())]


def maskOf(node, segmentId, volume):
    return slicer.util.arrayFromSegmentBinaryLabelmap(node, segmentId, volume)


def ask(panel):
    panel.chooseModel("plain")
    panel.press()
    assert not panel.jobs.isRunning
    assert panel.ui.questionFrame.visible


def answer(panel, button):
    ask(panel)
    button.click()
    assert not panel.ui.questionFrame.visible
    panel.waitForEnd()


@pytest.fixture
def volume(panel):
    return panel.addVolume()


def test_the_question_names_the_segmentation_and_stops_a_second_press(panel, volume):
    addOwn(panel, volume, "A <b> case")
    ask(panel)
    assert "A &lt;b&gt; case" in panel.ui.questionLabel.text
    assert "segments: 1" in panel.ui.questionLabel.text
    assert not panel.ui.applyButton.enabled


def test_withdrawing_changes_nothing_and_apply_can_be_pressed_again(panel, volume):
    own = addOwn(panel, volume)
    answer(panel, panel.ui.withdrawButton)
    assert panel.segmentations() == [own]
    assert namesIn(own) == ["Mine"]
    assert panel.ui.applyButton.enabled


def test_a_new_segmentation_leaves_the_other_alone_and_hides_it(panel, volume):
    own = addOwn(panel, volume)
    answer(panel, panel.ui.newButton)
    new = panel.parameters.outputSegmentation
    assert new is not own
    assert namesIn(own) == ["Mine"]
    np.testing.assert_array_equal(maskOf(own, "mine", volume), oneVoxel())
    assert not own.GetDisplayNode().GetVisibility()
    assert new.GetDisplayNode().GetVisibility()
    assert new.GetName() == "Head segmentation"
    assert "was kept" in panel.says


def test_adding_keeps_the_segments_that_are_there(panel, volume):
    own = addOwn(panel, volume)
    answer(panel, panel.ui.addButton)
    assert panel.segmentations() == [own]
    assert panel.parameters.outputSegmentation is own
    assert namesIn(own) == ["Mine", "Body", "Core"]
    np.testing.assert_array_equal(maskOf(own, "mine", volume), oneVoxel())
    core = own.GetSegmentation().GetSegmentIdBySegmentName("Core")
    np.testing.assert_array_equal(maskOf(own, core, volume) > 0, spheres() == 250)
    ask(panel)


def test_added_segments_lie_right_in_a_segmentation_under_another_transform(panel, volume):
    own = addOwn(panel, volume)
    turn = vtk.vtkTransform()
    turn.Translate(11.0, -7.0, 30.0)
    turn.RotateWXYZ(33.0, 0.3, 0.5, 0.8)
    moved = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "Moved")
    moved.SetMatrixTransformToParent(turn.GetMatrix())
    own.SetAndObserveTransformNodeID(moved.GetID())
    answer(panel, panel.ui.addButton)
    segmentation = own.GetSegmentation()
    core = segmentation.GetSegment(segmentation.GetSegmentIdBySegmentName("Core"))
    center = np.array(core.GetRepresentation("Closed surface").GetBounds()).reshape(3, 2).mean(axis=1)
    # The core is a ball around voxel 20 of a volume whose indices are millimetres.
    np.testing.assert_allclose(turn.TransformPoint(center), 20.0, atol=0.5)


def test_replacing_takes_the_segments_away_and_undo_brings_them_back(panel, volume):
    own = addOwn(panel, volume)
    own.SetDescription("by hand")
    own.GetDisplayNode().SetSegmentOpacity2DFill("mine", 0.25)
    answer(panel, panel.ui.replaceButton)
    assert panel.segmentations() == [own]
    assert namesIn(own) == ["Body", "Core"]
    panel.ui.statusLabel.linkActivated.emit("undo")
    assert "was undone" in panel.says
    assert namesIn(own) == ["Mine"]
    np.testing.assert_array_equal(maskOf(own, "mine", volume), oneVoxel())
    assert own.GetDescription() == "by hand"
    assert own.GetDisplayNode().GetSegmentOpacity2DFill("mine") == 0.25
    assert [name for name in own.GetAttributeNames() or () if name.startswith("UNetSegmentation")] == []
    ask(panel)


def test_undo_takes_away_what_was_added(panel, volume):
    own = addOwn(panel, volume)
    answer(panel, panel.ui.addButton)
    panel.ui.statusLabel.linkActivated.emit("undo")
    assert namesIn(own) == ["Mine"]
    np.testing.assert_array_equal(maskOf(own, "mine", volume), oneVoxel())


def test_undo_brings_the_result_before_back_which_is_still_the_panels_own(panel, volume):  # noqa: ARG001
    panel.run()
    result = panel.parameters.outputSegmentation
    made = result.GetAttribute("UNetSegmentation.Provenance")
    time.sleep(1.1)  # two runs within a second have one date
    panel.run()
    assert result.GetAttribute("UNetSegmentation.Provenance") != made
    panel.ui.statusLabel.linkActivated.emit("undo")
    assert result.GetAttribute("UNetSegmentation.Provenance") == made
    panel.run()
    assert panel.segmentations() == [result]


def test_undo_does_not_touch_what_was_edited_since_the_run(panel, volume):
    own = addOwn(panel, volume)
    answer(panel, panel.ui.replaceButton)
    own.GetSegmentation().GetNthSegment(0).SetName("Edited")
    panel.ui.statusLabel.linkActivated.emit("undo")
    assert "Undo is not possible" in panel.says
    assert namesIn(own) == ["Edited", "Core"]


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_a_result_that_was_edited_since_is_asked_about(panel, volume, change):  # noqa: ARG001
    panel.run()
    change(panel.parameters.outputSegmentation.GetSegmentation())
    ask(panel)


def test_a_result_that_was_drawn_on_is_asked_about(panel, volume):
    panel.run()
    result = panel.parameters.outputSegmentation
    segmentId = result.GetSegmentation().GetNthSegmentID(0)
    slicer.util.updateSegmentBinaryLabelmapFromArray(oneVoxel(), result, segmentId, volume)
    ask(panel)


def test_an_empty_segmentation_is_filled_without_a_question(panel, volume):  # noqa: ARG001
    own = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Empty")
    panel.ui.outputSelector.setCurrentNode(own)
    panel.run()
    assert panel.segmentations() == [own]
    assert namesIn(own) == ["Body", "Core"]
    assert own.GetDisplayNode().GetVisibility()


def test_what_is_edited_while_the_run_goes_on_is_not_replaced(panel, volume):
    own = addOwn(panel, volume)
    ask(panel)
    panel.ui.replaceButton.click()
    own.GetSegmentation().GetSegment("mine").SetName("Edited")
    panel.waitForEnd()
    assert namesIn(own) == ["Edited"]
    assert panel.parameters.outputSegmentation is not own
    assert "was kept" in panel.says


def test_surfaces_of_the_user_are_not_added_to(panel, volume):
    own = addOwn(panel, volume)
    own.CreateClosedSurfaceRepresentation()
    own.GetSegmentation().SetSourceRepresentationName("Closed surface")
    ask(panel)
    assert not panel.ui.addButton.enabled
    panel.ui.replaceButton.click()
    panel.waitForEnd()
    panel.ui.statusLabel.linkActivated.emit("undo")
    assert namesIn(own) == ["Mine"]
    assert own.GetSegmentation().GetSourceRepresentationName() == "Closed surface"
    assert own.GetSegmentation().GetNthSegment(0).GetRepresentation("Closed surface") is not None


@pytest.mark.parametrize("event", ["other output", "removed", "other volume", "closed"])
def test_the_question_goes_when_it_is_about_nothing_any_more(panel, volume, event):
    own = addOwn(panel, volume)
    ask(panel)
    if event == "other output":
        panel.ui.outputSelector.setCurrentNode(None)
    elif event == "removed":
        slicer.mrmlScene.RemoveNode(own)
    elif event == "other volume":
        panel.parameters.inputVolume = panel.addVolume(name="Other")
    else:
        slicer.mrmlScene.Clear()
        panel.addVolume()
    assert not panel.ui.questionFrame.visible
    assert spin(lambda: panel.ui.applyButton.enabled)


def test_a_result_in_a_segmentation_of_another_volume_is_shown(panel, volume):  # noqa: ARG001
    other = panel.addVolume(name="Other")
    own = addOwn(panel, other)
    panel.ui.outputSelector.setCurrentNode(own)
    answer(panel, panel.ui.addButton)
    assert panel.parameters.outputSegmentation is own
    assert "Found" in panel.says


def test_the_question_goes_when_a_job_begins_that_may_change_what_it_is_about(panel, volume, users):
    from UNetSegmentationPanel.jobs.import_job import ImportJob

    addOwn(panel, volume)
    ask(panel)
    job = ImportJob(
        users / "nothing",
        modelsFolder=users,
        worker=panel.jobs.worker,
        onProgress=lambda _progress: None,
        onFinished=lambda _outcome: None,
    )
    panel.jobs.start(job)
    panel.widget.panel.refresh()
    assert not panel.ui.questionFrame.visible
    job.abandon("")
    panel.widget.panel.refresh()
    assert panel.ui.applyButton.enabled
