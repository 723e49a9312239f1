"""`unetseg bench inference`: figures of engines in processes of their own, and peers that are not there."""

import io
import json
import sys
import textwrap

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from torch import nn

from UNetSegmentationLib.benchmark import inference
from UNetSegmentationLib.benchmark.convolution_peak import convolution_peak
from UNetSegmentationLib.benchmark.engines.serving import TileCounter
from UNetSegmentationLib.benchmark.inference import LEAST_VOXELS, compare
from UNetSegmentationLib.cli import main
from UNetSegmentationLib.core.errors import CancelledError, InputError
from UNetSegmentationLib.core.task import Task
from UNetSegmentationLib.image.geometry import Volume
from UNetSegmentationLib.image.volume_io import write_volume
from UNetSegmentationLib.inference.predictor import Predictor

PYTHON = sys.executable


def volume_of(size=20):
    array = np.random.default_rng(0).normal(size=(1, size, size, size)).astype(np.float32)
    return Volume(array, np.eye(4))


@pytest.fixture(autouse=True)
def _quick_peak(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr(inference, "convolution_peak", lambda: 100.0)


def test_the_command_gives_figures_and_names_peers_that_are_missing(tiny_model, tmp_path, capsys):
    image = tmp_path / "image.nii.gz"
    write_volume(image, volume_of())
    model = tiny_model()
    words = ["bench", "inference", "--model", str(model), "--image", str(image), "--runs", "2", "--quiet"]
    assert main([*words, "--against", "nnunetv2", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    (own,) = found["engines"]
    assert own["engine"] == "unetseg"
    assert own["details"] == "fused"
    assert own["seconds"] > 0
    assert own["extra_mb"] >= 0
    assert own["tiles"] == 2**3  # 20 voxels by tiles of 16 that overlap by half
    assert own["equal_labels"] == 1
    rate = own["tiles"] * found["tile_gflop"] / own["seconds"]
    assert own["peak_share"] == pytest.approx(rate / 100, rel=0.05)
    labelmap = Predictor(model, device="cpu").segment(volume_of()).labelmap
    common = [value for value in (1, 2) if np.count_nonzero(labelmap == value) > LEAST_VOXELS]
    assert own["dice"] == {str(value): 1.0 for value in common}
    assert "nnunetv2" in found["missing"]
    assert found["machine"]["torch"] == torch.__version__


def peer(tmp_path, body, name="peer"):
    """Return an interpreter under which every engine is the program `body`."""
    program = tmp_path / f"{name}.py"
    program.write_text(textwrap.dedent(body))
    python = tmp_path / name
    python.write_text(f'#!/bin/sh\n[ "$1" = -c ] && exit 0\nexec "{PYTHON}" "{program}" "$3" "$4"\n')
    python.chmod(0o755)
    return str(python)


ANSWERING = """
    import json, sys
    import numpy as np
    shape = np.load(sys.argv[2])["array"].shape[1:]
    print(json.dumps({"load_s": 1.5}), flush=True)
    for number, line in enumerate(sys.stdin):
        np.save(line.strip(), np.full(shape, 1, np.uint8))
        seconds = [99.0, 1.0, 2.0, 7.0][number]
        print(json.dumps({"seconds": seconds, "extra_mb": 10 * seconds, "tiles": 3, "details": ""}), flush=True)
"""


OWN = """
    import json, sys
    import numpy as np
    shape = np.load(sys.argv[2])["array"].shape[1:]
    labelmap = np.zeros(shape, np.uint8)
    labelmap[: shape[0] // 2] = 1
    print(json.dumps({"load_s": 0.5}), flush=True)
    for line in sys.stdin:
        np.save(line.strip(), labelmap)
        print(json.dumps({"seconds": 1.0, "extra_mb": 5.0, "tiles": 8, "details": "fused"}), flush=True)
"""


@pytest.fixture
def fake_own(tmp_path, monkeypatch):
    """Ours is a program too, which finds class 1 in the first half: loading torch takes seconds."""
    monkeypatch.setattr(sys, "executable", peer(tmp_path, OWN, "own"))


@pytest.mark.usefixtures("fake_own")
def test_a_peer_is_measured_without_its_first_run(tiny_model, tmp_path, monkeypatch):
    monkeypatch.setattr(inference, "PEERS", {"monai": "no_such_package"})
    found = compare(str(tiny_model()), volume_of(), against=["monai"], pythons=[peer(tmp_path, ANSWERING)], runs=3)
    own, twin, other = found.engines
    assert (twin.engine, twin.equal_labels) == ("unetseg as monai", 1)
    assert (other.seconds, other.extra_mb, other.load_s, other.tiles) == (2.0, 20.0, 1.5, 3)
    assert other.equal_labels == 0.5
    assert other.dice == {1: pytest.approx(2 / 3)}
    assert other.peak_share == pytest.approx(own.peak_share * 3 / 8 / 2)
    assert found.missing == {}


@pytest.mark.usefixtures("fake_own")
def test_progress_names_each_run_and_a_cancelled_comparison_ends_before_the_next(tiny_model):
    seen = []
    stages = ["loading", "unetseg, warming up", "unetseg, run 1 of 3", "unetseg, run 2 of 3"]
    with pytest.raises(CancelledError):
        compare(str(tiny_model()), volume_of(), runs=3, task=Task(seen.append, lambda: len(seen) == len(stages)))
    assert [(event["fraction"], event["stage"]) for event in seen] == list(zip((0, 0, 0.25, 0.5), stages, strict=True))


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ('import json\nprint(json.dumps({"error": "ValueError: no"}))', "it failed: ValueError: no"),
        ("import sys\nsys.exit(3)", "it failed: its process ended with status 3"),
    ],
)
@pytest.mark.usefixtures("fake_own")
def test_a_peer_that_fails_is_named_and_left_out(tiny_model, tmp_path, monkeypatch, body, reason):
    monkeypatch.setattr(inference, "PEERS", {"monai": "no_such_package"})
    found = compare(str(tiny_model()), volume_of(), against=["monai"], pythons=[peer(tmp_path, body)], runs=1)
    assert [entry.engine for entry in found.engines] == ["unetseg", "unetseg as monai"]
    assert found.missing == {"monai": reason}


def test_monai_finds_what_we_find_by_its_conventions(tiny_model):
    model = tiny_model(patch_size=(24, 16, 16))
    oblique = np.eye(4)
    oblique[:3, :3] = Rotation.from_euler("xyz", (10, 20, -15), degrees=True).as_matrix() @ np.diag([0.9, 1.2, 0.8])
    noise = np.random.default_rng(0).normal(size=(1, 30, 33, 27)).astype(np.float32)
    found = compare(str(model), Volume(noise, oblique), against=["monai"], runs=1)
    assert found.missing == {}
    own, twin, monai = found.engines
    assert monai.equal_labels > 0.9999
    assert twin.tiles == monai.tiles
    assert own.equal_labels == twin.equal_labels == 1


def test_monai_is_left_out_where_it_has_no_equal(tiny_model, tmp_path):
    flat = tiny_model(dimensions=2, patch_size=(1, 16, 16))
    image = Volume(volume_of().array[:, :1], np.eye(4))
    found = compare(str(flat), image, against=["monai"], pythons=[peer(tmp_path, "")], runs=1)
    assert found.missing == {"monai": "it cannot reproduce this model's preprocessing"}


@pytest.mark.usefixtures("fake_own")
def test_nnunet_needs_a_folder_of_its_own(tiny_model, tmp_path, monkeypatch):
    monkeypatch.setattr(inference, "PEERS", {"nnunetv2": "no_such_package"})
    found = compare(str(tiny_model()), volume_of(), against=["nnunetv2"], pythons=[peer(tmp_path, "")], runs=1)
    assert "only runs results folders of nnU-Net" in found.missing["nnunetv2"]


def test_wrong_input_is_said_before_anything_is_loaded(tiny_model):
    model = str(tiny_model())
    with pytest.raises(InputError, match="unknown peer 'other': choose one of nnunetv2, monai"):
        compare(model, volume_of(), against=["other"])
    with pytest.raises(InputError, match="runs is 0: must be at least 1"):
        compare(model, volume_of(), runs=0)
    with pytest.raises(InputError, match="interpreter /no/python does not exist"):
        compare(model, volume_of(), pythons=["/no/python"])


def test_an_image_that_does_not_fit_the_model_is_said(tiny_model):
    with pytest.raises(InputError, match="the image has 1 channel"):
        compare(str(tiny_model(channels=2)), volume_of(), runs=1)


def test_our_own_failure_is_an_error(tiny_model, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", peer(tmp_path, 'import json\nprint(json.dumps({"error": "E: no"}))'))
    with pytest.raises(InputError, match="this model cannot be benchmarked on this image: E: no"):
        compare(str(tiny_model()), volume_of(), runs=1)


@pytest.mark.usefixtures("fake_own")
def test_measuring_first_says_what_was_found_of_each_backend(tiny_model, monkeypatch):
    monkeypatch.setattr(
        inference,
        "measure",
        lambda subject, with_slow: iter(  # noqa: ARG005
            [
                {},
                {
                    "fused": inference.Result(forward_s=2.0),
                    "compiled": inference.Result(forward_s=1.0),
                    "openvino": inference.Result(reason="returns NaN or infinity"),
                },
            ]
        ),
    )
    found = compare(str(tiny_model()), volume_of(), runs=1, is_measured=True)
    assert found.backends == {
        "fused": "2.000 s a tile",
        "compiled": "1.000 s a tile, chosen",
        "openvino": "returns NaN or infinity",
    }


def test_tiles_are_counted_by_image_not_by_call():
    counter = TileCounter()
    network = nn.Identity()
    network.register_forward_pre_hook(counter)
    network(torch.zeros(3, 1))
    network(torch.zeros(2, 1))
    assert counter.take() == 5
    assert counter.take() == 0


def test_the_peak_is_a_rate(monkeypatch):
    """A convolution by hand-counted work: 2 operations for each of 27 taps, C inputs and C outputs a voxel."""
    from UNetSegmentationLib.benchmark import convolution_peak as module

    monkeypatch.setattr(module, "_LAYERS", ((4, 8),))
    clock = iter(range(100))
    monkeypatch.setattr(module, "perf_counter", lambda: next(clock))
    assert convolution_peak() == pytest.approx(2 * 27 * 16 * 512 / 1e9)


@pytest.mark.usefixtures("fake_own")
def test_the_table_has_a_line_for_every_engine(tiny_model, tmp_path, monkeypatch):
    monkeypatch.setattr(inference, "PEERS", {"monai": "no_such_package"})
    found = compare(str(tiny_model()), volume_of(), against=["monai"], pythons=[peer(tmp_path, ANSWERING)], runs=1)
    from UNetSegmentationLib.commands.bench import _write_figures

    out = io.StringIO()
    _write_figures(out, found)
    lines = out.getvalue().splitlines()
    assert lines[-3].startswith("unetseg ")
    assert lines[-2].startswith("unetseg as monai")
    assert lines[-1].startswith("monai")
    assert "GFLOP/s" in lines[1]
