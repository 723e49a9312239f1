"""Time of every loss and metric and its counterpart in MONAI, and of surface distances and DeepMind's.

python Testing/Benchmarks/bench_losses.py [--device cuda] [--patch 64] [--mask 128] [--repeats 5] [--threads 1] [--json]

A loss is timed forward and backward on one patch, a metric on two smooth masks that nearly agree. Calls of the two
sides alternate, so that other load on the machine affects both; the figures are medians.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import warnings
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np
import torch
from scipy import ndimage

sys.path.insert(0, str(Path(__file__).parents[2]))

from UNetSegmentationLib.evaluation.metrics import dice, evaluate_case, iou, measure_surfaces
from UNetSegmentationLib.losses import DeepSupervisionLoss, build_loss

warnings.simplefilter("ignore")

import surface_distance as deepmind  # noqa: E402
from monai import losses as monai_losses  # noqa: E402
from monai import metrics as monai_metrics  # noqa: E402

Pair = tuple[str, Callable[[], object], Callable[[], object]]
NUM_CLASSES = 4


def loss_pairs(device: torch.device, patch: int) -> list[Pair]:
    """Return name, our call and MONAI's for every loss, on a batch of two patches of four classes."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn((2, NUM_CLASSES, patch, patch, patch), generator=generator).to(device).requires_grad_()
    target = torch.from_numpy(np.stack([_regions(patch, seed) for seed in (0, 1)])).to(device)
    levels = [logits] + [logits[..., :n, :n, :n] for n in (patch // 2, patch // 4, patch // 8)]
    shared = {"softmax": True, "to_onehot_y": True, "include_background": False}
    table = {
        "dice": monai_losses.DiceLoss(**shared),
        "cross_entropy": lambda x, t: torch.nn.functional.cross_entropy(x, t[:, 0]),
        "dice_cross_entropy": monai_losses.DiceCELoss(**shared),
        "focal": monai_losses.FocalLoss(use_softmax=True, to_onehot_y=True),
        "tversky": monai_losses.TverskyLoss(alpha=0.3, beta=0.7, **shared),
        "boundary": monai_losses.BoundaryLoss(**shared),
        "weighted_sum": monai_losses.DiceFocalLoss(**shared),
    }
    pairs: list[Pair] = []
    for name, theirs in table.items():
        ours = build_loss(name).to(device)
        pairs.append(
            (
                name,
                _step(lambda f=ours: f(logits, target), logits),
                _step(lambda f=theirs: f(logits, target[:, None]), logits),
            )
        )
    ours, theirs = (
        DeepSupervisionLoss(build_loss("dice_cross_entropy")).to(device),
        monai_losses.DeepSupervisionLoss(table["dice_cross_entropy"]),
    )
    pairs.append(
        (
            "deep supervision",
            _step(lambda: ours(levels, target), logits),
            _step(lambda: theirs(levels, target[:, None].float()), logits),
        )
    )
    return pairs


def metric_pairs(size: int) -> list[Pair]:
    """Return name, our call and the counterpart for every metric, on two masks of size³."""
    prediction, reference = (_regions(size, seed=2, shift=shift) > 0 for shift in (0, 2))
    one_hot = [torch.from_numpy(mask)[None, None].float() for mask in (prediction, reference)]
    spacing_mm = (1.5, 1.0, 1.0)
    options = {"include_background": True, "spacing": spacing_mm}

    def distances(surface: str = "elements"):
        return measure_surfaces(prediction, reference, spacing_mm=spacing_mm, surface=surface)

    def theirs():
        return deepmind.compute_surface_distances(reference, prediction, spacing_mm)

    def all_of_deepmind():
        found = theirs()
        deepmind.compute_robust_hausdorff(found, 100)
        deepmind.compute_robust_hausdorff(found, 95)
        deepmind.compute_average_surface_distance(found)
        deepmind.compute_surface_dice_at_tolerance(found, 1)
        deepmind.compute_dice_coefficient(reference, prediction)

    def surface_dice_of_monai():
        return monai_metrics.compute_surface_dice(*one_hot, class_thresholds=[1.0], use_subvoxels=True, **options)

    maps = [mask.astype(np.uint8) for mask in (prediction, reference)]
    return [
        ("dice", lambda: dice(prediction, reference), lambda: monai_metrics.compute_dice(*one_hot)),
        ("iou", lambda: iou(prediction, reference), lambda: monai_metrics.compute_iou(*one_hot)),
        (
            "hausdorff",
            lambda: distances("voxels").hausdorff_mm(),
            lambda: monai_metrics.compute_hausdorff_distance(*one_hot, **options),
        ),
        (
            "hd95",
            lambda: distances("voxels").hausdorff_mm(95),
            lambda: monai_metrics.compute_hausdorff_distance(*one_hot, percentile=95, **options),
        ),
        (
            "assd",
            lambda: distances("voxels").average_mm(),
            lambda: monai_metrics.compute_average_surface_distance(*one_hot, symmetric=True, **options),
        ),
        ("surface dice", lambda: distances().surface_dice(1.0), surface_dice_of_monai),
        ("surface distances (DeepMind)", distances, theirs),
        ("whole case (DeepMind)", lambda: evaluate_case(*maps, [1], spacing_mm), all_of_deepmind),
    ]


def measure(pairs: list[Pair], repeats: int) -> list[dict[str, object]]:
    """Return median seconds of both sides and their ratio; after one warm-up call each."""
    rows = []
    for name, ours, theirs in pairs:
        seconds: tuple[list[float], list[float]] = ([], [])
        for turn in range(repeats + 1):
            for call, times in zip((ours, theirs), seconds, strict=True):
                began = perf_counter()
                call()
                if turn:
                    times.append(perf_counter() - began)
        mine, other = (median(times) for times in seconds)
        rows.append({"name": name, "ours_s": mine, "counterpart_s": other, "ratio": other / mine, "repeats": repeats})
    return rows


def _step(forward: Callable[[], torch.Tensor], logits: torch.Tensor) -> Callable[[], object]:
    """Return a call that runs a loss forward and backward and waits for the device."""

    def run() -> None:
        torch.autograd.grad(forward(), logits)
        if logits.device.type == "cuda":
            torch.cuda.synchronize()

    return run


def _regions(size: int, seed: int, shift: int = 0) -> np.ndarray:
    """Return smooth regions of labels 0 to 3 in a cube, none within an eighth of its edge from its faces."""
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).standard_normal((size,) * 3), size / 16)
    labels = np.digitize(noise / noise.std(), [0.5, 1.0, 1.5])
    margin = size // 8
    inner = slice(margin, size - margin)
    return np.roll(np.pad(labels[inner, inner, inner], margin), shift, axis=0)


def _machine(device: torch.device) -> str:
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    packages = ", ".join(f"{p} {version(p)}" for p in ("torch", "monai", "numpy", "scipy", "surface-distance"))
    system = f"{platform.system()}, Python {platform.python_version()}"
    return f"{name}; {torch.get_num_threads()} threads; {system}; {packages}"


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu", help="where losses run: cpu or cuda")
    parser.add_argument("--patch", type=int, default=64, help="edge of the patch for losses")
    parser.add_argument("--mask", type=int, default=128, help="edge of the masks for metrics")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--only", choices=("losses", "metrics"), help="leave out the other half")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    tables = {}
    if options.only != "metrics":
        tables[f"losses, 2 x {NUM_CLASSES} x {options.patch}³"] = measure(
            loss_pairs(device, options.patch), options.repeats
        )
    if options.only != "losses":
        tables[f"metrics, {options.mask}³"] = measure(metric_pairs(options.mask), options.repeats)
    write = sys.stdout.write
    if options.json:
        write(json.dumps({"machine": _machine(device), "tables": tables}, indent=1) + "\n")
        return
    write(f"{_machine(device)}\nmedians of {options.repeats}\n")
    for title, rows in tables.items():
        write(f"\n| {title} | ours, ms | counterpart, ms | counterpart / ours |\n|---|---:|---:|---:|\n")
        for row in rows:
            mine, other = row["ours_s"] * 1e3, row["counterpart_s"] * 1e3
            write(f"| {row['name']} | {mine:.1f} | {other:.1f} | {row['ratio']:.2f} |\n")


if __name__ == "__main__":
    main()
