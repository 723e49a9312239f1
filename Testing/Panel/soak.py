"""Many runs with cancels, closed scenes and reloads between them: nothing may be left, and memory stays flat.

As a program in the host, with the library's own worker: `make soak`. The suite runs a short version with a fake worker.
"""

import argparse
import contextlib
import ctypes
import gc
import os
import random
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import qt
import slicer

sys.path[:0] = [str(Path(__file__).parent)]

from panel_driver import PanelDriver, spheres, spin  # noqa: E402

RUN_S = 120.0
# torch names its pieces torch_PID_NUMBER.
SHARED_MEMORY = Path("/dev/shm")
EVENTS = {"finish": 0.55, "cancel": 0.2, "close": 0.15, "reload": 0.1}
OURS = ("Panel", "Jobs", "SegmentJob", "WorkerProcess", "_Child", "Steps", "FormerContent")
# The first runs fill caches and load what is loaded once.
WARM_UP_SHARE = 0.25
LARGEST_GROWTH_MB = 40.0


@dataclass
class Tally:
    """What is there at one moment."""

    nodes: int
    objects: dict[str, int]
    processes: int
    files: list[str]
    shared: list[str]
    descriptors: int
    memory_mb: float


@dataclass
class Report:
    """What a soak found."""

    events: Counter = field(default_factory=Counter)
    memory_mb: list[float] = field(default_factory=list)
    worker_mb: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    first: Tally | None = None
    last: Tally | None = None

    def growth_mb(self) -> float:
        """Return how much more memory the last quarter takes than the one after the warm-up, in the middle of each."""
        steady = self.memory_mb[int(len(self.memory_mb) * WARM_UP_SHARE) :]
        quarter = max(1, len(steady) // 3)
        return _median(steady[-quarter:]) - _median(steady[:quarter])


def _median(values: list[float]) -> float:
    return sorted(values)[len(values) // 2]


def soak(driver: PanelDriver, runs: int, *, seed: int = 0, slowModel: str, model: str) -> Report:
    """Run the panel many times, and count what is left.

    Args:
        driver: The opened panel.
        runs: How many runs are started.
        seed: Of the order of events.
        slowModel: A model that takes long enough to be interrupted.
        model: A model that ends by itself.
    """
    from slicer_host.uncaught import UNCAUGHT

    chance, report = random.Random(seed), Report()
    pids: set[int] = set()
    report.first = _settledTally(driver, pids)
    for number in range(runs):
        event = chance.choices(list(EVENTS), weights=list(EVENTS.values()))[0]
        report.events[event] += 1
        volume = driver.parameters.inputVolume or driver.addVolume(spheres(24 + number % 9))
        driver.parameters.inputVolume = volume
        driver.parameters.uncertainty = chance.random() < 0.3
        chosen = model if event == "finish" else slowModel
        _run(driver, event, chosen, patience_s=chance.uniform(0.02, 0.8), report=report)
        if chance.random() < 0.3:
            slicer.mrmlScene.Clear()
        report.memory_mb.append(_memory_mb(os.getpid()))
        pid = driver.jobs.worker.ready.get("pid", 0)
        pids.add(pid)
        report.worker_mb.append(_memory_mb(pid))
        report.errors += UNCAUGHT
        UNCAUGHT.clear()
    slicer.mrmlScene.Clear()
    report.last = _settledTally(driver, pids)
    return report


def _run(driver: PanelDriver, event: str, model: str, *, patience_s: float, report: Report) -> None:
    driver.chooseModel(model)
    assert spin(lambda: driver.ui.applyButton.enabled, RUN_S), driver.says
    driver.press()
    if driver.ui.questionFrame.visible:
        driver.ui.replaceButton.click()
    if event == "finish":
        assert spin(lambda: not driver.jobs.isRunning, RUN_S), driver.says
        if "Found" not in driver.says and "Nothing was found" not in driver.says:
            report.errors.append(driver.says)
        return
    until = time.monotonic() + patience_s
    spin(lambda: time.monotonic() > until or not driver.jobs.isRunning, RUN_S)
    if event == "cancel" and driver.jobs.isRunning:
        driver.press()
    elif event == "close":
        slicer.mrmlScene.Clear()
    elif event == "reload":
        slicer.modules.unetsegmentation.widgetRepresentation().reload()
        driver.open()
    assert spin(lambda: not driver.jobs.isRunning, RUN_S), driver.says


def _settledTally(driver: PanelDriver, pids: set[int]) -> Tally:
    spin(lambda: not driver.leftovers(), 5.0)
    # Every worker but the present one has to be gone.
    spin(lambda: len(_children()) <= 1, 5.0)
    # What a reload deletes later waits for the outermost event loop, which a script never gets back to.
    qt.QCoreApplication.sendPostedEvents(None, qt.QEvent.DeferredDelete)
    gc.collect()
    # Of some types of extension modules `__module__` is no text.
    kinds = [type(one) for one in gc.get_objects()]
    objects = Counter(kind.__name__ for kind in kinds if str(kind.__module__).startswith("UNetSeg"))
    return Tally(
        nodes=slicer.mrmlScene.GetNumberOfNodes(),
        objects={name: objects[name] for name in OURS},
        processes=len(_children()),
        files=driver.leftovers(),
        shared=[name for name in _names(SHARED_MEMORY) if any(f"_{pid}_" in name for pid in pids)],
        descriptors=len(_names(Path("/proc/self/fd"))),
        memory_mb=_memory_mb(os.getpid()),
    )


def _names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()] if folder.is_dir() else []


def _children() -> list[str]:
    found: list[str] = []
    for thread in Path(f"/proc/{os.getpid()}/task").iterdir():
        # A thread may end meanwhile.
        with contextlib.suppress(OSError):
            found += (thread / "children").read_text().split()
    return found


def _memory_mb(pid: int) -> float:
    """Return the memory that a process has for itself; what the allocator only keeps is given back first."""
    if pid == os.getpid():
        ctypes.CDLL(None).malloc_trim(0)
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("RssAnon")), 0.0)


def faults(report: Report) -> list[str]:
    """Return what speaks against a soak's report, in sentences."""
    first, last = report.first, report.last
    found = [f"an error: {error}" for error in report.errors]
    if last.nodes > first.nodes:
        found.append(f"{last.nodes - first.nodes} nodes are left")
    found += [
        f"{count} objects of class {name} are there, {first.objects[name]} at the beginning"
        for name, count in last.objects.items()
        if count > max(first.objects[name], 1)
    ]
    if last.processes > 1:
        found.append(f"{last.processes} processes are there, 1 is allowed")
    if last.files:
        found.append(f"folders are left: {', '.join(last.files)}")
    if last.shared:
        found.append(f"shared memory is left: {', '.join(last.shared)}")
    if last.descriptors > first.descriptors + 10:
        found.append(f"{last.descriptors - first.descriptors} file descriptors are left")
    if report.growth_mb() > LARGEST_GROWTH_MB:
        found.append(f"memory grew by {report.growth_mb():.0f} MB")
    return found


class _RealDriver(PanelDriver):
    """The panel with the library's own worker."""

    def open(self) -> None:
        super().open()
        self.jobs.worker.stop()
        self.jobs.worker.command = None
        self.widget.enter()


def main() -> None:
    """Soak the panel in the host; `sys.exit` leaves the application with its exit code."""
    parser = argparse.ArgumentParser(prog="soak.py", description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--model", default="mri-hippocampus-unet")
    options = parser.parse_args()
    driver: Any = _RealDriver(Path(slicer.app.temporaryPath))
    driver.open()
    began = time.monotonic()
    report = soak(driver, options.runs, model=options.model, slowModel=options.model)
    found = faults(report)
    sys.stdout.write(f"{options.runs} runs in {time.monotonic() - began:.0f} s: {dict(report.events)}\n")
    sys.stdout.write(f"first {report.first}\nlast  {report.last}\n")
    sys.stdout.write(f"panel {[round(value) for value in report.memory_mb[:: max(1, options.runs // 20)]]} MB\n")
    sys.stdout.write(f"worker {[round(value) for value in report.worker_mb[:: max(1, options.runs // 20)]]} MB\n")
    sys.stdout.write(f"growth {report.growth_mb():.1f} MB\n")
    driver.close()
    sys.exit("\n".join(found) or 0)


if __name__ == "__main__":
    main()
