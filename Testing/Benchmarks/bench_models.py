"""Time of the shipped models on the sample of their modality, alternating.

python Testing/Benchmarks/bench_models.py [--repeats 5] [--threads 2] [--write]

With --write the medians are kept in Testing/Docs/models_timing.json, from which docs/MODELS.md is made.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
from pathlib import Path
from statistics import median
from time import perf_counter

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from UNetSegmentationLib.image.geometry import Volume
from UNetSegmentationLib.image.volume_io import read_channels
from UNetSegmentationLib.inference.predictor import Predictor
from UNetSegmentationLib.models.installed import list_models

ROOT = Path(__file__).resolve().parents[2]
SAMPLES = ROOT / "Resources" / "Samples"
TARGET = ROOT / "Testing" / "Docs" / "models_timing.json"


def sample_of(model_id: str) -> Volume | None:
    """Return the sample whose name a model's id begins with, or None."""
    words = model_id.replace("-", "_")
    for path in sorted(SAMPLES.iterdir()):
        name = path.name.split(".")[0].removesuffix("_0000")
        if words.startswith(name) and path.suffix != ".md":
            further = sorted(SAMPLES.glob(f"{name}_0*.nii.gz"))
            return read_channels(further or [path])
    return None


def measure(repeats: int) -> dict[str, float]:
    """Return the median seconds of each model, weights in memory and the image read."""
    ready = []
    for model in list_models([ROOT / "Resources" / "Models"]):
        volume = sample_of(model.description.id)
        if volume is not None:
            ready.append((model.description.id, Predictor(model.folder, device="cpu"), volume))
    seconds: dict[str, list[float]] = {name: [] for name, _, _ in ready}
    for repeat in range(repeats + 1):
        for name, predictor, volume in ready:
            began = perf_counter()
            predictor.segment(volume)
            if repeat:
                seconds[name].append(perf_counter() - began)
    return {name: round(median(values), 3) for name, values in seconds.items()}


def main() -> int:
    """Print the table, and save it on request."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--write", action="store_true")
    known = parser.parse_args()
    torch.set_num_threads(known.threads)
    seconds = measure(known.repeats)
    record = {
        "machine": f"{known.threads} CPU threads ({torch.backends.cpu.get_cpu_capability()})",
        "what": f"torch {torch.__version__}, Python {platform.python_version()}, the bundled sample of each group",
        "repeats": known.repeats,
        "seconds": seconds,
    }
    sys.stdout.write(json.dumps(record, indent=1) + "\n")
    if known.write:
        TARGET.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
