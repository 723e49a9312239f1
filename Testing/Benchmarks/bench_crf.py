"""Dense CRF on noisy probability maps made from real labels: Dice before and after, and time.

Usage: python Testing/Benchmarks/bench_crf.py FOLDER [--cases N] [--skip N] [--temperature T] [--step STEP ...]

FOLDER holds images/ and labels/ with files of equal names, as in the Medical Segmentation Decathlon. The maps are
softmax((blurred one-hot + noise) / noise variance / temperature), the noise half white and half smooth over about two
voxels, of four strengths. At temperature 1 they equal the output of a calibrated network that sees every voxel through
this noise; above 1 they are underconfident. Cases are taken in alphabetical order: options are chosen on the first
ones and evaluated on others.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from UNetSegmentationLib.image.volume_io import read_labelmap, read_volume
from UNetSegmentationLib.postprocess.probabilities import ProbabilityStep, parse_probability_step

NOISE_STRENGTHS = (0.125, 0.2, 0.3, 0.5)
Labelmap = NDArray[np.integer]


def make_probabilities(labelmap: Labelmap, *, strength: float, temperature: float, rng: np.random.Generator) -> Tensor:
    """Return probabilities (K, D, H, W) around labelmap (D, H, W)."""
    one_hot = np.stack([labelmap == label for label in range(labelmap.max() + 1)]).astype(np.float32)
    blur = (0, *(1.0 if extent > 1 else 0.0 for extent in labelmap.shape))
    scores = ndimage.gaussian_filter(one_hot, blur)
    smooth = ndimage.gaussian_filter(rng.standard_normal(scores.shape), [2 * sigma for sigma in blur])
    noise = rng.standard_normal(scores.shape) + smooth / smooth.std()
    seen = scores + strength * noise / 2**0.5
    return torch.from_numpy((seen / strength**2 / temperature).astype(np.float32)).softmax(0)


def dice(prediction: Labelmap, reference: Labelmap) -> float:
    """Return the mean Dice over the labels of the reference."""
    labels = range(1, reference.max() + 1)
    scores = [
        2
        * np.sum((prediction == label) & (reference == label))
        / (np.sum(prediction == label) + np.sum(reference == label))
        for label in labels
    ]
    return float(np.mean(scores))


def measure(folder: Path, names: list[str], step: ProbabilityStep, *, strength: float, temperature: float) -> str:
    """Return one row: Dice before and after, cases that got worse by more than 0.002, seconds."""
    before, after, seconds = [], [], []
    for name in names:
        image = read_volume(folder / "images" / name)
        reference = read_labelmap(folder / "labels" / name).array[0].astype(np.int64)
        rng = np.random.default_rng([ord(letter) for letter in name])
        probabilities = make_probabilities(reference, strength=strength, temperature=temperature, rng=rng)
        channels = torch.from_numpy(np.ascontiguousarray(image.array, dtype=np.float32))
        start = time.perf_counter()
        refined = step.apply(probabilities, channels, spacing_mm=image.spacing_mm)
        seconds.append(time.perf_counter() - start)
        before.append(dice(probabilities.argmax(0).numpy(), reference))
        after.append(dice(refined.argmax(0).numpy(), reference))
    worse = sum(b - a > 0.002 for b, a in zip(before, after, strict=True))
    return (
        f"| {strength} | {np.mean(before):.4f} | {np.mean(after):.4f} | {np.mean(after) - np.mean(before):+.4f} "
        f"| {worse} of {len(names)} | {statistics.median(seconds):.3f} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--cases", type=int, default=40)
    parser.add_argument("--skip", type=int, default=40)
    parser.add_argument("--temperature", type=float, default=1.0)
    parser.add_argument("--step", nargs="+", default=["dense_crf", "dense_crf:weight_bilateral=0"])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    files = sorted(path.name for path in (arguments.folder / "images").iterdir())
    names = files[arguments.skip : arguments.skip + arguments.cases]
    print(f"{platform.processor() or platform.machine()}, torch {torch.__version__}, 1 thread, {len(names)} cases")  # noqa: T201
    for text in arguments.step:
        print(f"\n{text}\n| noise | Dice before | after | change | worse | median s |\n|---|---|---|---|---|---|")  # noqa: T201
        for strength in NOISE_STRENGTHS:
            step, temperature = parse_probability_step(text), arguments.temperature
            print(measure(arguments.folder, names, step, strength=strength, temperature=temperature))  # noqa: T201


if __name__ == "__main__":
    main()
