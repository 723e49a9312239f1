"""The bundled case through the panel with the real worker, in a process that never loads torch."""

import sys
import time
from pathlib import Path

import numpy as np
import pytest
import qt
import slicer
from panel_driver import PanelDriver, spheres, spin

START_S = 60.0
NNUNET = Path(__file__).parents[1] / "Fixtures" / "nnunet" / "plain3d"


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
    from UNetSegmentationPanel import samples

    from UNetSegmentationLib.metrics import dice
    from UNetSegmentationLib.volume_io import read_labelmap

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


def test_a_model_of_nnunet_is_imported_and_segments_what_nnunet_segments(real_panel, users, monkeypatch):
    """The fixture brings an image and what nnU-Net's own predictor found in it."""
    monkeypatch.setattr(qt.QFileDialog, "getExistingDirectory", staticmethod(lambda *_arguments: str(NNUNET)))
    real_panel.ui.manageButton.menu().actions()[0].trigger()
    assert spin(lambda: not real_panel.jobs.isImporting, START_S)
    assert "Imported" in real_panel.ui.importLabel.text
    model = next(users.iterdir())
    assert sorted(path.name for path in model.iterdir()) == ["CARD.md", "model.json", "weights.safetensors"]
    arrays = np.load(NNUNET / "images.npz")
    volume = real_panel.addVolume(arrays["image"][0])
    volume.SetSpacing(*arrays["spacing_mm"][::-1])
    assert real_panel.ui.modelComboBox.currentData == model.name
    real_panel.press()
    assert spin(lambda: not real_panel.jobs.isRunning, START_S)
    assert "Found" in real_panel.says
    node = real_panel.parameters.outputSegmentation
    segmentation = node.GetSegmentation()
    for index in range(segmentation.GetNumberOfSegments()):
        value = segmentation.GetNthSegment(index).GetLabelValue()
        found = slicer.util.arrayFromSegmentBinaryLabelmap(node, segmentation.GetNthSegmentID(index), volume)
        assert np.mean((found > 0) == (arrays["labels"] == value)) > 0.999


def test_a_folder_that_holds_no_model_is_refused_by_the_worker_in_a_sentence(real_panel, users, tmp_path, monkeypatch):
    monkeypatch.setattr(qt.QFileDialog, "getExistingDirectory", staticmethod(lambda *_arguments: str(tmp_path)))
    real_panel.ui.manageButton.menu().actions()[0].trigger()
    assert spin(lambda: not real_panel.jobs.isImporting, START_S)
    assert "holds no model that can be imported" in real_panel.ui.importLabel.text
    assert list(users.iterdir()) == []
