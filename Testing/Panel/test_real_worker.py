"""The bundled case through the panel with the real worker, in a process that never loads torch."""

import sys
import time
from pathlib import Path

import numpy as np
import pytest
import qt
import slicer
import vtk
from panel_driver import PanelDriver, spheres, spin

START_S = 60.0
NNUNET = Path(__file__).parents[1] / "Fixtures" / "nnunet"


@pytest.fixture
def real_panel(module, clean_scene, uncaught_errors, users, tmp_path):  # noqa: ARG001
    """The opened panel with the library's worker and the bundled models."""
    driver = PanelDriver(tmp_path)
    driver.open()
    driver.jobs.worker.stop()
    driver.jobs.worker.command = None
    yield driver
    driver.close()
    assert driver.leftovers() == []
    assert "torch" not in sys.modules


def test_the_bundled_case_is_segmented_as_its_reference_says(real_panel):
    from UNetSegmentationPanel.scene import samples

    from UNetSegmentationLib.evaluation.metrics import dice
    from UNetSegmentationLib.image.volume_io import read_labelmap

    real_panel.ui.statusLabel.linkActivated.emit("sample")
    real_panel.press()
    assert spin(lambda: not real_panel.jobs.isRunning, START_S)
    assert "Found" in real_panel.says
    volume, node = real_panel.parameters.inputVolume, real_panel.parameters.outputSegmentation
    image = samples.available()[0].path
    reference = read_labelmap(next(image.parent.glob(f"{samples.available()[0].name}_*.nii.gz"))).array[0]
    segmentation = node.GetSegmentation()
    for index, value in enumerate(np.unique(reference[reference > 0])):
        found = slicer.util.arrayFromSegmentBinaryLabelmap(node, segmentation.GetNthSegmentID(index), volume)
        assert dice(found > 0, reference == value) > 0.8


def test_the_real_worker_obeys_cancel_within_a_second_and_stays_warm(real_panel):
    real_panel.addVolume(spheres(192))
    real_panel.ui.mirrorCheckBox.click()
    real_panel.press()
    assert spin(lambda: real_panel.ui.progressBar.value > 5 or not real_panel.jobs.isRunning, START_S)
    assert spin(lambda: real_panel.jobs.worker.ready, START_S)
    pid = real_panel.jobs.worker.ready["pid"]
    assert spin(lambda: "Segmenting" in real_panel.says, START_S), real_panel.says
    before = time.monotonic()
    real_panel.press()
    real_panel.waitForEnd()
    assert time.monotonic() - before < 1.2
    assert "Cancelled" in real_panel.says
    assert real_panel.jobs.worker.ready.get("pid") == pid


def importModel(panel, monkeypatch, folder):
    monkeypatch.setattr(qt.QFileDialog, "getExistingDirectory", staticmethod(lambda *_arguments: str(folder)))
    panel.ui.manageButton.menu().actions()[0].trigger()
    assert spin(lambda: not panel.jobs.isRunning, START_S)


def share_of_agreement(node, volume, labels):
    """Return the smallest share of voxels that a segment and the label of its value agree on."""
    segmentation = node.GetSegmentation()
    shares = []
    for index in range(segmentation.GetNumberOfSegments()):
        value = segmentation.GetNthSegment(index).GetLabelValue()
        found = slicer.util.arrayFromSegmentBinaryLabelmap(node, segmentation.GetNthSegmentID(index), volume)
        shares.append(np.mean((found > 0) == (labels == value)))
    return min(shares)


@pytest.mark.parametrize("name", ["plain3d", "residual3d"], ids=["one channel", "two channels"])
def test_a_model_of_nnunet_is_imported_and_segments_what_nnunet_segments(real_panel, users, monkeypatch, name):
    """The fixture brings an image and what nnU-Net's own predictor found in it."""
    importModel(real_panel, monkeypatch, NNUNET / name)
    assert "Imported" in real_panel.ui.importLabel.text
    model = next(users.iterdir())
    assert sorted(path.name for path in model.iterdir()) == ["CARD.md", "model.json", "weights.safetensors"]
    arrays = np.load(NNUNET / name / "images.npz")
    for index, channel in enumerate(arrays["image"]):
        volume = real_panel.addVolume(channel, name=f"case_{index:04d}")
        volume.SetSpacing(*arrays["spacing_mm"][::-1])
    assert real_panel.ui.modelComboBox.currentData == model.name
    real_panel.press()
    assert spin(lambda: not real_panel.jobs.isRunning, START_S)
    assert "Found" in real_panel.says
    result, volume = real_panel.parameters.outputSegmentation, real_panel.parameters.inputVolume
    assert share_of_agreement(result, volume, arrays["labels"]) > 0.999


def test_nothing_is_found_outside_an_oblique_region(real_panel):
    real_panel.ui.statusLabel.linkActivated.emit("sample")
    volume = real_panel.parameters.inputVolume
    region = real_panel.ui.regionSelector.addNode()
    size = np.array(region.GetSize())
    turn = vtk.vtkTransform()
    turn.Translate(*region.GetCenter())
    turn.RotateWXYZ(25.0, 0.3, 0.5, 0.8)
    region.SetAndObserveObjectToNodeMatrix(turn.GetMatrix())
    region.SetSize(*(size * 0.6))
    real_panel.press()
    assert spin(lambda: not real_panel.jobs.isRunning, START_S)
    assert "Found" in real_panel.says
    result = real_panel.parameters.outputSegmentation
    found = np.zeros(slicer.util.arrayFromVolume(volume).shape, bool)
    for index in range(result.GetSegmentation().GetNumberOfSegments()):
        segmentId = result.GetSegmentation().GetNthSegmentID(index)
        found |= slicer.util.arrayFromSegmentBinaryLabelmap(result, segmentId, volume) > 0
    toWorld = vtk.vtkMatrix4x4()
    volume.GetIJKToRASMatrix(toWorld)
    points = [toWorld.MultiplyPoint((*index[::-1], 1.0))[:3] for index in np.argwhere(found).tolist()]
    assert len(points) > 100
    assert all(region.IsPointInROIWorld(point) for point in points)


def test_a_folder_that_holds_no_model_is_refused_by_the_worker_in_a_sentence(real_panel, users, tmp_path, monkeypatch):
    importModel(real_panel, monkeypatch, tmp_path)
    assert "contains no model that can be imported" in real_panel.ui.importLabel.text
    assert list(users.iterdir()) == []


def test_the_self_test_segments_the_sample_where_torch_is_there(real_panel, monkeypatch):  # noqa: ARG001
    from UNetSegmentationPanel import self_test

    said = []
    monkeypatch.setattr(self_test, "CHECKS", tuple(_noting(check, said) for check in self_test.CHECKS))
    slicer.selfTests["UNetSegmentation"]()
    assert len(said) == 3
    assert said[-1].startswith("Found Anterior hippocampus, Posterior hippocampus")


def _noting(check, said):
    def run(makeLogic):
        said.append(check(makeLogic))
        return said[-1]

    return run


def test_what_the_worker_says_is_shown_in_the_language_of_the_application(real_panel, monkeypatch):
    """Stages, warnings and errors, whose values come through unchanged."""
    from UNetSegmentationPanel.background import worker_messages

    german = {
        "Segmenting": "Segmentieren",
        "{0} voxels of {1} were NaN or infinite and were treated as background": "{1}: {0} Voxel ohne Wert",
    }
    monkeypatch.setattr(worker_messages, "_", lambda text: german.get(text, text))
    array = spheres(64).astype(np.float32)
    array[:2, 0, 0] = np.nan
    real_panel.addVolume(array)
    real_panel.press()
    stages = []
    assert spin(lambda: stages.append(real_panel.says) or not real_panel.jobs.isRunning, START_S)
    assert any("Segmentieren" in stage for stage in stages)
    assert not any("Segmenting" in stage for stage in stages)
    assert ": 2 Voxel ohne Wert" in real_panel.says


def test_every_message_of_the_worker_is_marked_for_translation(module):  # noqa: ARG001
    import json

    from UNetSegmentationPanel.background import worker_messages

    from UNetSegmentationLib.core.messages import CATALOGUE

    assert list(worker_messages.TEMPLATES) == json.loads(CATALOGUE.read_text(encoding="utf-8"))
