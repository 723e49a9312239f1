"""Peak memory of `unetseg train` on data sets of different sizes.

python Testing/Benchmarks/bench_dataset_memory.py [--cases N ...] [--side VOXELS] [--steps N] [--source FOLDER] [--json]

A data set is one random volume under many names; each training runs in its own process. Memory that the system can
reclaim at any time, because it is mapped from a file, has its own column, which includes the libraries.
Linux only.
SOURCE is another checkout of the library, for comparison.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path
from time import sleep
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from UNetSegmentationLib.commands.parts.terminal import write_json, write_table  # noqa: E402  # the path comes first
from UNetSegmentationLib.image.geometry import Volume  # noqa: E402
from UNetSegmentationLib.image.volume_io import write_labelmap, write_volume  # noqa: E402

SAMPLE_S = 0.02


def make_data(folder: Path, *, cases: int, side: int) -> None:
    """Write a data set of cubes of noise, each with a labelled cube in it."""
    generator = np.random.default_rng(0)
    labels = np.zeros((side,) * 3, dtype=np.uint8)
    labels[(slice(side // 4, side // 2),) * 3] = 1
    image = generator.normal(100, 20, labels.shape).astype(np.float32) + 40 * labels
    write_volume(folder / "image.mha", Volume(image[None], np.eye(4)))
    write_labelmap(folder / "labels.mha", labels, affine_ras=np.eye(4))
    for kind, file in (("images", "image.mha"), ("labels", "labels.mha")):
        (folder / kind).mkdir()
        for number in range(cases):
            (folder / kind / f"c{number:04d}.mha").symlink_to(folder / file)


def measure(cases: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """Train on a data set and return the peaks of its memory in MiB."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_data(folder, cases=cases, side=arguments.side)
        command = [sys.executable, "-m", "UNetSegmentationLib", "train", str(folder), "-o", str(folder / "model"),
                   "--steps", str(arguments.steps), "--validate-every", "0", "--quiet"]  # fmt: skip
        environment = {**os.environ, "PYTHONPATH": str(arguments.source.resolve())}
        peaks = {"anonymous_mib": 0.0, "mapped_mib": 0.0, "prepared_mib": 0.0}
        with (
            tempfile.TemporaryFile("w+") as log,
            subprocess.Popen(command, cwd=folder, stdout=log, stderr=log, env=environment) as child,
        ):
            while child.poll() is None:
                now = {**memory_of(child.pid), "prepared_mib": size_of(folder / "model" / "prepared")}
                peaks = {key: max(peak, now.get(key, 0.0)) for key, peak in peaks.items()}
                sleep(SAMPLE_S)
            if child.returncode:
                log.seek(0)
                sys.exit(f"{' '.join(command)} failed:\n{log.read()[-3000:]}")
    return {"cases": cases, **{key: round(peak) for key, peak in peaks.items()}}


def size_of(folder: Path) -> float:
    """Return the MiB of the files in a folder; 0 if one is just being renamed or removed."""
    try:
        return sum(path.stat().st_size for path in folder.glob("*")) / 2**20
    except OSError:
        return 0.0


def memory_of(process_id: int) -> dict[str, float]:
    """Return the MiB of a process that only swapping could free, and those mapped from files."""
    try:
        text = Path(f"/proc/{process_id}/status").read_text(encoding="ascii")
    except OSError:  # it has ended
        return {}
    values = dict(line.split(":", 1) for line in text.splitlines())
    names = {"anonymous_mib": "RssAnon", "mapped_mib": "RssFile"}
    return {key: int(values[name].split()[0]) / 1024 for key, name in names.items() if name in values}


def main() -> int:
    """Measure each size and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, nargs="+", default=[6, 24])
    parser.add_argument("--side", type=int, default=160, help="voxels along each axis (160)")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--source", type=Path, default=ROOT)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    if not Path("/proc/self/status").exists():
        parser.error("memory use is read from /proc: run it on Linux")
    if not (arguments.source / "UNetSegmentationLib").is_dir():
        parser.error(f"--source {arguments.source} contains no UNetSegmentationLib: pass a checkout")
    rows = [measure(cases, arguments) for cases in arguments.cases]
    if arguments.json:
        write_json(sys.stdout, rows)
        return 0
    columns = {"cases": "cases", "anonymous_mib": "anonymous MiB", "mapped_mib": "mapped MiB",
               "prepared_mib": "prepared MiB"}  # fmt: skip
    lines = [[str(row[key]) for key in columns] for row in rows]
    machine = f"{platform.machine()}, {os.cpu_count()} processors"
    sys.stdout.write(f"{machine}, Python {platform.python_version()}, one run\n")
    write_table(sys.stdout, list(columns.values()), lines, right=range(len(columns)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
