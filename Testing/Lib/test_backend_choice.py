"""Which backend computes: the fastest that is right, known from a store that may fail, and never at the user's cost."""

import errno
import os
import subprocess
import sys
import time
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from torch import nn

from UNetSegmentationLib.backends.contract import Backend, Computation
from UNetSegmentationLib.backends.parts import engine as engine_module
from UNetSegmentationLib.backends.parts import timing
from UNetSegmentationLib.backends.parts.engine import BACKEND_VARIABLE, Engine
from UNetSegmentationLib.backends.parts.store import FOLDER_VARIABLE, Store, cache_folder, identity_of
from UNetSegmentationLib.backends.parts.timing import Result, Subject, fastest, known_results, measure
from UNetSegmentationLib.core.errors import CancelledError, InputError
from UNetSegmentationLib.image.geometry import Volume
from UNetSegmentationLib.inference.predictor import Predictor
from UNetSegmentationLib.models.description import read_description
from UNetSegmentationLib.worker.warm_models import WarmModels

CPU = torch.device("cpu")
SHAPE = (1, 1, 4, 4, 4)


pytestmark = pytest.mark.usefixtures("one_thread")


def make_backend(change=lambda logits: logits, *, seconds=1.0, missing="", precision="float32", in_tile=None):
    """Return a backend that computes like the network and then changes the logits, in `seconds` by its own account."""

    class Fake(Backend):
        def obstacle(self, device):  # noqa: ARG002
            return missing

        def build(self, computation):
            def forward(batch):
                if in_tile is not None:
                    raise in_tile
                return change(computation.network(batch))

            forward.seconds = seconds
            if isinstance(change, Exception):
                raise change
            return forward

    Fake.precision = precision
    return Fake


@pytest.fixture
def backends(monkeypatch):
    """A table of backends of the test's own, timed by their own account; "fused" is ready at once."""
    table = {"eager": make_backend(seconds=9.0), "fused": make_backend(seconds=4.0)}
    monkeypatch.setattr(timing, "BACKENDS", table)
    monkeypatch.setattr(engine_module, "BACKENDS", table)
    monkeypatch.setattr(timing, "_time", lambda forward, tile: forward.seconds)  # noqa: ARG005
    return table


@pytest.fixture
def no_process(monkeypatch):
    def fail(*_):
        raise AssertionError("nothing may be measured now")

    monkeypatch.setattr(engine_module, "start_measuring", fail)


def network():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Conv3d(1, 2, 3, padding=1).eval()


def computation_of(store, **options):
    return Computation(network=network(), shape=SHAPE, device=CPU, store=store, identity="abc", **options)


def results_of(store):
    *_, last = measure(Subject(computation=computation_of(store)))
    return last


def best_of(store):
    return fastest(results_of(store), "fused")


def make_engine(store, tmp_path, **options):
    return Engine(network(), device=CPU, folder=tmp_path, identity="abc", store=store, **options)


def test_the_fastest_is_taken(backends, tmp_path):
    backends["faster"] = make_backend(seconds=2.0)
    backends["slower"] = make_backend(seconds=8.0)
    assert best_of(Store(tmp_path)) == "faster"


def test_a_gain_too_small_to_see_is_not_worth_loading(backends, tmp_path):
    backends["hardly"] = make_backend(seconds=3.9)
    assert best_of(Store(tmp_path)) == "fused"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda logits: logits.flip(1), "logits differ"),
        (lambda logits: logits + 0.01 * logits.abs().max(), "logits differ"),
        (lambda logits: logits / 0, "NaN"),
        (lambda logits: logits.double(), "instead of"),
        (RuntimeError("no such instruction"), "RuntimeError: no such instruction"),
        (ImportError("no such package"), "ImportError: no such package"),
    ],
)
def test_one_that_is_wrong_or_raises_is_refused_and_says_why(backends, tmp_path, change, reason):
    backends["bad"] = make_backend(change, seconds=0.1)
    assert best_of(Store(tmp_path)) == "fused"
    assert reason in results_of(Store(tmp_path))["bad"].reason


def test_half_precision_is_held_to_its_own_tolerance(backends, tmp_path):
    backends["half"] = make_backend(lambda logits: logits * 1.01, seconds=0.1, precision="bfloat16")
    assert best_of(Store(tmp_path)) == "half"


def test_what_cannot_run_here_is_not_tried(backends, tmp_path):
    backends["elsewhere"] = make_backend(AssertionError("tried"), missing="for another device")
    assert "elsewhere" not in results_of(Store(tmp_path))


def test_a_backend_that_ran_out_of_memory_is_tried_again_next_time(backends, tmp_path):
    backends["large"] = make_backend(MemoryError(), seconds=0.1)
    assert "large" not in results_of(Store(tmp_path))
    backends["large"] = make_backend(seconds=0.1)
    assert best_of(Store(tmp_path)) == "large"


def test_measuring_goes_on_where_it_was_interrupted(backends, tmp_path):
    backends["other"] = make_backend(seconds=2.0)
    for known in measure(Subject(computation=computation_of(Store(tmp_path)))):
        if "fused" in known:
            break
    assert set(known_results(computation_of(Store(tmp_path)))) == {"fused"}
    backends["fused"] = make_backend(AssertionError("measured twice"))
    assert set(results_of(Store(tmp_path))) == {"fused", "other"}


@pytest.mark.parametrize("change", [{"shape": (1, 1, 8, 8, 8)}, {"identity": "another"}])
def test_another_shape_or_network_is_measured_anew(backends, tmp_path, change):  # noqa: ARG001
    store = Store(tmp_path)
    results_of(store)
    assert known_results(computation_of(store))
    assert known_results(Computation(**{**vars(computation_of(store)), **change})) == {}


def test_another_machine_is_measured_anew(backends, tmp_path, monkeypatch):  # noqa: ARG001
    results_of(Store(tmp_path))
    monkeypatch.setattr(timing, "_cpu_model", lambda: "another")
    assert known_results(computation_of(Store(tmp_path))) == {}


def test_the_store_keeps_what_was_put(tmp_path):
    store = Store(tmp_path / "new")
    assert store.get("kind", {"a": 1}) is None
    store.put("kind", {"a": 1}, b"content")
    assert Store(tmp_path / "new").get("kind", {"a": 1}) == b"content"
    assert store.get("other", {"a": 1}) is None
    assert store.get("kind", {"a": 2}) is None


@pytest.mark.parametrize(
    "damage", [lambda b: b[:-1], lambda b: b + b"x", lambda b: b[:0], lambda b: b[:40] + b"?" + b[41:]]
)
def test_a_damaged_entry_is_none(tmp_path, damage):
    store = Store(tmp_path)
    store.put("kind", {}, b"x" * 100)
    (path,) = tmp_path.glob("*.bin")
    path.write_bytes(damage(path.read_bytes()))
    assert store.get("kind", {}) is None
    store.put("kind", {}, b"new")
    assert store.get("kind", {}) == b"new"


@pytest.mark.parametrize("content", [b"[]", b"not json", b'{"fused": {"unknown": 1}}'])
def test_an_entry_of_another_version_is_measured_anew(backends, tmp_path, content):  # noqa: ARG001
    store = Store(tmp_path)
    store.put("timing", timing._key(computation_of(store)), content)
    assert known_results(computation_of(store)) == {}
    assert set(results_of(store)) == {"fused"}


def test_a_full_disk_costs_nothing_but_the_entry(backends, tmp_path, monkeypatch):  # noqa: ARG001
    def fail(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    assert set(results_of(Store(tmp_path))) == {"fused"}
    assert list(tmp_path.glob("*")) == []


def test_a_folder_that_cannot_be_made_costs_nothing_but_the_entry(backends, tmp_path):  # noqa: ARG001
    (tmp_path / "file").write_text("")
    assert set(results_of(Store(tmp_path / "file" / "cache"))) == {"fused"}


def test_what_was_used_longest_ago_leaves_first(tmp_path):
    store = Store(tmp_path, limit_bytes=400)
    for number in range(3):
        store.put("kind", {"n": number}, bytes(70))
        (path,) = [p for p in tmp_path.glob("*.bin") if p.stat().st_mtime > 10_000]
        os.utime(path, (number, number))
    store.put("kind", {"n": 3}, bytes(70))  # 4 of 118 bytes: too much
    assert [store.get("kind", {"n": number}) is not None for number in range(4)] == [False, True, True, True]
    store.put("kind", {"n": 4}, bytes(500))
    assert store.get("kind", {"n": 4}) is None


@pytest.mark.parametrize(
    ("platform", "variables", "expected"),
    [
        ("linux", {"XDG_CACHE_HOME": "/x"}, "/x/UNetSegmentation"),
        ("linux", {}, "/h/.cache/UNetSegmentation"),
        ("darwin", {}, "/h/Library/Caches/UNetSegmentation"),
        ("win32", {"LOCALAPPDATA": "/l"}, "/l/UNetSegmentation/Cache"),
        ("linux", {FOLDER_VARIABLE: "/own", "XDG_CACHE_HOME": "/x"}, "/own"),
    ],
)
def test_the_cache_lies_where_the_platform_wants_it(monkeypatch, platform, variables, expected):
    for name in (FOLDER_VARIABLE, "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "/h")
    monkeypatch.setattr(sys, "platform", platform)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert cache_folder().as_posix() == expected


def test_identity_tells_weights_and_shape_of_a_network_apart(tiny_model):
    one, two = (read_description(tiny_model(name, seed=seed)) for name, seed in (("one", 1), ("two", 2)))
    assert identity_of(one) != identity_of(two)
    values = vars(one)
    assert identity_of(type(one)(**{**values, "network_config": {**values["network_config"], "activation": "relu"}}))
    assert identity_of(type(one)(**{**values, "weights_sha256": ""})) == ""


def test_the_first_tile_is_computed_at_once(backends, no_process, tmp_path):  # noqa: ARG001
    backends["faster"] = make_backend(seconds=0.1)
    engine = make_engine(Store(tmp_path), tmp_path)
    batch = torch.randn(SHAPE)
    with torch.inference_mode():
        assert torch.equal(engine(batch), engine.network(batch))
    assert engine.used == {"fused": "float32"}


def test_what_is_known_to_be_faster_is_loaded_once_it_has_earned_its_loading(backends, no_process, tmp_path):  # noqa: ARG001
    backends["faster"] = make_backend(seconds=0.1)
    store = Store(tmp_path)
    results_of(store)
    engine = make_engine(store, tmp_path)
    with torch.inference_mode():
        engine(torch.randn(SHAPE))
        assert list(engine.used) == ["fused"]
        (route,) = engine._routes.values()
        route.loading_s = 10.0
        engine(torch.randn(SHAPE))
        assert list(engine.used) == ["fused"]
        route.spent_s = 11.0
        engine(torch.randn(SHAPE))
    assert list(engine.used) == ["fused", "faster"]


def test_time_without_work_is_used_to_measure_and_load(backends, tmp_path, monkeypatch):
    backends["faster"] = make_backend(seconds=0.1)
    store = Store(tmp_path)
    started = []

    @contextmanager
    def start(folder, device, shape, cache):
        started.append((folder, device, shape, cache))
        results_of(store)
        yield subprocess.Popen([sys.executable, "-c", ""])

    monkeypatch.setattr(engine_module, "start_measuring", start)
    engine = make_engine(store, tmp_path)
    batch = torch.randn(SHAPE)
    with torch.inference_mode():
        engine(batch)
        for _ in engine.improvements():
            pass
        assert started == [(tmp_path, CPU, SHAPE, store.folder)]
        engine.begin_run()
        engine(batch)
    assert engine.used == {"faster": "float32"}
    assert list(engine.improvements()) == [None]
    assert len(started) == 1


def test_a_long_run_is_measured_in_its_middle_and_can_be_cancelled_there(backends, tmp_path, monkeypatch):
    backends["faster"] = make_backend(seconds=0.1)
    ended = []

    @contextmanager
    def start(*_):
        process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
        try:
            yield process
        finally:
            process.kill()
            process.wait()
            ended.append(True)

    monkeypatch.setattr(engine_module, "start_measuring", start)
    engine = make_engine(Store(tmp_path), tmp_path)

    def stop(*_):
        raise CancelledError("cancelled")

    engine.begin_run()
    with torch.inference_mode():
        engine(torch.randn(SHAPE))
        task = engine.begin_run()
        engine._run.began = time.perf_counter() - 10
        task.progress(0.5)
        engine(torch.randn(SHAPE))  # ten more seconds are not worth it
        task.progress(0.01)
        handle = engine.pulse.register_forward_pre_hook(stop)
        with pytest.raises(CancelledError):
            engine(torch.randn(SHAPE))
        handle.remove()
        assert ended == [True]
        assert engine._routes[SHAPE].attempts == 0, "an interrupted measuring may be begun again"


def test_one_that_fails_in_a_tile_is_left_and_the_tile_computed(backends, no_process, tmp_path):  # noqa: ARG001
    backends["fused"] = make_backend(in_tile=RuntimeError("primitive not implemented"))
    engine = make_engine(Store(tmp_path), tmp_path)
    batch = torch.randn(SHAPE)
    with torch.inference_mode():
        assert torch.equal(engine(batch), engine.network(batch))
    assert engine.used == {"eager": "float32"}
    assert engine.refused == {"fused": "RuntimeError: primitive not implemented"}


def test_one_that_cannot_be_built_is_left(backends, no_process, tmp_path):  # noqa: ARG001
    backends["fused"] = make_backend(AttributeError("no such operator"))
    engine = make_engine(Store(tmp_path), tmp_path)
    with torch.inference_mode():
        engine(torch.randn(SHAPE))
    assert engine.used == {"eager": "float32"}


def test_one_that_there_is_no_memory_to_load_is_left_and_the_tile_computed(backends, no_process, tmp_path):  # noqa: ARG001
    backends["faster"] = make_backend(seconds=0.1)
    store = Store(tmp_path)
    results_of(store)
    backends["faster"] = make_backend(MemoryError())
    engine = make_engine(store, tmp_path)
    with torch.inference_mode():
        engine(torch.randn(SHAPE))
        (route,) = engine._routes.values()
        route.spent_s = route.loading_s + 1
        engine(torch.randn(SHAPE))
    assert list(engine.used) == ["fused"]
    assert list(engine.refused) == ["faster"]


def test_without_memory_for_the_default_the_network_itself_computes(backends, no_process, tmp_path):  # noqa: ARG001
    backends["fused"] = make_backend(torch.OutOfMemoryError("out of memory"))
    engine = make_engine(Store(tmp_path), tmp_path)
    batch = torch.randn(SHAPE)
    with torch.inference_mode():
        assert torch.equal(engine(batch), engine.network(batch))
    assert engine.used == {"eager": "float32"}
    assert list(engine.refused) == ["fused"]


def test_cancelling_while_one_is_loaded_is_not_its_fault(backends, no_process, tmp_path):  # noqa: ARG001
    backends["faster"] = make_backend(seconds=0.1)
    store = Store(tmp_path)
    results_of(store)
    backends["faster"] = make_backend(CancelledError("cancelled"))
    engine = make_engine(store, tmp_path)
    with torch.inference_mode():
        engine(torch.randn(SHAPE))
        engine._routes[SHAPE].loading_s = 0.0
        with pytest.raises(CancelledError):
            engine(torch.randn(SHAPE))
    assert engine.refused == {}


@pytest.mark.parametrize("error", [MemoryError(), CancelledError("cancelled")])
def test_lack_of_memory_and_cancelling_are_not_the_backends_fault(backends, no_process, tmp_path, error):  # noqa: ARG001
    backends["fused"] = make_backend(in_tile=error)
    engine = make_engine(Store(tmp_path), tmp_path)
    with pytest.raises(type(error)), torch.inference_mode():
        engine(torch.randn(SHAPE))
    assert engine.refused == {}


def test_the_users_choice_is_taken_whatever_was_measured(backends, no_process, tmp_path, monkeypatch):  # noqa: ARG001
    backends["slow"] = make_backend(seconds=99.0)
    with torch.inference_mode():
        engine = make_engine(Store(tmp_path), tmp_path, backend="slow")
        engine(torch.randn(SHAPE))
        assert list(engine.used) == ["slow"]
        assert list(engine.improvements()) == []
        monkeypatch.setenv(BACKEND_VARIABLE, "eager")
        engine = make_engine(Store(tmp_path), tmp_path)
        engine(torch.randn(SHAPE))
        assert list(engine.used) == ["eager"]


def test_a_choice_that_is_unknown_or_not_for_this_machine_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"unknown backend 'fast': choose one of .*fused"):
        make_engine(Store(tmp_path), tmp_path, backend="fast")
    with pytest.raises(InputError, match=r"'cuda_graph' cannot be used here: runs on NVIDIA GPUs only; choose another"):
        make_engine(Store(tmp_path), tmp_path, backend="cuda_graph")


def test_provenance_names_backend_and_precision(tiny_model):
    volume = Volume(np.random.default_rng(0).normal(size=(1, 20, 20, 20)).astype(np.float32), np.eye(4))
    found = Predictor(tiny_model(), device="cpu", backend="eager").segment(volume)
    assert found.provenance["backend"] == "eager"
    assert found.provenance["precision"] == "float32"
    fused = Predictor(tiny_model("other"), device="cpu", backend="fused").segment(volume)
    assert fused.provenance["backend"] == "fused"
    assert np.mean(fused.labelmap == found.labelmap) > 0.9999


def test_a_worker_without_work_measures_in_a_process_of_its_own(tiny_model, own_cache):
    models = WarmModels()
    predictor = models.get(str(tiny_model()), "cpu")
    predictor.segment(Volume(np.random.default_rng(0).normal(size=(1, 16, 16, 16)).astype(np.float32), np.eye(4)))
    improvements = models.improvements()
    next(improvements)
    improvements.close()  # a request came: the process ends with it
    assert list(own_cache.glob("timing*")) == []
    assert [route.attempts for route in predictor.engine._routes.values()] == [0]
    for _ in models.improvements():
        pass
    known = known_results(predictor.engine._computation((1, 1, 16, 16, 16)))
    assert {"fused", "channels_last"} <= set(known)
    assert known["fused"] == Result(forward_s=known["fused"].forward_s, build_s=known["fused"].build_s)
