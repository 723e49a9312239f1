"""Time, memory and agreement of this library's segmentation and its peers', on the same weights and volume.

Every engine has its own process and they take turns, so that other load on the machine affects all of them.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from ..backends.contract import Computation
from ..backends.parts.store import Store, identity_of
from ..backends.parts.timing import Result, Subject, default_backend, fastest, machine, measure
from ..core.errors import InputError
from ..core.task import UNWATCHED, Task
from ..evaluation.metrics.overlap import dice
from ..image.geometry import Array, Volume
from ..importers import import_model
from ..models.description import read_description, write_description
from ..models.fit import check_image_fits
from ..models.installed import find_model
from ..networks.parts.cost import summarise_network
from ..networks.parts.weights import load_network
from ..planning.monai_recipe import MonaiRecipe, Resample, ScaleRange, Standardise, Tiling
from ..planning.plan import Normalization
from .convolution_peak import convolution_peak

OWN, TWIN = "unetseg", "unetseg as monai"
# Names of peers, and the package each needs.
PEERS = {"nnunetv2": "nnunetv2", "monai": "monai"}
LEAST_VOXELS = 1000  # of a class with a meaningful Dice
_NNUNET_MARK = "plans.json"
_NO_SOURCE = {
    "nnunetv2": "it only runs results folders of nnU-Net, which this model is not",
    "monai": "it cannot reproduce this model's preprocessing",
}


@dataclass(frozen=True, kw_only=True)
class Figures:
    """Measurements of one engine.

    Attributes:
        engine: Its name.
        seconds: Median of the runs, volume in to labelmap out.
        extra_mb: Median peak memory that a run adds, in MiB.
        load_s: Loading time before the first run.
        tiles: Tiles computed in a run.
        details: Further details it reported.
        peak_share: Rate of convolutions over the whole run, as a share of the machine's peak.
        equal_labels: Share of voxels with the same label as ours under the same conventions; 1 for ours.
        dice: Dice by label value against the same, for classes of more than LEAST_VOXELS voxels in either.
    """

    engine: str
    seconds: float
    extra_mb: float
    load_s: float
    tiles: int
    details: str
    peak_share: float
    equal_labels: float
    dice: dict[int, float]


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Result of a benchmark.

    Attributes:
        machine: Properties that determine the speed.
        peak_gflops: Rate of single float32 convolutions here.
        tile_gflop: Operations of a tile.
        engines: Ours first.
        missing: Peers that could not run, and why.
        runs: Number of measured runs each.
        backends: Result of each of our backends, in words; empty if not requested.
    """

    machine: dict[str, Any]
    peak_gflops: float
    tile_gflop: float
    engines: tuple[Figures, ...]
    missing: dict[str, str]
    runs: int
    backends: dict[str, str] = field(default_factory=dict)


def compare(
    model: str,
    volume: Volume,
    *,
    against: Sequence[str] = (),
    pythons: Sequence[str] = (),
    runs: int = 5,
    is_measured: bool = False,
    task: Task = UNWATCHED,
) -> Comparison:
    """Segment a volume several times with every engine in turn.

    Args:
        model: Id or folder of a model, or a results folder of nnU-Net, which is imported for ours.
        volume: Input of the model.
        against: Names of peers.
        pythons: Interpreters to search for a peer's package if this one lacks it.
        runs: Number of measured runs, after one warm-up run.
        is_measured: First find our fastest backend for this model, including those that are slow to build.
        task: Told the finished share and the current step, and checked for cancellation before each run.

    Raises:
        InputError: Unknown model, peer or interpreter, or our engine failed.
        CancelledError: The task was cancelled.
    """
    for name in against:
        if name not in PEERS:
            raise InputError(f"unknown peer '{name}': choose one of {', '.join(PEERS)}")
    if runs < 1:
        raise InputError(f"runs is {runs}: must be at least 1")
    for path in pythons:
        if shutil.which(path) is None:
            raise InputError(f"interpreter {path} does not exist: use the path of a Python interpreter")
    with tempfile.TemporaryDirectory(prefix="unetseg-bench-") as scratch, ExitStack() as stack:
        folder = Path(scratch)
        own, foreign = _models(model, folder)
        check_image_fits(read_description(own), channels=volume.channels, shape=volume.shape)
        np.savez(folder / "volume.npz", array=volume.array, affine_ras=volume.affine_ras, spacing_mm=volume.spacing_mm)
        backends = _measure(own, task) if is_measured else {}
        task.progress(0.0, "loading")
        engines = {OWN: stack.enter_context(_engine("own", own, folder, sys.executable))}
        missing = {}
        for name in against:
            python = _python_with(PEERS[name], pythons)
            source = foreign if name == "nnunetv2" else _copy_for_monai(own, folder)
            if python is None:
                missing[name] = f"no interpreter has the package {PEERS[name]}: install it, or name one that has it"
            elif source is None:
                missing[name] = _NO_SOURCE[name]
            else:
                if name == "monai":
                    engines[TWIN] = stack.enter_context(_engine("own", source, folder, sys.executable))
                engines[name] = stack.enter_context(_engine(name, source, folder, python))
        answers = _take_turns(engines, folder, runs=runs, missing=missing, task=task)
        return replace(_summarise(own, answers, missing, runs=runs), backends=backends)


@dataclass(frozen=True, kw_only=True)
class _Answers:
    """Results of an engine: its loading time, its runs and its labelmap."""

    load_s: float
    runs: list[dict[str, Any]]
    labelmap: Array


def _models(model: str, scratch: Path) -> tuple[Path, Path | None]:
    """Return our model folder and nnU-Net's, or None."""
    if not (Path(model) / _NNUNET_MARK).is_file():
        return find_model(model).folder, None
    own = scratch / "model"
    import_model(Path(model), own)
    return own, Path(model).resolve()


def _copy_for_monai(own: Path, scratch: Path) -> Path | None:
    """Return a model folder with the same weights and MONAI's conventions, or None if MONAI cannot reproduce it.

    MONAI resamples, tiles and blends differently from this library and nnU-Net, which changes results more than an
    engine may: so each peer is compared with ours under its conventions.
    """
    description = read_description(own)
    plan = description.plan
    if plan.conventions == "monai":
        return own
    steps = [_step_of(scheme) for scheme in plan.normalization[:1]]
    if plan.dimensions != 3 or len(set(plan.normalization)) > 1 or description.output != "labels" or None in steps:
        return None
    tiling = Tiling(overlap=0.5, weights="gaussian")
    recipe = MonaiRecipe(steps=(Resample(), *(step for step in steps if step)), tiling=tiling, restored="logits")
    folder = scratch / "monai-twin"
    shutil.copytree(own, folder)
    write_description(folder, replace(description, plan=replace(plan, conventions="monai", recipe=recipe)))
    return folder


def _step_of(scheme: Normalization) -> ScaleRange | Standardise | None:
    if scheme.scheme == "ct":
        source = (scheme.lower, scheme.upper)
        lower, upper = ((end - scheme.mean) / scheme.std for end in source)
        return ScaleRange(source=source, target=(lower, upper), is_clipped=True)
    if scheme.scheme == "zscore":
        return Standardise(is_masked=scheme.use_mask, is_each_channel=True)
    return None


def _measure(own: Path, task: Task) -> dict[str, str]:
    """Measure all backends, and store the results for later runs; return them in words."""
    network, description = load_network(own)
    plan, device = description.plan, torch.device("cpu")
    size = plan.patch_size if plan.dimensions == 3 else plan.patch_size[1:]
    computation = Computation(
        network=network,
        shape=(1, network.config.in_channels, *size),
        device=device,
        store=Store(),
        identity=identity_of(description),
    )
    subject = Subject(
        computation=computation, raw_channels=network.raw_channels, is_regions=description.output == "regions"
    )
    results: dict[str, Result] = {}
    for results in measure(subject, with_slow=True):
        task.check()
        task.progress(0.0, f"measuring backends ({len(results)} done)")
    chosen = fastest(results, default_backend(device))
    return {
        name: result.reason or f"{result.forward_s:.3f} s a tile{', chosen' if name == chosen else ''}"
        for name, result in results.items()
    }


def _python_with(package: str, pythons: Sequence[str]) -> str | None:
    """Return the first interpreter that has a package, trying this one first."""
    if importlib.util.find_spec(package):
        return sys.executable
    question = f"import importlib.util as u, sys; sys.exit(u.find_spec('{package}') is None)"
    for python in pythons:
        if subprocess.run([python, "-c", question], check=False, capture_output=True).returncode == 0:
            return python
    return None


@contextmanager
def _engine(module: str, model: Path, scratch: Path, python: str) -> Iterator[subprocess.Popen[str]]:
    library = Path(__file__).parents[1]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(library.parent), os.environ.get("PYTHONPATH", "")])}
    log = scratch / f"{module}.log"
    with log.open("w") as errors:
        process = subprocess.Popen(
            [python, "-m", f"{library.name}.benchmark.engines.{module}", str(model), str(scratch / "volume.npz")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            env=environment,
            text=True,
        )
        try:
            yield process
        finally:
            process.kill()
            process.communicate()


def _take_turns(
    engines: dict[str, subprocess.Popen[str]],
    folder: Path,
    *,
    runs: int,
    missing: dict[str, str],
    task: Task,
) -> dict[str, _Answers]:
    """Run every engine in turn, first once to warm up; an engine that fails is listed in `missing`."""
    loads: dict[str, float] = {}
    answers: dict[str, list[dict[str, Any]]] = {}
    for name, process in engines.items():
        answer = _next_answer(process)
        if "error" in answer:
            _note_failure(name, answer["error"], missing)
        else:
            loads[name], answers[name] = answer["load_s"], []
    done, total = 0, (runs + 1) * len(answers)
    for turn in range(runs + 1):
        for name in list(answers):
            task.check()
            task.progress(done / total, f"{name}, run {turn} of {runs}" if turn else f"{name}, warming up")
            answer = _ask(engines[name], folder / f"{name}.npy")
            done += 1
            if "error" in answer:
                _note_failure(name, answer["error"], missing)
                del answers[name]
            elif turn:
                answers[name].append(answer)
    return {
        name: _Answers(load_s=loads[name], runs=given, labelmap=np.load(folder / f"{name}.npy"))
        for name, given in answers.items()
    }


def _note_failure(name: str, reason: str, missing: dict[str, str]) -> None:
    if name in (OWN, TWIN):
        raise InputError(f"this model cannot be benchmarked on this image: {reason}")
    missing[name] = f"it failed: {reason}"


def _ask(process: subprocess.Popen[str], labelmap: Path) -> dict[str, Any]:
    assert process.stdin is not None
    try:
        process.stdin.write(f"{labelmap}\n")
        process.stdin.flush()
    except OSError:
        return {"error": "its process ended"}
    return _next_answer(process)


def _next_answer(process: subprocess.Popen[str]) -> dict[str, Any]:
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        return {"error": f"its process ended with status {process.wait()}"}
    answer: dict[str, Any] = json.loads(line)
    return answer


def _summarise(own: Path, answers: dict[str, _Answers], missing: dict[str, str], *, runs: int) -> Comparison:
    _, description = load_network(own)
    plan = description.plan
    size = plan.patch_size if plan.dimensions == 3 else plan.patch_size[1:]
    per_tile = summarise_network(description.network, description.network_config, size).flops * description.members
    peak = convolution_peak()
    figures = []
    for name, given in answers.items():
        # A peer is compared with ours under the conventions of the peer.
        reference = answers[TWIN if TWIN in answers and name in (TWIN, "monai") else OWN].labelmap
        seconds = median(run["seconds"] for run in given.runs)
        tiles = given.runs[-1]["tiles"]
        rate = per_tile / (description.members if name == "nnunetv2" else 1) * tiles / seconds / 1e9
        figures.append(
            Figures(
                engine=name,
                seconds=seconds,
                extra_mb=median(run["extra_mb"] for run in given.runs),
                load_s=given.load_s,
                tiles=tiles,
                details=given.runs[-1]["details"],
                peak_share=rate / peak,
                equal_labels=float(np.mean(given.labelmap == reference)),
                dice=_dice(given.labelmap, reference),
            )
        )
    return Comparison(
        machine=machine(torch.device("cpu")),
        peak_gflops=peak,
        tile_gflop=per_tile / 1e9,
        engines=tuple(figures),
        missing=missing,
        runs=runs,
    )


def _dice(labelmap: Array, reference: Array) -> dict[int, float]:
    present = np.union1d(np.unique(labelmap), np.unique(reference))
    masks = ((int(value), labelmap == value, reference == value) for value in present if value)
    return {
        value: dice(found, expected)
        for value, found, expected in masks
        if max(np.count_nonzero(found), np.count_nonzero(expected)) > LEAST_VOXELS
    }
