"""Memory: what is foreseen is near what is taken, and where it is short a thriftier way gives the same segmentation."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from UNetSegmentationLib.backends.contract import BACKENDS, Computation
from UNetSegmentationLib.core.errors import InputError
from UNetSegmentationLib.core.host_memory import HostMemory
from UNetSegmentationLib.image.geometry import Volume
from UNetSegmentationLib.inference import memory, memory_ladder
from UNetSegmentationLib.inference.memory import Way, Workload, free_bytes, need_of, ways
from UNetSegmentationLib.inference.memory_ladder import Foresight
from UNetSegmentationLib.inference.predictor import Predictor
from UNetSegmentationLib.inference.sliding_window import _Blending
from UNetSegmentationLib.models.description import read_description
from UNetSegmentationLib.networks import NETWORKS, build_network
from UNetSegmentationLib.networks.parts.cost import _PeakMemory

ROOT = Path(__file__).parents[2]
BENCHMARK = ROOT / "Testing" / "Benchmarks" / "bench_memory.py"


def volume(shape=(40, 72, 70)) -> Volume:
    return Volume(np.random.default_rng(0).normal(size=(1, *shape)).astype(np.float32), np.eye(4))


@pytest.mark.skipif(sys.platform != "linux", reason="the peak of a process is told by Linux alone")
@pytest.mark.parametrize("case", ["hippocampus", "ct", "coarser brain", "wide", "slices"])
def test_what_is_foreseen_is_within_a_fifth_of_what_is_taken(case):
    # One thread: with several the scratch space of the convolutions differs from machine to machine.
    # One backend: what is foreseen counts the weights as often as any that may come to work holds them.
    settings = {"OMP_NUM_THREADS": "1", "MALLOC_TRIM_THRESHOLD_": "0", "UNETSEG_BACKEND": "fused"}
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **settings}
    answer = subprocess.run(
        [sys.executable, BENCHMARK, "--case", case, "--json"],
        capture_output=True, text=True, check=True, env=environment,
    )  # fmt: skip
    (result,) = json.loads(answer.stdout)
    # Libraries keep or return a few pages as they please, which tells in small cases.
    assert abs(result["foreseen"] - result["took"]) < max(0.2 * result["took"], 25e6), result


def resident(name: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name + ":"))


@pytest.mark.skipif(sys.platform != "linux", reason="the peak of a process is told by Linux alone")
def test_sums_in_half_precision_are_divided_without_a_copy():
    blending = _Blending(torch.ones(16, 128, 128), (16, 128, 128), torch.float16)
    blending.add(torch.ones(200, 16, 128, 128), (slice(0, 128), slice(0, 128)))
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    before = resident("VmRSS")
    assert blending.mean(16).min() == 1
    assert resident("VmHWM") - before < 0.3 * blending._total.nbytes


@pytest.mark.parametrize("name", [name for name in BACKENDS if not BACKENDS[name].is_recorded])
def test_backends_hold_the_weights_as_often_as_they_say(name):
    if reason := BACKENDS[name]().obstacle(torch.device("cpu")):
        pytest.skip(reason)
    config = {"in_channels": 1, "num_classes": 3, "features_per_stage": [8, 16, 32]}
    network = build_network("unet", config).eval()
    own = [parameter.untyped_storage() for parameter in network.parameters()]
    with _PeakMemory() as made:
        made._seen.update(own)
        forward = BACKENDS[name]().build(
            Computation(network=network, shape=(1, 1, 8, 8, 8), device=torch.device("cpu"))
        )
    weights = memory.weight_bytes("unet", json.dumps(config), (8, 8, 8))
    assert made.live_bytes == pytest.approx(BACKENDS[name].weight_copies * weights, rel=0.1), forward


def test_weights_count_as_often_as_the_backend_asked_for_holds_them(tiny_model, monkeypatch):
    monkeypatch.delenv("UNETSEG_BACKEND", raising=False)
    description = read_description(tiny_model("tiny"))
    workload = Workload(source=(1, 32, 32, 32), shape=(32, 32, 32))
    weights = memory.weight_bytes("unet", json.dumps(description.network_config, sort_keys=True), (32, 32, 32))
    lone, any_backend = (
        memory.need_of(description, workload, Way(tile=(32, 32, 32), backend=name)).host for name in ("eager", "")
    )
    copies = [backend.weight_copies for backend in BACKENDS.values() if not backend().obstacle(torch.device("cpu"))]
    assert any_backend - lone == pytest.approx((max(copies) - BACKENDS["eager"].weight_copies) * weights)
    assert any_backend > lone


def test_ways_need_less_and_less_in_the_order_of_their_harm(tiny_model):
    description = read_description(tiny_model("tiny", patch_size=(64, 96, 64)))
    workload = Workload(source=(1, 300, 400, 400), shape=(300, 400, 400))
    left = list(ways(Way(tile=(64, 96, 64)), may_shrink=True, alignment=(2, 2, 2)))
    assert [way.tile for way in left] == [(64, 96, 64), (64, 48, 64), (32, 48, 64), (32, 48, 32), (32, 48, 32)]
    needs = [need_of(description, workload, way).host for way in left]
    assert needs == sorted(needs, reverse=True)
    assert left[-1].is_half
    assert left[-1].changes(left[0]) == "in tiles of 32 x 48 x 32 voxels and with sums in half precision"


def test_a_gpu_gives_up_tiles_precision_memory_and_itself_in_this_order(tiny_model):
    description = read_description(tiny_model("tiny", patch_size=(64, 64, 64)))
    workload = Workload(source=(1, 300, 400, 400), shape=(300, 400, 400), is_mirrored=True)
    left = list(ways(Way(tile=(64, 64, 64), device="cuda"), may_shrink=False, alignment=(2, 2, 2)))
    said = [way.changes(left[0]) for way in left]
    assert said == [
        "",
        "with sums in half precision",
        "with sums in half precision and with sums in main memory",
        "with sums in half precision and with sums in main memory and on the CPU",
        "with sums in half precision and with sums in main memory and on the CPU",
    ]
    needs = [need_of(description, workload, way) for way in left]
    assert needs[0].device > needs[1].device > needs[2].device > 0 == needs[3].device
    assert needs[2].host > needs[0].host


def make_greedy(predictor, most: int) -> list[int]:
    """Let the network run out of memory on tiles of more than so many voxels; return what it is asked for."""
    tiles = []

    def forward(_network, inputs):
        tiles.append(inputs[0][0, 0].numel())
        if tiles[-1] > most:
            raise torch.OutOfMemoryError("out of memory")

    predictor.engine.register_forward_pre_hook(forward)
    return tiles


def test_after_running_out_of_memory_smaller_tiles_find_the_same_and_it_is_said(tiny_model):
    predictor = Predictor(tiny_model("tiny", patch_size=(32, 64, 64)), device="cpu")
    wished = predictor.segment(volume())
    tiles = make_greedy(predictor, 32 * 32 * 32)
    found = predictor.segment(volume())
    assert tiles[0] == 32 * 64 * 64
    assert min(tiles) == 32 * 32 * 32
    (warning,) = found.warnings
    assert warning.startswith("memory is low: computed in tiles of 32 x 32 x 32 voxels")
    # Drawn weights on noise: with other tiles the norms see other means.
    assert np.mean(found.labelmap == wished.labelmap) > 0.6


def test_where_nothing_helps_the_error_is_that_of_the_last_way(tiny_model):
    predictor = Predictor(tiny_model("tiny", patch_size=(32, 32, 32)), device="cpu")
    tiles = make_greedy(predictor, 0)
    with pytest.raises(torch.OutOfMemoryError):
        predictor.segment(volume())
    assert len(tiles) == 2, "whole and with half the sums"


def test_other_errors_are_not_taken_for_a_lack_of_memory(tiny_model, monkeypatch):
    predictor = Predictor(tiny_model(), device="cpu")
    calls = []

    def broken(*_, **__):
        calls.append(1)
        raise RuntimeError("a fault")

    monkeypatch.setattr(memory_ladder, "logit_slabs", broken)
    with pytest.raises(RuntimeError, match="a fault"):
        predictor.segment(volume())
    assert len(calls) == 1


def test_what_does_not_fit_is_computed_in_a_thriftier_way_from_the_start_or_refused(tiny_model, monkeypatch):
    predictor = Predictor(tiny_model("tiny", patch_size=(32, 64, 64)), device="cpu")
    workload = Workload(source=(1, 40, 72, 70), shape=(40, 72, 70))
    left = list(ways(Way(tile=(32, 64, 64)), may_shrink=True, alignment=predictor.network.alignment))
    needs = [need_of(predictor.description, workload, way).host for way in left]
    assert needs[0] > needs[2]
    monkeypatch.setattr(memory, "free_bytes", lambda _device: needs[2] / memory._USABLE_SHARE + 1)
    assert "in tiles of 32 x 32 x 32 voxels" in predictor.segment(volume()).warnings[0]
    monkeypatch.setattr(memory, "free_bytes", lambda _device: needs[-1] * 0.9)
    with pytest.raises(InputError, match=r"needs about .* MB of memory, .* MB is free: segment a region"):
        predictor.segment(volume())
    monkeypatch.setattr(memory, "tile_bytes", lambda *_: pytest.fail("small images do not wait for the estimate"))
    monkeypatch.setattr(memory, "free_bytes", lambda _device: 2**34)
    assert predictor.segment(volume()).warnings == ()
    monkeypatch.setattr(memory, "free_bytes", lambda _device: None)
    assert predictor.segment(volume()).warnings == ()


def test_what_would_be_done_is_told_without_a_voxel(tiny_model, monkeypatch):
    predictor = Predictor(tiny_model("tiny", patch_size=(32, 64, 64)), device="cpu")
    # The network sees every second slice.
    half = np.diag([1.0, 1.0, 0.5, 1.0])
    empty = Volume(np.broadcast_to(np.int8(0), (1, 80, 72, 70)), half)
    workload = Workload(source=(1, 80, 72, 70), shape=(40, 72, 70))
    left = list(ways(Way(tile=(32, 64, 64)), may_shrink=True, alignment=predictor.network.alignment))
    needs = [need_of(predictor.description, workload, way).host for way in left]
    assert predictor.foresee(empty) == Foresight(need=None, way=left[0])
    monkeypatch.setattr(memory, "free_bytes", lambda _device: needs[2] / memory._USABLE_SHARE + 1)
    foreseen = predictor.foresee(empty)
    assert (foreseen.way, foreseen.refusal) == (left[2], "")
    assert foreseen.shortage == "in tiles of 32 x 32 x 32 voxels"
    assert foreseen.need.host == needs[2]
    monkeypatch.setattr(memory, "free_bytes", lambda _device: needs[-1] * 0.9)
    foreseen = predictor.foresee(empty)
    assert (foreseen.way, foreseen.shortage) == (left[-1], "")
    assert "segment a region, or close other programs" in foreseen.refusal
    with pytest.raises(InputError, match="has 2 channel"):
        predictor.foresee(Volume(np.broadcast_to(np.int8(0), (2, 80, 72, 70)), half))


def test_provenance_names_the_device_that_computed(tiny_model, monkeypatch):
    predictor = Predictor(tiny_model(), device="cpu")
    predictor.device = predictor.engine.device = torch.device("cuda")
    apply, tried = memory_ladder._apply, []

    def apply_on_full_gpu(engine, description, prepared, workload, way, **options):
        tried.append(way.device)
        if way.device == "cuda":
            raise torch.OutOfMemoryError("CUDA out of memory")
        return apply(engine, description, prepared, workload, way, **options)

    monkeypatch.setattr(memory, "free_bytes", lambda _device: None)
    monkeypatch.setattr(memory_ladder, "_apply", apply_on_full_gpu)
    found = predictor.segment(volume((20, 20, 20)))
    assert tried[0] == "cuda"
    assert tried[-1] == "cpu"
    assert found.provenance["device"] == "cpu"
    assert found.provenance["backend"] == "fused"
    assert "on the CPU" in found.warnings[0]


def test_imported_models_keep_their_tiles():
    way = Way(tile=(64, 64, 64))
    assert [entry.tile for entry in ways(way, may_shrink=False, alignment=(8, 8, 8))] == [(64, 64, 64)] * 2


def test_free_memory_is_what_the_host_leaves(monkeypatch):
    assert 0 < free_bytes("cpu") < 2**50
    monkeypatch.setattr(memory, "host_memory", lambda: HostMemory(total=9, available=5))
    assert free_bytes("cpu") == free_bytes("mps") == 5


@pytest.mark.parametrize("name", NETWORKS)
def test_the_rough_bound_is_several_times_what_any_network_takes(name):
    tile = (64, 64, 64)
    # hu_prior's and brain_tumour's numbers of sequences are their own.
    for channels in (1, 4):
        try:
            taken = memory.tile_bytes(
                name, json.dumps({"in_channels": channels, "num_classes": 3, "dimensions": 3}), tile
            )
            break
        except InputError:
            continue
    assert 3 * taken < memory._MAPS_ASSUMED * memory._WIDTH_ASSUMED * memory._FLOAT * np.prod(tile)
