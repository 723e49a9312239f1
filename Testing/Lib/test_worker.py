"""The worker as a real process: it answers, tells its progress, obeys, and never stays behind."""

from __future__ import annotations

import errno
import inspect
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from queue import Empty, Queue
from threading import Thread
from typing import Any

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from UNetSegmentationLib.backends.parts.devices import is_out_of_memory
from UNetSegmentationLib.core.task import UNWATCHED
from UNetSegmentationLib.image.geometry import Volume, crop_to_region
from UNetSegmentationLib.image.labels import Label
from UNetSegmentationLib.inference.predictor import Predictor
from UNetSegmentationLib.inference.uncertainty import uncertainty_of
from UNetSegmentationLib.protocol.arrays import ArrayFile
from UNetSegmentationLib.protocol.foresee import ForeseeRequest
from UNetSegmentationLib.protocol.lines import PROTOCOL_VERSION, LineDecoder, encode
from UNetSegmentationLib.protocol.segment import SegmentRequest, SegmentResult
from UNetSegmentationLib.worker.contract import OPERATIONS
from UNetSegmentationLib.worker.segment import segment as serve_segment
from UNetSegmentationLib.worker.segment import segments_of
from UNetSegmentationLib.worker.warm_models import WarmModels

ROOT = Path(__file__).parents[2]
LIBRARY = ROOT / "UNetSegmentationLib"
FINAL = ("result", "cancelled", "error")
AFFINE = ((-1.2, 0.0, 0.0, 30.0), (0.0, 0.0, 1.1, -20.0), (0.0, 0.9, 0.0, 5.0), (0.0, 0.0, 0.0, 1.0))
PATIENCE_S = 60.0


class Process:
    """A worker and what it said, with the time of each message."""

    def __init__(self, **environment: str) -> None:
        self.child = subprocess.Popen(
            [sys.executable, "-m", "UNetSegmentationLib.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        )
        self.decoder = LineDecoder()
        self._messages: Queue[tuple[float, dict[str, Any]] | None] = Queue()
        self._reader = Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        while data := os.read(self.child.stdout.fileno(), 65536):
            for message in self.decoder.feed(data):
                self._messages.put((time.monotonic(), message))
        self._messages.put(None)

    def send(self, message: dict[str, Any] | bytes) -> None:
        self.child.stdin.write(message if isinstance(message, bytes) else encode(message))
        self.child.stdin.flush()

    def next(self, *, timeout_s: float = PATIENCE_S) -> tuple[float, dict[str, Any]] | None:
        """Return when and what it said next; None at the end of its output."""
        return self._messages.get(timeout=timeout_s)

    def until(self, *events: str) -> dict[str, Any]:
        """Return the next message of one of these events."""
        while (item := self.next()) is not None:
            if item[1]["event"] in events:
                return item[1]
        pytest.fail(f"the worker ended before it said {events}")

    def close(self) -> None:
        if not self.child.stdin.closed:
            self.child.stdin.close()
        try:
            self.child.wait(10)
        finally:
            self.child.kill()
            self.child.wait()
            self._reader.join()
            self.child.stdout.close()
            self.child.stderr.close()


@pytest.fixture
def start() -> Iterator[Callable[..., Process]]:
    processes: list[Process] = []

    def make(**environment: str) -> Process:
        processes.append(Process(**environment))
        return processes[-1]

    yield make
    for process in processes:
        process.close()


@pytest.fixture(scope="module")
def worker() -> Iterator[Process]:
    """Return a worker that every test leaves idle."""
    process = Process()
    process.until("ready")
    yield process
    process.close()


def random_volume(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 1000, shape, dtype=np.int16)


def request_for(folder: Path, model: Path, array: np.ndarray, **options: Any) -> dict[str, Any]:
    """Write an array and return the fields of a request to segment it."""
    array.tofile(folder / "volume.raw")
    file = ArrayFile(path=str(folder / "volume.raw"), dtype=array.dtype.name, shape=array.shape)
    request = SegmentRequest(
        model=str(model), volume=file, affine_ras=AFFINE, output=str(folder / "labels.raw"), device="cpu", **options
    )
    return {"op": "segment", **request.to_dict()}


@pytest.fixture
def heavy(tmp_path: Path, tiny_model: Callable[..., Path]) -> dict[str, Any]:
    """A job of minutes whose single layers are short."""
    return request_for(tmp_path, tiny_model("heavy"), random_volume((1, 200, 200, 200)))


def test_a_result_is_what_the_predictor_finds(worker, tmp_path, tiny_model):
    array = random_volume((1, 17, 22, 19))
    for number, options in enumerate(({}, {"tta": True, "postprocess": ("keep_largest_component",)}), start=1):
        worker.send({"id": number, **request_for(tmp_path, tiny_model(f"m{number}"), array, **options)})
        result = SegmentResult.from_dict(worker.until(*FINAL))
        expected = Predictor(tmp_path / f"models/m{number}", device="cpu").segment(
            Volume(array, np.array(AFFINE)), **options
        )
        labelmap = np.array(result.labelmap.open())
        assert labelmap.dtype == expected.labelmap.dtype
        assert np.array_equal(labelmap, expected.labelmap)
        assert [segment.label for segment in result.segments] == list(expected.labels)
        for segment in result.segments:
            where = np.argwhere(labelmap == segment.label.value)
            assert segment.voxels == len(where)
            bounds = tuple(zip(where.min(axis=0).tolist(), where.max(axis=0).tolist(), strict=True))
            assert segment.bounds == bounds
        assert result.provenance["model_id"] == f"m{number}"


def test_channels_on_grids_of_their_own_are_segmented_as_the_predictor_does_on_one_grid(tmp_path, tiny_model):
    models, array = WarmModels(), random_volume((2, 17, 22, 19))
    request = request_for(tmp_path, tiny_model("two", channels=2), array[:1])
    # The same voxels with their last axis turned round lie on a grid of their own.
    turned = np.array(AFFINE) @ np.array(((-1, 0, 0, 18), (0, 1, 0, 0), (0, 0, 1, 0), (0, 0, 0, 1)))
    np.ascontiguousarray(array[1:, :, :, ::-1]).tofile(tmp_path / "second.raw")
    second = {"path": str(tmp_path / "second.raw"), "dtype": "int16", "shape": [1, 17, 22, 19]}
    channels = [
        {"volume": request["volume"], "affine_ras": AFFINE},
        {"volume": second, "affine_ras": turned.tolist()},
    ]
    result = SegmentResult.from_dict(serve_segment({**request, "channels": channels}, models, task=UNWATCHED))
    expected = models.get(request["model"], "cpu").segment(Volume(array, np.array(AFFINE)))
    # Whether a voxel on the very border counts as inside is a matter of rounding.
    assert np.mean(result.labelmap.open() == expected.labelmap) > 0.99
    assert result.warnings[0] == "sequence 2: resampled to the grid of the volume"


def test_only_a_region_is_segmented_and_lies_in_the_whole_as_it_was_found(tmp_path, tiny_model):
    models, array = WarmModels(), random_volume((1, 17, 22, 19))
    request = request_for(tmp_path, tiny_model(), array)
    volume = Volume(array, np.array(AFFINE))
    # An oblique box round the middle of the volume.
    turn = Rotation.from_euler("xyz", (20, 30, 40), degrees=True).as_matrix()
    region = np.eye(4)
    region[:3, :3] = turn * (5.0, 6.0, 7.0)
    region[:3, 3] = (np.array(AFFINE) @ (9.0, 11.0, 8.0, 1.0))[:3]
    result = SegmentResult.from_dict(
        serve_segment({**request, "region_to_ras": region.tolist()}, models, task=UNWATCHED)
    )
    labelmap = np.array(result.labelmap.open())
    part, where = crop_to_region(volume, region)
    found = models.get(request["model"], "cpu").segment(part).labelmap
    index_xyz = np.argwhere(np.ones(volume.shape, bool))[:, ::-1]
    points = np.hstack([index_xyz, np.ones((len(index_xyz), 1))]) @ (np.linalg.solve(region, np.array(AFFINE))).T
    is_inside = (np.abs(points[:, :3]) <= 1).all(axis=1).reshape(volume.shape)
    expected = np.zeros_like(labelmap)
    expected[where] = found
    assert (found[~is_inside[where]] > 0).any()
    assert np.array_equal(labelmap, np.where(is_inside, expected, 0))
    assert sum(entry.voxels for entry in result.segments) == np.count_nonzero(labelmap)
    np.testing.assert_allclose(result.provenance["region_to_ras"], region)


def test_probabilities_and_uncertainty_are_written_where_they_are_asked_for(tmp_path, tiny_model):
    models, array = WarmModels(), random_volume((1, 17, 22, 19))
    request = request_for(tmp_path, tiny_model(), array)
    files = {"uncertainty": str(tmp_path / "u.raw"), "probabilities": str(tmp_path / "p.raw")}
    result = SegmentResult.from_dict(serve_segment({**request, **files}, models, task=UNWATCHED))
    volume = Volume(array, np.array(AFFINE))
    expected = models.get(request["model"], "cpu").segment(volume, with_probabilities=True).probabilities
    np.testing.assert_array_equal(result.probabilities.open(), expected)
    uncertainty = result.uncertainty.open()
    np.testing.assert_allclose(uncertainty, uncertainty_of(expected, output="labels"))
    assert result.most_uncertain[0] == int(uncertainty.sum(axis=(1, 2)).argmax())
    only = SegmentResult.from_dict(
        serve_segment({**request, "uncertainty": files["uncertainty"]}, models, task=UNWATCHED)
    )
    assert only.uncertainty is not None
    assert only.probabilities is None
    plain = SegmentResult.from_dict(serve_segment(request, models, task=UNWATCHED))
    assert (plain.uncertainty, plain.probabilities, plain.most_uncertain) == (None, None, None)


def test_outside_a_region_all_is_background_for_certain(tmp_path, tiny_model):
    array = random_volume((1, 17, 22, 19))
    request = request_for(tmp_path, tiny_model(), array)
    region = np.diag((4.0, 5.0, 6.0, 1.0))
    region[:3, 3] = (np.array(AFFINE) @ (9.0, 11.0, 8.0, 1.0))[:3]
    files = {"uncertainty": str(tmp_path / "u.raw"), "probabilities": str(tmp_path / "p.raw")}
    request = {**request, **files, "region_to_ras": region.tolist()}
    result = SegmentResult.from_dict(serve_segment(request, WarmModels(), task=UNWATCHED))
    _part, where = crop_to_region(Volume(array, np.array(AFFINE)), region)
    outside = np.ones(array.shape[1:], bool)
    outside[where] = False
    probabilities = np.array(result.probabilities.open())
    assert (probabilities[0, outside] == 1).all()
    assert (probabilities[1:, outside] == 0).all()
    assert (result.uncertainty.open()[outside] == 0).all()
    assert (np.array(result.uncertainty.open())[~outside] > 0).any()


def test_a_model_whose_files_change_is_loaded_again(tiny_model):
    models = WarmModels(limit=2)
    one = tiny_model("one")
    first = models.get(str(one), "cpu")
    assert models.get(str(one), "cpu") is first
    os.utime(one / "model.json", ns=(1, 1))
    second = models.get(str(one), "cpu")
    assert second is not first
    for name in ("two", "three"):
        models.get(str(tiny_model(name)), "cpu")
    assert models.get(str(one), "cpu") is not second


def test_labels_that_are_not_there_have_no_bounds():
    labels = [Label(value=value, name=str(value), color=(0, 0, 0)) for value in (1, 300)]
    labelmap = np.zeros((3, 4, 5), dtype=np.uint16)
    labelmap[1, 2:4, 0] = 300
    none, some = segments_of(labelmap, labels)
    assert (none.voxels, none.bounds) == (0, None)
    assert (some.voxels, some.bounds) == (2, ((1, 1), (2, 3), (0, 0)))


def test_progress_comes_twice_a_second_and_cancel_is_obeyed_within_one(worker, heavy, tmp_path):
    worker.send({"id": 1, **heavy})
    worker.send({"id": 2, **heavy})
    times, fractions = {1: [], 2: []}, []
    began = time.monotonic()
    while time.monotonic() - began < 4:
        when, message = worker.next()
        assert message["event"] == "progress"
        times[message["id"]].append(when)
        if message["id"] == 1:
            fractions.append(message["fraction"])
    for of_job in times.values():
        # Half a second is the promise; the rest is for a machine that does other things as well.
        assert np.diff([began, *of_job]).max() < 0.75
        assert len(of_job) >= 8
    assert fractions == sorted(fractions)
    assert fractions[-1] > 0

    asked = time.monotonic()
    worker.send({"id": 1, "op": "cancel", "target": 1})
    worker.send({"id": 3, "op": "cancel", "target": 2})
    assert worker.until(*FINAL) == {"id": 1, "event": "cancelled"}
    assert worker.until(*FINAL) == {"id": 2, "event": "cancelled"}
    assert time.monotonic() - asked < 1.0
    assert not (tmp_path / "labels.raw").exists()
    # An end is the last that is heard of a job, and of a cancel that comes too late.
    worker.send({"id": 1, "op": "cancel", "target": 1})
    with pytest.raises(Empty):
        worker.next(timeout_s=0.7)


@pytest.mark.parametrize("is_busy", [False, True])
def test_closed_input_ends_the_process(start, heavy, is_busy):
    process = start()
    process.until("ready")
    if is_busy:
        process.send({"id": 1, **heavy})
        process.until("progress")
    closed = time.monotonic()
    process.child.stdin.close()
    assert process.child.wait(10) == 0
    assert time.monotonic() - closed < 3.0


def test_input_closed_before_torch_is_loaded_ends_the_process(start):
    process = start()
    process.child.stdin.close()
    assert process.child.wait(10) == 0


def test_ready_says_what_it_is_and_shutdown_ends_it(start):
    process = start()
    ready = process.until("ready")
    assert ready["id"] == 0
    assert ready["protocol"] == PROTOCOL_VERSION
    assert ready["pid"] == process.child.pid
    assert "cpu" in [device["id"] for device in ready["devices"]]
    process.send({"id": 1, "op": "shutdown"})
    assert process.next() is None
    assert process.child.wait(3) == 0


def test_a_killed_worker_is_noticed_by_the_end_of_its_output(start, heavy):
    process = start()
    process.send({"id": 1, **heavy})
    process.until("progress")
    process.child.kill()
    while process.next(timeout_s=3) is not None:
        pass
    assert process.child.wait(3) == -signal.SIGKILL


def test_memory_is_foreseen_by_sizes_alone(worker, tiny_model):
    request = ForeseeRequest(model=str(tiny_model()), shape=(1, 90, 90, 90), affine_ras=AFFINE)
    worker.send({"id": 1, "op": "foresee", **request.to_dict()})
    assert worker.until(*FINAL) == {"id": 1, "event": "result", "warning": ""}
    endless = replace(request, shape=(1, 1500, 1500, 1500))
    worker.send({"id": 2, "op": "foresee", **endless.to_dict()})
    warning = worker.until(*FINAL)["warning"]
    assert re.search(r"needs about \d+\.\d GB of memory, .* GB is free: segment a region", warning)
    region = tuple(map(tuple, np.diag([20.0, 20.0, 20.0, 1.0]).tolist()))
    worker.send({"id": 3, "op": "foresee", **replace(endless, region_to_ras=region).to_dict()})
    assert worker.until(*FINAL) == {"id": 3, "event": "result", "warning": ""}


def test_what_cannot_be_understood_is_refused_and_the_worker_goes_on(worker, tmp_path, tiny_model):
    good = request_for(tmp_path, tiny_model(), random_volume((1, 9, 9, 9)))
    foresee = {"op": "foresee", "model": good["model"], "shape": [1, 9, 9, 9], "affine_ras": good["affine_ras"]}
    refusals = [
        (b"hello\n", 0, "'hello' is not a JSON object"),
        (b"[1, 2]\n", 0, "is not a JSON object"),
        (b'{"op": "segment"}\n', 0, "the request's id is None"),
        ({"id": "7", "op": "segment"}, 0, "the request's id is '7'"),
        ({"id": 1}, 1, "unknown op None: choose one of foresee, import, segment, cancel, shutdown"),
        ({"id": 2, "op": "dance"}, 2, "unknown op 'dance'"),
        ({"id": 2, "op": ["segment"]}, 2, "unknown op ['segment']"),
        (b"[" * 100_000 + b"\n", 0, "is not a JSON object"),
        ({"id": 3, "op": "segment"}, 3, "SegmentRequest lacks model, volume, affine_ras, output"),
        ({"id": 4, **good, "volume": 3}, 4, "volume is 3: give an object"),
        ({"id": 5, **good, "volume": {**good["volume"], "shape": [1, 9, 9, 8]}}, 5, "1458 bytes, but 1296 are needed"),
        (
            {"id": 6, **good, "volume": {**good["volume"], "shape": [9, 9, 9]}},
            6,
            "give 4 sizes of at least 1 (channels, depth",
        ),
        ({"id": 7, **good, "volume": {**good["volume"], "dtype": "wood"}}, 7, "the segment request is invalid"),
        ({"id": 8, **good, "affine_ras": [[1, 0], [0, 1]]}, 8, "is not a finite 4x4 affine matrix"),
        ({"id": 9, **good, "affine_ras": [[1, 0], [0]]}, 9, "the segment request is invalid"),
        ({"id": 10, **good, "model": str(tmp_path)}, 10, "is not a model folder"),
        ({"id": 11, **good, "model": 5}, 11, "SegmentRequest: model is 5: give a string"),
        ({"id": 12, **good, "device": "abacus"}, 12, "this machine has no device 'abacus'"),
        ({"id": 13, **good, "postprocess": ["polish"]}, 13, "unknown post-processing step 'polish'"),
        ({"id": 14, **good, "postprocess": [3]}, 14, "postprocess is [3]: give a list of strings or null"),
        ({"id": 17, **good, "channels": [{"affine_ras": AFFINE}]}, 17, "ChannelFile lacks volume"),
        (
            {"id": 18, **good, "channels": [None, None]},
            18,
            "there are 2 channels, but the model needs sequence 1: select",
        ),
        ({"id": 19, **good, "region_to_ras": [[1, 0], [0]]}, 19, "the segment request is invalid"),
        ({"id": 20, **good, "region_to_ras": [[1, 0], [0, 1]]}, 20, "the region is empty"),
        ({"id": 21, **good, "uncertainty": 3}, 21, "uncertainty is 3: give a string or null"),
        ({"id": 16, "op": "import", "path": 3}, 16, "ImportRequest lacks models, incoming"),
        ({"id": 26, "op": "import", "path": "", "models": "m", "incoming": "i"}, 26, "path is empty: give a path"),
        ({"id": 22, "op": "foresee", "shape": [1, 2, 3]}, 22, "ForeseeRequest lacks model, affine_ras"),
        ({"id": 23, **foresee, "shape": [1, -9, 9, 9]}, 23, "the foresee request is invalid"),
        ({"id": 24, **foresee, "affine_ras": [[0] * 4] * 4}, 24, "is not a finite 4x4 affine matrix"),
        ({"id": 25, **foresee, "shape": [2, 9, 9, 9]}, 25, "has 2 channel"),
        ({"id": 15, **good, "output": str(tmp_path / "volume.raw" / "labels.raw")}, 15, "cannot write"),
    ]
    for message, number, text in refusals:
        worker.send(message)
        answer = worker.until(*FINAL)
        assert (answer["event"], answer["id"], answer["kind"]) == ("error", number, "input"), answer
        assert text in answer["message"]
        assert "\n" not in answer["message"]
    worker.send({"id": 99, **good})
    assert worker.until(*FINAL)["event"] == "result"
    assert worker.decoder.noise == []


def test_an_image_of_the_wrong_kind_is_the_users_error(worker, tmp_path, tiny_model):
    model = tiny_model()
    worker.send({"id": 1, **request_for(tmp_path, model, random_volume((2, 9, 9, 9)))})
    assert "2 channels or time points, but model 'tiny' needs 1" in worker.until(*FINAL)["message"]
    worker.send({"id": 2, **request_for(tmp_path, model, random_volume((1, 1, 9, 9)))})
    assert "the image is 2D" in worker.until(*FINAL)["message"]


def test_the_same_id_twice_is_refused_while_it_is_at_work(worker, heavy):
    worker.send({"id": 5, **heavy})
    worker.send({"id": 5, **heavy})
    answer = worker.until(*FINAL)
    assert (answer["id"], answer["kind"]) == (0, "input")
    assert "5 is still running" in answer["message"]
    worker.send({"id": 6, "op": "cancel", "target": 5})
    assert worker.until(*FINAL) == {"id": 5, "event": "cancelled"}


def test_a_fault_comes_with_its_traceback_and_nothing_of_a_library_gets_between(start, tmp_path):
    """The faults and the noise are brought in by a module that Python loads first."""
    (tmp_path / "sitecustomize.py").write_text(
        "import os, torch\n"
        "from UNetSegmentationLib.worker.contract import OPERATIONS\n"
        "@OPERATIONS.register('segment', title='Fail')\n"
        "def segment(values, models, **hooks):\n"
        "    print('hello', flush=True)\n"
        "    os.write(1, b'from C\\n')\n"
        "    if values['model'] == 'greedy': torch.empty(2**62, dtype=torch.uint8)\n"
        "    return {'figure': 1 / 0 if values['model'] == 'broken' else float('nan')}\n"
    )
    process = start(PYTHONPATH=os.pathsep.join([str(tmp_path), str(ROOT)]))
    process.until("ready")
    for number, model, kind in ((1, "broken", "fault"), (2, "greedy", "memory"), (3, "nan", "fault")):
        process.send({"id": number, "op": "segment", "model": model})
        answer = process.until(*FINAL)
        assert (answer["event"], answer["id"], answer["kind"]) == ("error", number, kind), answer
        assert "Traceback" in answer["details"]
    process.child.stdin.close()
    process.child.wait(10)
    assert process.decoder.noise == []
    assert {b"hello", b"from C"} <= set(process.child.stderr.read().splitlines())


@pytest.mark.skipif(sys.platform == "win32", reason="there is no limit on the size of files")
def test_a_full_disk_is_told_in_a_sentence(start, tmp_path, tiny_model):
    import resource

    request = request_for(tmp_path, tiny_model(), random_volume((1, 30, 40, 40)))
    process = start()
    process.until("ready")
    resource.prlimit(process.child.pid, resource.RLIMIT_FSIZE, (10_000, 10_000))
    process.send({"id": 1, **request})
    answer = process.until(*FINAL)
    assert (answer["event"], answer["kind"]) == ("error", "input")
    assert "cannot write" in answer["message"]
    assert "free some space" in answer["message"]
    # "cache" is where measurements of an idle worker go.
    assert {path.name for path in tmp_path.iterdir()} - {"cache"} == {"models", "volume.raw"}


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), True),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), True),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), True),
        (OSError(errno.ENOSPC, "No space left on device"), False),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
    ],
)
def test_memory_that_ran_out_is_told_from_other_errors(error, expected):
    assert is_out_of_memory(error) is expected


@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_is_a_file_here_and_one_of_the_protocol(name):
    operation = OPERATIONS[name]
    assert (LIBRARY / f"protocol/{Path(inspect.getfile(operation)).name}").is_file()
    assert f'"{name}"' not in (LIBRARY / "worker/process.py").read_text(encoding="utf-8")
