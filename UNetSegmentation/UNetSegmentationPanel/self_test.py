"""Checks of UNetSegmentationTest, run in Slicer with or without torch."""

import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import slicer
import vtk

from UNetSegmentationLib.image.labels import Label
from UNetSegmentationLib.models.installed import list_models
from UNetSegmentationLib.protocol.arrays import ArrayFile
from UNetSegmentationLib.protocol.segment import SegmentFound, SegmentResult

from .scene import samples, segmentations
from .setup import dependencies


def checkParameterNode(makeLogic: Callable[[], Any]) -> str:
    """Choices are stored in the scene's parameter node."""
    logic = makeLogic()
    logic.getParameterNode().preset = "ct"
    assert makeLogic().getParameterNode().preset == "ct"
    assert logic.getParameterNode().show3D
    return "Choices are stored in the scene"


def checkGeometry(_makeLogic: Callable[[], Any]) -> str:
    """A result for an oblique, flipped, anisotropic volume has the geometry of the volume."""
    volume = _obliqueVolume()
    labelmap = np.zeros((5, 6, 7), np.uint8)
    labelmap[1:3, 2:5, 3:6] = 2
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "labelmap.raw"
        labelmap.tofile(path)
        segment = SegmentFound(
            label=Label(value=2, name="Block", color=(200, 60, 40)), voxels=18, bounds=((1, 2), (2, 4), (3, 5))
        )
        result = SegmentResult(
            labelmap=ArrayFile(path=str(path), dtype="uint8", shape=labelmap.shape),
            segments=(segment,),
            provenance={"model_id": "test"},
            duration_s={"total": 0.1},
        )
        imported = _runToEnd(segmentations.importSegmentation(result, volumeId=volume.GetID(), target=None))
    segmentation = slicer.mrmlScene.GetNodeByID(imported.segmentationId)
    assert imported.isNew
    segmentId = segmentation.GetSegmentation().GetNthSegmentID(0)
    found = slicer.util.arrayFromSegmentBinaryLabelmap(segmentation, segmentId, volume)
    np.testing.assert_array_equal(found > 0, labelmap > 0)
    assert json.loads(segmentation.GetAttribute(segmentations.PROVENANCE_ATTRIBUTE))["model_id"] == "test"
    return "The result has the geometry of the volume"


def checkSample(makeLogic: Callable[[], Any]) -> str:
    """The bundled sample is segmented if torch, a sample and a model are available."""
    logic = makeLogic()
    models = [model for model in list_models() if model.description.preset == "mri"]
    if not (dependencies.findState().isReady and models and samples.available()):
        return "Not segmented: PyTorch, a model or the sample is missing"
    # Another extension may already have loaded torch into Slicer.
    hadTorch = "torch" in sys.modules
    outcome = logic.segment(samples.load(), models[0].folder)
    logic.jobs.cleanup()
    assert outcome.kind == "done", outcome.message
    segmentation = slicer.mrmlScene.GetNodeByID(outcome.segmentationId)
    assert segmentation.GetSegmentation().GetNumberOfSegments() == len(models[0].description.labels)
    assert hadTorch or "torch" not in sys.modules
    return outcome.message


CHECKS = (checkParameterNode, checkGeometry, checkSample)


def _obliqueVolume() -> Any:
    volume = slicer.util.addVolumeFromArray(np.zeros((5, 6, 7), np.int16), name="oblique")
    transform = vtk.vtkTransform()
    transform.Translate(11.0, -7.0, 30.0)
    transform.RotateWXYZ(33.0, 0.3, 0.5, 0.8)
    transform.Scale(-0.7, 1.1, 3.0)
    volume.SetIJKToRASMatrix(transform.GetMatrix())
    return volume


def _runToEnd(work: Any) -> Any:
    while True:
        try:
            next(work)
        except StopIteration as end:
            return end.value
