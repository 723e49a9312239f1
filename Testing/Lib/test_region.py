"""A region gives the same segmentation on the command line and in the worker, and so in the panel."""

from pathlib import Path

import numpy as np
import pytest

from UNetSegmentationLib.cli import main
from UNetSegmentationLib.core.task import UNWATCHED
from UNetSegmentationLib.image.geometry import Volume, region_of_box
from UNetSegmentationLib.image.volume_io import read_labelmap, read_volume, write_volume
from UNetSegmentationLib.protocol.arrays import ArrayFile
from UNetSegmentationLib.worker.segment import segment
from UNetSegmentationLib.worker.warm_models import WarmModels

CENTRE, RADII = (-4.0, 6.0, 12.0), (9.0, 7.0, 8.0)


@pytest.mark.parametrize("degrees", [0, 30])
def test_command_line_and_worker_agree_on_an_oblique_volume(tmp_path: Path, tiny_model, degrees: float) -> None:
    turn = np.radians(degrees)
    affine = np.eye(4)
    affine[:3, :3] = [[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1.5]]
    affine[:3, 3] = affine[:3, :3] @ (-16.0, -14.0, -8.0) + CENTRE
    array = np.random.default_rng(0).normal(size=(1, 18, 28, 32)).astype(np.float32)
    write_volume(tmp_path / "a.nrrd", Volume(array, affine))
    model = tiny_model()

    box = ",".join(str(number) for number in (*CENTRE, *RADII))
    words = ["segment", str(tmp_path / "a.nrrd"), "-o", str(tmp_path / "o.nrrd"), "--model", str(model), "--roi", box]
    assert main([*words, "--device", "cpu", "--quiet"]) == 0
    by_command = read_labelmap(tmp_path / "o.nrrd").array[0]

    volume = read_volume(tmp_path / "a.nrrd")
    (tmp_path / "voxels.raw").write_bytes(volume.array.tobytes())
    request = {
        "model": str(model),
        "volume": vars(
            ArrayFile(path=str(tmp_path / "voxels.raw"), dtype=volume.array.dtype.name, shape=volume.array.shape)
        ),
        "affine_ras": volume.affine_ras.tolist(),
        "output": str(tmp_path / "labels.raw"),
        "device": "cpu",
        "region_to_ras": region_of_box(CENTRE, RADII).tolist(),
    }
    segment(request, WarmModels(), task=UNWATCHED)
    by_worker = np.fromfile(tmp_path / "labels.raw", dtype=np.uint8).reshape(volume.shape)
    np.testing.assert_array_equal(by_command, by_worker)

    centres = np.indices(volume.shape)[::-1].reshape(3, -1)
    points = affine[:3, :3] @ centres + affine[:3, 3:]
    is_inside = (np.abs(points.T - CENTRE) <= np.array(RADII) + 1e-6).all(axis=1).reshape(volume.shape)
    assert by_command.any()
    assert not by_command[~is_inside].any()
