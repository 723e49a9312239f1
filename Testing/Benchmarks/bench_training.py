"""Time and memory of a training step against nnU-Net v2's trainer, with the same network, patch, batch and data.

python Testing/Benchmarks/bench_training.py DATASET --nnunet-python PYTHON [--batches 2 9] [--rounds 3] [--steps 20]
                                            [--warm-up 8] [--work FOLDER] [--json]

DATASET has images/ and labels/ of the hippocampus set; PYTHON is the interpreter of an environment with nnunetv2. There
nnU-Net plans the set and trains unmodified on the CPU: with its loader processes, augmentation, loss and optimiser, in
float32. Ours trains a network of the same weights, translated from that plan as the importer does it,
with our augmentation, loss and optimiser: in the precision chosen automatically, and in float32.

Every training runs in its own process, and they alternate, so that other load on the machine affects all. A step lasts
from one to the next, including the wait for its batch; the first ones do not count, because loaders have batches
ready by then. Memory is the peak of a training's processes together, counting shared pages once, less
their memory after all imports. All figures are medians.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import threading
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from time import perf_counter, sleep
from typing import Any

ROOT = Path(__file__).parents[2]
THEIRS = Path(__file__).with_name("nnunet_steps.py")
NNUNET, OURS, OURS_FLOAT32 = "nnU-Net", "ours", "ours, float32"
SAMPLE_S = 0.05


@dataclass
class Run:
    """Output and cost of one training."""

    about: dict[str, Any] = field(default_factory=dict)
    seconds: list[float] = field(default_factory=list)
    memory_mib: float | None = None


class MemoryWatch:
    """Follows the memory of a process and its descendants from the moment of `begin`; Linux only."""

    def __init__(self, process_id: int) -> None:
        self._process_id = process_id
        self._begun_at: int | None = None
        self._peak = 0
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()

    def begin(self) -> None:
        """Count from here."""
        self._begun_at = self._peak = memory_of_tree(self._process_id)

    def end(self) -> float | None:
        """Return the additional MiB at the peak, or None if it could not be measured."""
        self._is_over.set()
        self._thread.join()
        return (self._peak - self._begun_at) / 2**20 if self._begun_at else None

    def _follow(self) -> None:
        while not self._is_over.wait(SAMPLE_S):
            if self._begun_at is not None:
                self._peak = max(self._peak, memory_of_tree(self._process_id))


def memory_of_tree(process_id: int) -> int:
    """Return the resident bytes of a process and its descendants, with shared pages divided among them."""
    total = 0
    try:
        lines = Path(f"/proc/{process_id}/smaps_rollup").read_text(encoding="ascii").splitlines()
        total += next(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
        children = [path.read_text(encoding="ascii") for path in Path(f"/proc/{process_id}/task").glob("*/children")]
    except (OSError, StopIteration):  # it has ended, or this is not Linux
        return total
    return total + sum(memory_of_tree(int(child)) for child in " ".join(children).split())


def run_training(command: list[str]) -> Run:
    """Run one process to its end and return its output."""
    result = Run()
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with (
        tempfile.TemporaryFile("w+") as log,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, env=environment) as child,
    ):
        assert child.stdout is not None
        watch = MemoryWatch(child.pid)
        for line in child.stdout:
            event = json.loads(line)
            if event.pop("event") == "step":
                result.seconds.append(event["seconds"])
                continue
            if "versions" in event:
                watch.begin()
            result.about.update(event)
        result.memory_mib = watch.end()
        if child.wait():
            log.seek(0)
            sys.exit(f"{' '.join(command)} failed:\n{log.read()[-3000:]}")
    return result


def train_ours(data: Path, plans_file: Path, *, batch: int, steps: int, precision: str) -> None:
    """Train ours, in this process, and write one JSON object a line: the seconds of each step."""
    import torch

    from UNetSegmentationLib.cases.dataset import find_cases
    from UNetSegmentationLib.core.task import Event, Task
    from UNetSegmentationLib.image.labels import Label
    from UNetSegmentationLib.importers.nnunet.plans import configuration_of, network_of, plan_of
    from UNetSegmentationLib.networks import build_network
    from UNetSegmentationLib.training.loop import train
    from UNetSegmentationLib.training.options import TrainingOptions
    from UNetSegmentationLib.training.prepared_cases import PreparedFolder
    from UNetSegmentationLib.training.setup import augmentation_for

    def send(**event: Any) -> None:
        sys.stdout.write(json.dumps(event) + "\n")
        sys.stdout.flush()

    send(event="imported", versions={"torch": torch.__version__})
    plans = json.loads(plans_file.read_text(encoding="utf-8"))
    configuration = {**configuration_of(plans, "3d_fullres"), "batch_size": batch}
    plan = plan_of(plans, configuration, mirror_axes=(0, 1, 2))
    name, shape = network_of(configuration, trainer="nnUNetTrainer", channels=1, classes=3)
    torch.manual_seed(0)
    network = build_network(name, {**shape, "deep_supervision": True})
    labels = [Label(value=value, name=f"label {value}", color=(200, 0, 0)) for value in (1, 2)]
    # nnU-Net trains on four of five cases.
    of_training = [case for index, case in enumerate(find_cases(data)) if index % 5]
    options = TrainingOptions(steps=steps, precision=precision, validate_every=0, checkpoint_every_s=1e9)
    weights = sum(parameter.numel() for parameter in network.parameters())
    with tempfile.TemporaryDirectory() as folder:
        prepared = PreparedFolder(Path(folder), plan, labels)
        prepared.fill(of_training)
        cases = [prepared.open(case) for case in of_training]
        before = perf_counter()

        def time_event(event: Event) -> None:
            nonlocal before
            now = perf_counter()
            if event["event"] == "start":
                send(event="start", weights=weights, threads=torch.get_num_threads(), precision=event["precision"])
            elif event["event"] == "step":
                send(event="step", seconds=now - before)
            before = perf_counter()

        train(
            network, cases, [], plan, options=options, augmentation=augmentation_for(plan, labels),
            folder=Path(folder), device=torch.device("cpu"), task=Task(time_event),
        )  # fmt: skip


def compare(arguments: argparse.Namespace, work: Path, batch: int) -> dict[str, Any]:
    """Return the medians of all sides for one batch size; their trainings alternate."""
    plans = work / "preprocessed" / "Dataset004_Hippocampus" / "nnUNetPlans.json"
    counts = ["--batch", str(batch), "--steps", str(arguments.warm_up + arguments.steps)]
    ours = [sys.executable, __file__, str(arguments.dataset), "--plans", str(plans), *counts, "--precision"]
    commands = {
        NNUNET: [arguments.nnunet_python, str(THEIRS), "train", str(work), *counts],
        OURS: [*ours, "auto"],
        OURS_FLOAT32: [*ours, "float32"],
    }
    runs: dict[str, list[Run]] = {side: [] for side in commands}
    for _ in range(arguments.rounds):
        for side, command in commands.items():
            runs[side].append(run_training(command))
            sleep(1)
    sides = {side: _medians(of_side, arguments.warm_up) for side, of_side in runs.items()}
    if len({side["weights"] for side in sides.values()}) != 1:
        sys.exit(f"the networks differ: {[side['weights'] for side in sides.values()]} weights")
    return {"batch": batch, "sides": sides}


def _medians(runs: list[Run], warm_up: int) -> dict[str, Any]:
    seconds = [value for run in runs for value in run.seconds[warm_up:]]
    memory = [run.memory_mib for run in runs if run.memory_mib is not None]
    about = {name: runs[0].about[name] for name in ("weights", "threads", "versions")}
    precisions = sorted({str(run.about.get("precision", "float32")) for run in runs})
    return {
        **about,
        "precision": "/".join(precisions),
        "step_s": median(seconds),
        "steps": len(seconds),
        "memory_mib": median(memory) if memory else None,
    }


def format_table(rows: list[dict[str, Any]]) -> str:
    """Return the rows as Markdown; ratios are relative to nnU-Net."""
    lines = [
        "| batch | trainer | precision | step (ms) | of nnU-Net's | extra memory (MiB) | of nnU-Net's |",
        "|---:|---|---|---:|---:|---:|---:|",
    ]
    for row in rows:
        theirs = row["sides"][NNUNET]
        for name, side in row["sides"].items():
            memory, whole = side["memory_mib"], theirs["memory_mib"]
            cells = [str(row["batch"]), name, side["precision"], f"{side['step_s'] * 1e3:.0f}"]
            cells += [f"{side['step_s'] / theirs['step_s']:.2f}", "-" if memory is None else f"{memory:.0f}"]
            lines.append("| " + " | ".join([*cells, f"{memory / whole:.2f}" if memory and whole else "-"]) + " |")
    return "\n".join(lines)


def plan_with_nnunet(arguments: argparse.Namespace, work: Path) -> dict[str, Any]:
    """Let nnU-Net plan and preprocess the set, unless done in the folder already, and return its configuration."""
    plans = work / "preprocessed" / "Dataset004_Hippocampus" / "nnUNetPlans.json"
    if not plans.is_file():
        run_training([arguments.nnunet_python, str(THEIRS), "plan", str(arguments.dataset), str(work)])
    configuration: dict[str, Any] = json.loads(plans.read_text(encoding="utf-8"))["configurations"]["3d_fullres"]
    return configuration


def report(arguments: argparse.Namespace, work: Path) -> str:
    """Measure and return the text to print."""
    configuration = plan_with_nnunet(arguments, work)
    rows = [compare(arguments, work, batch) for batch in arguments.batches]
    theirs, ours = (rows[0]["sides"][side] for side in (NNUNET, OURS))
    packages = ", ".join(f"{name} {number}" for name, number in theirs["versions"].items())
    machine = (
        f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores; nnU-Net: {theirs['threads']} threads, "
        f"{packages}; ours: {ours['threads']} threads, torch {ours['versions']['torch']}, "
        f"Python {platform.python_version()}"
    )
    patch = " x ".join(str(size) for size in configuration["patch_size"])
    setting = (
        f"patch {patch}, {theirs['weights']:,} weights (nnU-Net plans a batch of {configuration['batch_size']}); "
        f"medians of {arguments.rounds} x {arguments.steps} steps after {arguments.warm_up}"
    )
    if arguments.json:
        return json.dumps({"machine": machine, "setting": setting, "rows": rows}, indent=1)
    return f"{machine}\n{setting}\n\n{format_table(rows)}"


def main() -> None:
    """Run from the command line; with --plans run one training of ours, for one line of the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--nnunet-python", help="interpreter of an environment with nnunetv2")
    parser.add_argument("--batches", type=int, nargs="+", default=[2, 9])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=20, help="that count, in every round")
    parser.add_argument("--warm-up", type=int, default=8, help="steps before them")
    parser.add_argument("--work", type=Path, help="where nnU-Net's prepared data stay for the next time")
    parser.add_argument("--json", action="store_true")
    for name, kind in (("--plans", Path), ("--batch", int), ("--precision", str)):
        parser.add_argument(name, type=kind, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.plans:
        options = {"batch": arguments.batch, "steps": arguments.steps, "precision": arguments.precision}
        train_ours(arguments.dataset, arguments.plans, **options)
        return
    if not arguments.nnunet_python:
        parser.error("--nnunet-python is required: pass the interpreter of an environment with nnunetv2")
    with tempfile.TemporaryDirectory() as folder:
        sys.stdout.write(report(arguments, arguments.work or Path(folder)) + "\n")


if __name__ == "__main__":
    main()
