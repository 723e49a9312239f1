"""Runs: result, cancel, failure, and a scene that changes meanwhile."""

import shutil
import sys
import time

import numpy as np
import pytest
import qt
import slicer
import vtk
from panel_driver import Heartbeat, spheres, spin, turnAsSlicer

START_S = 3.0
LONGEST_STEP_S = 0.1


def start(panel, model):
    panel.addVolume()
    panel.chooseModel(model)
    panel.press()
    assert spin(lambda: panel.says.startswith("Segmenting"), START_S)


def test_apply_becomes_cancel_and_back_and_the_result_is_shown(panel):
    start(panel, "plain")
    assert panel.ui.applyButton.text == "Cancel"
    assert panel.ui.progressBar.visible
    assert not panel.ui.presetComboBox.enabled
    panel.waitForEnd()
    assert panel.ui.applyButton.text == "Apply"
    assert "Found Body, Core" in panel.says
    assert "Not found: Absent" in panel.says
    assert panel.ui.resultSection.visible
    assert panel.ui.segmentsTable.segmentCount == 2


def test_segments_have_names_colours_terms_and_share_one_labelmap(panel):
    volume = panel.addVolume()
    panel.run()
    node = panel.parameters.outputSegmentation
    segmentation = node.GetSegmentation()
    segments = [segmentation.GetNthSegment(index) for index in range(segmentation.GetNumberOfSegments())]
    assert [segment.GetName() for segment in segments] == ["Body", "Core"]
    np.testing.assert_allclose(segments[0].GetColor(), np.array([210, 160, 120]) / 255)
    tag = vtk.reference("")
    assert segments[1].GetTag(slicer.vtkSegment.GetTerminologyEntryTagName(), tag)
    assert "SCT^64033007^Kidney" in str(tag)
    assert segmentation.GetNumberOfLayers() == 1
    for index, value in enumerate((150, 250)):
        found = slicer.util.arrayFromSegmentBinaryLabelmap(node, segmentation.GetNthSegmentID(index), volume)
        np.testing.assert_array_equal(found > 0, slicer.util.arrayFromVolume(volume) == value)


def test_the_labelmap_is_cropped_to_what_was_found(panel):
    panel.addVolume()
    panel.run()
    segmentation = panel.parameters.outputSegmentation.GetSegmentation()
    image = segmentation.GetNthSegment(0).GetRepresentation("Binary labelmap")
    where = np.argwhere(spheres() > 100)
    expected = [bound for axis in (2, 1, 0) for bound in (where[:, axis].min(), where[:, axis].max())]
    assert list(image.GetExtent()) == expected


def test_surfaces_lie_on_the_segments_and_follow_the_check_box(panel):
    panel.addVolume()
    panel.run()
    node = panel.parameters.outputSegmentation
    assert node.GetDisplayNode().GetVisibility3D()
    surface = node.GetSegmentation().GetNthSegment(1).GetRepresentation("Closed surface")
    bounds = np.array(surface.GetBounds()).reshape(3, 2)
    # The core is a ball of radius 8 voxels around index 20, and indices of this volume are millimetres.
    np.testing.assert_allclose(bounds.mean(axis=1), 20, atol=0.5)
    np.testing.assert_allclose(np.diff(bounds)[:, 0], 16, atol=1.5)
    panel.ui.show3DCheckBox.click()
    assert not node.GetDisplayNode().GetVisibility3D()
    panel.ui.show3DCheckBox.click()
    assert node.GetDisplayNode().GetVisibility3D()


def test_surfaces_are_made_when_they_are_asked_for_later(panel):
    panel.parameters.show3D = False
    panel.addVolume()
    panel.run()
    segment = panel.parameters.outputSegmentation.GetSegmentation().GetNthSegment(0)
    assert segment.GetRepresentation("Closed surface") is None
    panel.ui.show3DCheckBox.click()
    assert spin(lambda: segment.GetRepresentation("Closed surface") is not None)


def test_opacity_goes_to_the_display_of_the_result(panel):
    panel.addVolume()
    panel.run()
    panel.ui.opacitySlider.value = 0.4
    assert panel.parameters.outputSegmentation.GetDisplayNode().GetOpacity() == 0.4


def test_a_single_slice_is_segmented_with_a_model_of_slices(panel):
    volume = panel.addVolume(spheres()[20:21])
    panel.run("xray-plain")
    assert "Found Body, Core" in panel.says
    segmentation = panel.parameters.outputSegmentation
    segmentId = segmentation.GetSegmentation().GetNthSegmentID(1)
    found = slicer.util.arrayFromSegmentBinaryLabelmap(segmentation, segmentId, volume)
    np.testing.assert_array_equal(found > 0, spheres()[20:21] == 250)


def test_cancel_ends_the_run_within_a_second(panel):
    start(panel, "slow")
    before = time.monotonic()
    panel.press()
    panel.waitForEnd()
    assert time.monotonic() - before < 1.0
    assert "Cancelled" in panel.says
    assert panel.segmentations() == []


def test_a_worker_that_ignores_cancel_is_replaced_within_a_second(panel):
    start(panel, "deaf")
    pid = panel.jobs.worker.ready["pid"]
    before = time.monotonic()
    panel.press()
    panel.waitForEnd()
    assert time.monotonic() - before < 1.2
    panel.run("plain")
    assert "Found" in panel.says
    assert panel.jobs.worker.ready["pid"] != pid


def test_a_crash_is_reported_with_its_cause_and_the_next_run_works(panel):
    panel.addVolume()
    panel.run("crash")
    assert "exit code 3" in panel.says
    assert "the crash that the test asked for" in panel.says
    panel.run("plain")
    assert "Found" in panel.says


def test_a_program_that_is_not_there_is_named(panel):
    panel.jobs.worker.stop()
    panel.jobs.worker.command = ("/no/such/program",)
    panel.addVolume()
    panel.run()
    assert "/no/such/program" in panel.says


def test_a_program_that_fails_to_start_at_once_ends_the_run_too(panel, monkeypatch):
    def failAtOnce(process, _program, _arguments):
        process.errorOccurred.emit(qt.QProcess.FailedToStart)

    panel.addVolume()
    panel.jobs.worker.stop()
    with monkeypatch.context() as patch:
        patch.setattr(qt.QProcess, "start", failAtOnce)
        panel.run()
        assert "could not be started" in panel.says
    panel.run()
    assert "Found" in panel.says


def test_a_folder_for_temporary_files_that_is_gone_is_made_again(panel, monkeypatch, tmp_path):
    monkeypatch.setattr(type(slicer.app), "temporaryPath", property(lambda _app: str(tmp_path / "a" / "b")))
    panel.addVolume()
    panel.run()
    assert "Found" in panel.says
    assert spin(lambda: panel.leftovers() == [])


def test_a_folder_for_temporary_files_that_cannot_be_used_is_told(panel, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(type(slicer.app), "temporaryPath", property(lambda _app: str(tmp_path / "file")))
    panel.addVolume()
    panel.run()
    assert "temporary files" in panel.says
    assert panel.ui.applyButton.text == "Apply"


def test_files_where_slicer_was_started_do_not_stand_in_for_the_workers_modules(module, monkeypatch, tmp_path):  # noqa: ARG001
    from UNetSegmentationPanel.background.worker_process import WorkerProcess

    (tmp_path / "numpy.py").write_text("raise SystemExit('the wrong numpy')\n")
    monkeypatch.chdir(tmp_path)
    worker = WorkerProcess((sys.executable, "-m", "UNetSegmentationLib.protocol.arrays"))
    messages = []
    worker.request("segment", {}, messages.append)
    assert spin(lambda: messages)
    assert "exit code 0" in messages[0]["message"]


def test_an_error_of_the_users_input_is_shown_as_a_sentence(panel):
    panel.addVolume()
    panel.run("refuse")
    assert panel.says == "Volume is too small: take a larger one."


def test_nothing_found_leaves_the_scene_as_it_was(panel):
    panel.addVolume()
    panel.run("empty")
    assert "Nothing was found" in panel.says
    assert panel.segmentations() == []


def test_an_untouched_result_is_replaced(panel):
    panel.addVolume()
    panel.run()
    first = panel.parameters.outputSegmentation
    first.GetDisplayNode().SetVisibility(False)
    panel.run()
    assert panel.segmentations() == [first]
    assert first.GetDisplayNode().GetVisibility()
    assert first.GetSegmentation().GetNumberOfSegments() == 2


@pytest.mark.parametrize("isChosen", [True, False])
def test_a_result_that_is_deleted_is_not_spoken_of(panel, isChosen):
    panel.addVolume()
    panel.run()
    result = panel.parameters.outputSegmentation
    if not isChosen:
        panel.ui.outputSelector.setCurrentNode(None)
    assert "Found" in panel.says
    slicer.mrmlScene.RemoveNode(result)
    assert panel.says == ""


@pytest.mark.parametrize("others", [0, 1])
def test_removing_the_volume_cancels_the_run_and_the_panel_says_so(panel, others):
    if others:
        panel.addVolume(name="Other")
    start(panel, "slow")
    slicer.mrmlScene.RemoveNode(panel.parameters.inputVolume)
    assert not panel.jobs.isRunning
    assert spin(lambda: panel.leftovers() == [])
    assert "Cancelled: the volume was removed." in panel.says
    assert ("Load an image" in panel.says) == (panel.parameters.inputVolume is None)
    assert panel.ui.applyButton.text == "Apply"
    assert panel.ui.presetComboBox.enabled
    assert panel.segmentations() == []


def test_what_was_cancelled_is_forgotten_with_the_next_volume(panel):
    start(panel, "slow")
    slicer.mrmlScene.RemoveNode(panel.parameters.inputVolume)
    panel.addVolume()
    assert panel.says == ""


def test_removing_another_volume_does_not_end_the_run(panel):
    start(panel, "plain")
    slicer.mrmlScene.RemoveNode(panel.addVolume(name="Other"))
    panel.waitForEnd()
    assert "Found" in panel.says


def test_a_script_is_told_that_its_volume_was_removed(panel, models):
    volume = panel.addVolume()
    qt.QTimer.singleShot(300, lambda: slicer.mrmlScene.RemoveNode(volume))
    outcome = panel.widget.logic.segment(volume, models / "slow")
    assert (outcome.kind, outcome.message) == ("cancelled", "Cancelled: the volume was removed.")


def test_loading_a_scene_cancels_the_run_and_mixes_nothing(panel):
    path = str(panel.folder / "other.mrb")
    panel.addVolume(name="B")
    panel.choose(panel.ui.presetComboBox, "ct")
    assert slicer.util.saveScene(path)
    slicer.mrmlScene.Clear()
    start(panel, "slow")
    slicer.util.loadScene(path)
    assert not panel.jobs.isRunning
    assert panel.says == "Cancelled: another scene was loaded."
    assert panel.parameters.inputVolume.GetName() == "B"
    assert panel.parameters.outputSegmentation is None
    assert panel.parameters.preset == "ct"
    assert panel.segmentations() == []
    assert panel.ui.applyButton.enabled


def test_a_result_is_not_shown_over_another_volume(panel):
    other = panel.addVolume(name="Other")
    panel.parameters.inputVolume = panel.addVolume(name="Head")
    panel.chooseModel("plain")
    panel.press()
    panel.parameters.inputVolume = other
    panel.waitForEnd()
    assert [node.GetName() for node in panel.segmentations()] == ["Head segmentation"]
    assert panel.parameters.outputSegmentation is None
    assert panel.says == ""


def test_closing_the_scene_cancels_the_run_and_leaves_nothing(panel):
    start(panel, "slow")
    slicer.mrmlScene.Clear()
    assert not panel.jobs.isRunning
    assert spin(lambda: panel.leftovers() == [])
    assert panel.ui.applyButton.text == "Apply"
    panel.addVolume()
    panel.run("plain")
    assert "Found" in panel.says


def test_leaving_the_panel_does_not_stop_the_run(panel):
    start(panel, "plain")
    slicer.util.mainWindow().moduleSelector().selectModule("")
    panel.waitForEnd()
    slicer.util.selectModule("UNetSegmentation")
    assert panel.parameters.outputSegmentation is not None
    assert panel.ui.resultSection.visible
    assert "Found Body, Core" in panel.says


def test_the_window_stays_alive_during_a_run_on_a_large_volume(panel):
    longest_s = []
    slicer.app.setRenderPaused(True)
    try:
        panel.addVolume(spheres(256))
        # Another process may take the processor away for longer than that, but not every time.
        while len(longest_s) < 4 and min(longest_s, default=1.0) >= LONGEST_STEP_S:
            with Heartbeat() as heartbeat:
                panel.run("plain")
            longest_s.append(max(heartbeat.gaps_s))
    finally:
        slicer.app.setRenderPaused(False)
    assert "Found" in panel.says
    assert min(longest_s) < LONGEST_STEP_S, longest_s


def test_the_panel_never_loads_torch(panel):
    panel.addVolume()
    panel.run()
    assert "torch" not in sys.modules


def test_a_run_ends_and_cleans_up_in_a_loop_that_keeps_pythons_lock(panel):
    panel.addVolume()
    panel.chooseModel("plain")
    panel.press()
    for _turn in range(8):
        turnAsSlicer(1.0)
        if not panel.jobs.isRunning:
            break
    assert "Found Body, Core" in panel.says
    segment = panel.parameters.outputSegmentation.GetSegmentation().GetNthSegment(1)
    assert segment.GetRepresentation("Closed surface") is not None
    assert panel.leftovers() == []


def test_files_are_removed_in_a_loop_that_keeps_pythons_lock(panel, monkeypatch):
    remove, removed = shutil.rmtree, []

    def removeLargeFiles(folder, **options):
        for _piece in range(20):
            time.sleep(0.02)
        remove(folder, **options)
        removed.append(folder)

    monkeypatch.setattr(shutil, "rmtree", removeLargeFiles)
    start(panel, "slow")
    panel.press()
    turnAsSlicer(2.0)
    assert len(removed) == 1
