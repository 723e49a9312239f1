"""Gain and forgetting of a model fine-tuned on one corrected case from another scanner.

python Testing/Benchmarks/bench_finetune.py DATASET [--model mri-hippocampus-unet] [--cases 20] [--threads 2]

DATASET is the training data of the model. Of its held-back cases, one is the corrected case and others (of other
subjects) are for testing, both unchanged and as another scanner would show them. Dice is that of all merged labels, as
in the trial that this follows (U-Net of 16 to 128 features: before 0.894 original and 0.015 shifted; after one case
with replay and the pull 0.876 and 0.797; plainly 0.369 and 0.774); the mean over labels follows it.

Scanners: `severe` inverts the contrast, blurs (sigma 1 voxel), shades (a quadratic field in the logarithm) and adds
noise. `folded` maps the grey values through a triangle wave of nine folds, so that tissues of quite different grey look
alike, then blurs and adds strong noise: far from any monotone change of contrast. The starter model, trained with
random contrasts, copes with the first and fails on the second.
"""

from __future__ import annotations

import argparse
import platform
import sys
import tempfile
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from time import perf_counter

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

sys.path.insert(0, str(Path(__file__).parents[2]))

from UNetSegmentationLib.cases.dataset import Case, find_cases, read_case
from UNetSegmentationLib.evaluation.metrics import dice
from UNetSegmentationLib.finetuning.job import FIRST_STEPS, STEPS_PER_CASE, FinetuningJob
from UNetSegmentationLib.finetuning.run import run_finetuning
from UNetSegmentationLib.image.geometry import Volume
from UNetSegmentationLib.image.labels import Label
from UNetSegmentationLib.image.volume_io import write_labelmap, write_volume
from UNetSegmentationLib.models.installed import find_model
from UNetSegmentationLib.networks import SegmentationNetwork
from UNetSegmentationLib.networks.parts.weights import load_network
from UNetSegmentationLib.planning.plan import Plan
from UNetSegmentationLib.training.loop import train
from UNetSegmentationLib.training.options import TrainingOptions
from UNetSegmentationLib.training.prepared_case import PreparedCase, predict_case, prepare_case
from UNetSegmentationLib.training.setup import augmentation_for

Image = NDArray[np.float32]
STEPS = FIRST_STEPS + STEPS_PER_CASE


def severe(image: Image, rng: np.random.Generator) -> Image:
    """Return (D, H, W), 0 to 1, inverted, blurred, shaded and noisy."""
    axes = np.meshgrid(*(np.linspace(-1, 1, size) for size in image.shape), indexing="ij")
    terms = [*axes, *(axis**2 for axis in axes), axes[0] * axes[1], axes[1] * axes[2]]
    field = sum(weight * term for weight, term in zip(rng.normal(0, 0.12, len(terms)), terms, strict=True))
    shaded = ndimage.gaussian_filter(1 - image, 1.0) * np.exp(field)
    return (shaded + rng.normal(0, 0.06, image.shape)).astype(np.float32)


def folded(image: Image, rng: np.random.Generator) -> Image:
    """Return (D, H, W), 0 to 1, through a triangle wave of nine folds, blurred and noisy."""
    wave = np.abs((4.5 * image + 0.25) % 1.0 * 2 - 1)
    return (ndimage.gaussian_filter(wave, 0.7) + rng.normal(0, 0.3, image.shape)).astype(np.float32)


SCANNERS: dict[str, Callable[[Image, np.random.Generator], Image]] = {"severe": severe, "folded": folded}


def write_shifted(cases: Sequence[Case], folder: Path, scanner: str) -> list[Case]:
    """Write the cases as another scanner would show them and return them."""
    for number, case in enumerate(cases):
        image, labels = read_case(case)
        low, high = np.percentile(image.array, (0.5, 99.5))
        scaled = np.clip((image.array[0].astype(np.float32) - low) / (high - low), 0, 1)
        shifted = SCANNERS[scanner](scaled, np.random.default_rng(number))
        write_volume(folder / "images" / f"{case.id}.nii.gz", Volume(shifted[None] * 1000, image.affine_ras))
        write_labelmap(folder / "labels" / f"{case.id}.nii.gz", labels.array[0], affine_ras=labels.affine_ras)
    return find_cases(folder)


def judge(network: SegmentationNetwork, cases: Sequence[PreparedCase], plan: Plan) -> tuple[float, float, float]:
    """Return the mean Dice of the merged labels, its smallest, and the mean over labels."""
    merged, single = [], []
    for case in cases:
        logits = predict_case(network.eval(), case, plan)
        found, truth = logits.argmax(dim=0).numpy(), case.labels.numpy()
        merged.append(dice(found > 0, truth > 0))
        single.append(np.mean([dice(found == value, truth == value) for value in range(1, len(logits))]))
    return float(np.mean(merged)), float(min(merged)), float(np.mean(single))


def train_plainly(
    network: SegmentationNetwork, local: Sequence[PreparedCase], plan: Plan, labels: Sequence[Label]
) -> SegmentationNetwork:
    """Return the network after the same number of steps on the local case alone."""
    network = deepcopy(network)
    with tempfile.TemporaryDirectory() as folder:
        train(
            network,
            local,
            [],
            replace(plan, batch_size=2),
            options=TrainingOptions(steps=STEPS, validate_every=0),
            augmentation=augmentation_for(plan, labels),
            folder=Path(folder),
            device=torch.device("cpu"),
        )
    return network


def finetune(job: FinetuningJob) -> SegmentationNetwork:
    """Return the fine-tuned network."""
    run_finetuning(job)
    return load_network(job.folder)[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--model", default="mri-hippocampus-unet")
    parser.add_argument("--cases", type=int, default=20)
    parser.add_argument("--scanners", nargs="+", choices=SCANNERS, default=list(SCANNERS))
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    parent = find_model(arguments.model)
    start, description = load_network(parent.folder)
    plan, labels = description.plan, description.labels
    names = set(description.training["held_back_cases"])
    unseen = [case for case in find_cases(arguments.dataset) if case.id in names]
    corrected = unseen[-1]
    tested = [case for case in unseen if case.subject != corrected.subject][: arguments.cases]
    about = f"{platform.processor() or platform.machine()}, torch {torch.__version__}, {arguments.threads} threads"
    lines = [f"{about}; {len(tested)} cases, corrected case {corrected.id}, {STEPS} steps", ""]
    lines += ["| scanner | strategy | original | shifted | worst shifted | per label: original, shifted | seconds |"]
    lines += ["|---|---|---:|---:|---:|---:|---:|"]
    original = [prepare_case(case, plan, labels) for case in tested]
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        for scanner in arguments.scanners:
            other = write_shifted(tested, work / scanner / "test", scanner)
            local = write_shifted([corrected], work / scanner / "local", scanner)
            shifted, taught = ([prepare_case(case, plan, labels) for case in cases] for cases in (other, local))
            job = FinetuningJob(
                model=str(parent.folder), dataset=work / scanner / "local", folder=work / scanner / "ours", device="cpu"
            )
            strategies: dict[str, Callable[[], SegmentationNetwork]] = {
                "before": lambda: start,
                "fine-tuned": lambda job=job: finetune(job),
                "fine-tuned, no replay": lambda job=job, folder=work / scanner / "distilled": finetune(
                    replace(job, folder=folder, uses_replay=False)
                ),
                "plain": lambda taught=taught: train_plainly(start, taught, plan, labels),
            }
            for title, make in strategies.items():
                began = perf_counter()
                network = make()
                seconds = perf_counter() - began
                (kept, _, each), (gained, worst, each_shifted) = (
                    judge(network, cases, plan) for cases in (original, shifted)
                )
                lines.append(
                    f"| {scanner} | {title} | {kept:.3f} | {gained:.3f} | {worst:.3f} | {each:.3f}, {each_shifted:.3f} "
                    f"| {seconds:.0f} |"
                )
                sys.stderr.write(lines[-1] + "\n")
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
