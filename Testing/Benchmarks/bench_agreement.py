"""Agreement of the fast backends with float32, with trained weights on unseen cases.

python Testing/Benchmarks/bench_agreement.py DATASET MODEL [MODEL ...] [--backends NAME ...]

DATASET is the training data of the models; the held-back cases of a model are segmented whole, as by a user.
It prints the share of equal voxels and the lowest Dice of a class of more than LEAST_VOXELS voxels in any case.
"""

from __future__ import annotations

import argparse
import platform
import sys
import warnings
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from UNetSegmentationLib.backends.contract import BACKENDS
from UNetSegmentationLib.benchmark.inference import LEAST_VOXELS
from UNetSegmentationLib.cases.dataset import find_cases, read_image
from UNetSegmentationLib.core.errors import InputError
from UNetSegmentationLib.evaluation.metrics.overlap import dice
from UNetSegmentationLib.inference.predictor import Predictor
from UNetSegmentationLib.models.installed import find_model

REFERENCE = "eager"


def measure(model: str, dataset: Path, backend: str) -> str:
    """Return one row of the table."""
    found = find_model(model)
    held_back = set(found.description.training.get("held_back_cases", ()))
    cases = [case for case in find_cases(dataset) if case.id in held_back]
    if not cases:
        raise InputError(f"{dataset} has no case that '{model}' held back: use the data set it was trained on")
    exact, fast = (Predictor(found.folder, device="cpu", backend=name) for name in (REFERENCE, backend))
    equal = voxels = 0
    lowest = 1.0
    for case in cases:
        volume = read_image(case.images)
        expected, labelmap = exact.segment(volume).labelmap, fast.segment(volume).labelmap
        equal += int(np.sum(expected == labelmap))
        voxels += expected.size
        for value in np.unique(expected[expected > 0]):
            if np.sum(expected == value) > LEAST_VOXELS:
                lowest = min(lowest, dice(labelmap == value, expected == value))
    return f"| {model} | {backend} | {len(cases)} | {100 * equal / voxels:.4f} | {lowest:.4f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("models", nargs="+", metavar="MODEL")
    parser.add_argument("--backends", nargs="+", choices=sorted(BACKENDS), default=["openvino_bfloat16", "bfloat16"])
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    print(f"{platform.processor() or platform.machine()}, torch {torch.__version__}")  # noqa: T201
    print("| model | backend | cases | equal voxels, % | lowest Dice |\n|---|---|---:|---:|---:|")  # noqa: T201
    for model in arguments.models:
        for backend in arguments.backends:
            try:
                row = measure(model, arguments.dataset, backend)
            except InputError as error:
                row = f"| {model} | {backend} | {error} |"
            print(row, flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
