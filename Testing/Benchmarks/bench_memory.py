"""Peak and predicted memory of a segmentation, for networks with random weights.

python Testing/Benchmarks/bench_memory.py [--case NAME ...] [--limit-gb SIZE] [--slices N] [--json]

Each case runs in its own process, which loads a model and makes a volume of noise; the peak is the additional memory
until the labelmap is ready. Linux only.

With a limit the process gets no more memory than that in total, as on a small computer: the library sees only that
much free, and the system denies more. It fails if the peak of the process exceeds the limit nevertheless.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field, replace
from math import inf
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from UNetSegmentationLib.inference.predictor import Predictor

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))


@dataclass(frozen=True, kw_only=True)
class Case:
    """A network and a volume."""

    network: str
    features: tuple[int, ...]
    classes: int
    tile: tuple[int, int, int]
    shape: tuple[int, int, int]
    spacing_mm: float = 1.0
    channels: int = 1
    dimensions: int = 3
    overlap: float = 0.5
    options: dict[str, Any] = field(default_factory=dict)


CASES = {
    "hippocampus": Case(network="unet", features=(16, 32, 64, 128), classes=3, tile=(40, 56, 40), shape=(36, 52, 36)),
    "ct": Case(
        network="nnunet_plain", features=(32, 64, 128), classes=25, tile=(64, 64, 64), shape=(80, 100, 100),
        spacing_mm=0.8,
    ),
    "brain": Case(network="unet", features=(8, 16, 32), classes=4, tile=(64, 64, 64), shape=(99, 200, 200), channels=4),
    # Resampled more coarsely, for which all sequences are blurred.
    "coarser brain": Case(
        network="unet", features=(8, 16, 32), classes=4, tile=(64, 64, 64), shape=(155, 240, 240), spacing_mm=0.5,
        channels=4,
    ),
    # More weights than features.
    "wide": Case(network="unet", features=(32, 64, 128, 256, 320), classes=3, tile=(32, 32, 32), shape=(40, 40, 40)),
    "slices": Case(
        network="attention_unet", features=(16, 32, 64), classes=3, tile=(1, 256, 256), shape=(4, 320, 320),
        dimensions=2,
    ),
    # A hundred structures in a whole body; a small network and few tiles, since memory is what is measured.
    "whole body": Case(
        network="unet", features=(4, 8), classes=100, tile=(96, 96, 96), shape=(1000, 512, 512), overlap=0.25,
    ),
}  # fmt: skip


def make_model(folder: Path, case: Case) -> None:
    """Write a model folder with random weights."""
    import torch

    from UNetSegmentationLib.core.files import sha256_of
    from UNetSegmentationLib.image.labels import Label
    from UNetSegmentationLib.models.description import WEIGHTS_FILE, Channel, ModelDescription, write_description
    from UNetSegmentationLib.networks import build_network
    from UNetSegmentationLib.networks.parts.weights import save_weights
    from UNetSegmentationLib.planning.plan import Normalization, Plan

    config = {"in_channels": case.channels, "num_classes": case.classes, "dimensions": case.dimensions,
              "features_per_stage": list(case.features), **case.options}  # fmt: skip
    torch.manual_seed(0)
    save_weights(folder / WEIGHTS_FILE, build_network(case.network, config))
    description = ModelDescription(
        id="drawn",
        title="Drawn weights",
        network=case.network,
        network_config=config,
        plan=Plan(
            dimensions=case.dimensions,
            spacing_mm=(1.0, 1.0, 1.0) if case.dimensions == 3 else (0.0, 0.0, 0.0),
            patch_size=case.tile,
            batch_size=1,
            orientation="RAS",
            normalization=(Normalization(scheme="zscore"),) * case.channels,
        ),
        preset="mri",
        channels=tuple(Channel(name=f"channel {index + 1}") for index in range(case.channels)),
        labels=tuple(Label(value=n, name=f"label {n}", color=(200, 0, 0)) for n in range(1, case.classes)),
        weights_sha256=sha256_of(folder / WEIGHTS_FILE),
    )
    write_description(folder, description)


def measure(name: str, *, slices: int | None, limit: float) -> dict[str, Any]:
    """Segment one case in this process and return predicted and used bytes, and seconds.

    Args:
        name: Name of the case.
        slices: Number of slices of the volume to use.
        limit: Bytes that the process may use in total.
    """
    import numpy as np

    from UNetSegmentationLib.image.geometry import Volume
    from UNetSegmentationLib.inference.memory import Workload
    from UNetSegmentationLib.inference.memory_ladder import foresee

    case = CASES[name]
    case = replace(case, shape=(min(slices or case.shape[0], case.shape[0]), *case.shape[1:]))
    with tempfile.TemporaryDirectory() as folder:
        predictor, other = _predictor(Path(folder) / "own", case), _predictor(Path(folder) / "other", _tiny(case))
    generator = np.random.default_rng(0)
    array = np.empty((case.channels, *case.shape), dtype=np.int16)
    # Air around a wide body: the same bytes, but fewer tiles to wait for.
    middle = slice(None, 200) if case.shape[1] < 400 else slice(192, 320)
    array[...] = 0
    for plane in array.reshape(-1, *case.shape[1:])[:, middle, middle]:
        plane[...] = generator.integers(0, 1000, plane.shape)
    volume = Volume(array, np.diag([case.spacing_mm] * 3 + [1.0]))
    # Libraries allocate permanent memory, such as for threads, at first use; freed memory is returned.
    other.segment(Volume(array[:, :48, middle, middle][..., :48, :48].copy(), volume.affine_ras))
    if limit < inf:
        limit_memory(limit)
    grid = [round(size * case.spacing_mm) for size in case.shape] if case.dimensions == 3 else case.shape
    workload = Workload(source=array.shape, shape=tuple(grid))
    foreseen = foresee(predictor.engine, predictor.description, workload, is_exact=True)
    del other
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    before, began = _memory("VmRSS"), perf_counter()
    result = predictor.segment(volume, overlap=case.overlap)
    seconds = perf_counter() - began
    peak = _memory("VmHWM")
    return {
        "case": name,
        "foreseen": foreseen.need.host,
        "took": peak - before,
        "whole_process": peak,
        "seconds": seconds,
        "way": str(foreseen.way),
        "warnings": result.warnings,
    }


def limit_memory(limit: float) -> None:
    """Limit this process to `limit` bytes in total, in the eyes of the library and of the system."""
    import resource

    from UNetSegmentationLib.inference import memory

    told = memory.free_bytes
    memory.free_bytes = lambda device: round(min(limit - _memory("VmRSS"), told(device) or inf))
    # Only memory that the process writes to; mapped files can be dropped at any time.
    resource.setrlimit(resource.RLIMIT_DATA, (round(limit), resource.RLIM_INFINITY))


def _predictor(folder: Path, case: Case) -> Predictor:
    from UNetSegmentationLib.inference.predictor import Predictor

    folder.mkdir()
    make_model(folder, case)
    return Predictor(folder, device="cpu")


def _tiny(case: Case) -> Case:
    """Return a case with a trivial network that uses the same libraries."""
    return replace(case, features=(4, 8), classes=2, tile=tuple(min(size, 64) for size in case.tile))


def _memory(name: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name + ":"))


def main() -> int:
    """Measure each case in its own process and print a table; return 1 if one exceeded the limit."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", choices=CASES, nargs="+", default=list(CASES))
    parser.add_argument("--limit-gb", type=float, default=inf, help="what the process may have in all, 10^9 bytes")
    parser.add_argument("--slices", type=int, help="take only so many slices of the volume, to try a case out")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.here:
        result = measure(arguments.case[0], slices=arguments.slices, limit=1e9 * arguments.limit_gb)
        sys.stdout.write(json.dumps(result) + "\n")
        return 0
    results = []
    for name in arguments.case:
        command = [sys.executable, __file__, "--case", name, "--here", "--limit-gb", str(arguments.limit_gb)]
        command += ["--slices", str(arguments.slices)] if arguments.slices else []
        answer = subprocess.run(
            command, stdout=subprocess.PIPE, text=True, check=True, env={**os.environ, "PYTHONPATH": str(ROOT)}
        )
        results.append(json.loads(answer.stdout.splitlines()[-1]))
    sys.stdout.write((json.dumps(results, indent=2) if arguments.json else format_table(results)) + "\n")
    over = [entry["case"] for entry in results if entry["whole_process"] > 1e9 * arguments.limit_gb]
    sys.stderr.write(f"over the limit of {arguments.limit_gb:g} GB: {', '.join(over)}\n" if over else "")
    return 1 if over else 0


def format_table(results: list[dict[str, Any]]) -> str:
    """Return the results as Markdown."""
    lines = [
        "| case | foreseen (MB) | took (MB) | foreseen / took | whole process (MB) | s |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for entry in results:
        sizes = [f"{entry[name] / 1e6:.0f}" for name in ("foreseen", "took")]
        ratio = f"{entry['foreseen'] / entry['took']:.2f}"
        cells = [entry["case"], *sizes, ratio, f"{entry['whole_process'] / 1e6:.0f}", f"{entry['seconds']:.1f}"]
        lines.append(f"| {' | '.join(cells)} |")
    notes = [f"{entry['case']}: {warning}" for entry in results for warning in entry["warnings"]]
    return "\n".join([*lines, *[""] * bool(notes), *notes])


if __name__ == "__main__":
    sys.exit(main())
