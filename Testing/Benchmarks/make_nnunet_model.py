"""Make a folder of nnU-Net v2 results, for `unetseg bench inference --against nnunetv2`.

    python Testing/Benchmarks/make_nnunet_model.py FOLDER CT_VOLUME [--labels LABELMAP] [--features 16 32 64 128 256]

Needs nnunetv2. With --labels its network is trained on the largest of them for some hundred steps, and its results have
the smooth borders of a real model. Without, weights are random, so rounding alone changes many labels; the heads are
shifted by nnU-Net's output in the middle of the volume, so that every class occurs there.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
import torch
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "Fixtures"))

import make_nnunet_fixtures as fixtures

CLASSES = 8
# Training patch; smaller than the tiles, so that it takes minutes.
CROP, BATCH = 48, 2


def learn(
    folder: Path, volume: sitk.Image, labelmap: sitk.Image, *, spacing: float, steps: int, is_bfloat16: bool
) -> None:
    """Train the network of a results folder on the largest labels of one volume, and store its weights there."""
    image, target = prepared(volume, labelmap, spacing)
    predictor = fixtures.nnunet.nnUNetPredictor(device=torch.device("cpu"), allow_tqdm=False)
    predictor.initialize_from_trained_model_folder(str(folder), (0,), "checkpoint_final.pth")
    network = predictor.network.train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.PolynomialLR(optimizer, steps, power=0.9)
    generator = np.random.default_rng(0)
    foreground = np.argwhere(target.numpy() > 0)
    for step in range(steps):
        centres = (
            generator.choice(foreground) if draw == 0 else generator.integers(0, target.shape) for draw in range(BATCH)
        )
        boxes = [_box(centre, target.shape) for centre in centres]
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=is_bfloat16):
            logits = network(torch.stack([image[box] for box in boxes])[:, None])
        loss = dice_cross_entropy(logits.float(), torch.stack([target[box] for box in boxes]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 20 == 0:
            sys.stderr.write(f"step {step} of {steps}, loss {loss.item():.3f}\n")
    path = folder / "fold_0" / "checkpoint_final.pth"
    checkpoint = torch.load(path, weights_only=False)
    # The heads of the coarser stages, which the predictor ignores, stay random.
    checkpoint["network_weights"].update(network.state_dict())
    torch.save(checkpoint, path)


def prepared(volume: sitk.Image, labelmap: sitk.Image, spacing: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Return voxels (D, H, W) on the network's grid in nnU-Net's normalisation, and the largest labels, from 1."""
    image = torch.from_numpy(sitk.GetArrayFromImage(volume).astype(np.float32))
    labels = sitk.GetArrayFromImage(labelmap)
    values, counts = np.unique(labels[labels > 0], return_counts=True)
    largest = np.zeros(int(values.max()) + 1, dtype=np.int64)
    largest[values[np.argsort(-counts)][: CLASSES - 1]] = np.arange(1, min(len(values), CLASSES - 1) + 1)
    size = [round(extent * step / spacing) for extent, step in zip(image.shape, volume.GetSpacing()[::-1], strict=True)]
    ct = fixtures.CT
    image = (image.clamp(ct["percentile_00_5"], ct["percentile_99_5"]) - ct["mean"]) / ct["std"]
    image = F.interpolate(image[None, None], size=size, mode="trilinear")[0, 0]
    target = F.interpolate(torch.from_numpy(largest[labels]).float()[None, None], size=size, mode="nearest-exact")
    return image, target[0, 0].long()


def dice_cross_entropy(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Return the loss of logits (B, K, D, H, W) against labels (B, D, H, W)."""
    found, wanted = logits.softmax(1), F.one_hot(target, logits.shape[1]).movedim(-1, 1).float()
    axes = (0, 2, 3, 4)
    dice = (2 * (found * wanted).sum(axes) + 1) / (found.sum(axes) + wanted.sum(axes) + 1)
    return F.cross_entropy(logits, target) + 1 - dice[1:].mean()


def _box(centre: Any, shape: Sequence[int]) -> tuple[slice, ...]:
    starts = [min(max(0, int(at) - CROP // 2), extent - CROP) for at, extent in zip(centre, shape, strict=True)]
    return tuple(slice(start, start + CROP) for start in starts)


def main() -> int:
    """Write the folder and print its path."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("volume")
    parser.add_argument("--features", type=int, nargs="+", default=[16, 32, 64, 128, 256])
    parser.add_argument("--patch", type=int, default=64)
    parser.add_argument("--spacing", type=float, default=2.8)
    parser.add_argument("--labels", metavar="LABELMAP", help="of the volume, for the network to learn from")
    parser.add_argument("--steps", type=int, default=200, help="of learning")
    parser.add_argument("--bfloat16", action="store_true", help="learn in it, on a processor that computes in it")
    parser.add_argument("--no-balance", action="store_true", help="leave the heads as they are drawn")
    known = parser.parse_args()
    depth = len(known.features)
    configuration = fixtures.configuration([known.patch] * 3, [known.spacing] * 3, ["CTNormalization"])
    configuration["architecture"]["arch_kwargs"] |= {
        "n_stages": depth,
        "features_per_stage": known.features,
        "kernel_sizes": [[3, 3, 3]] * depth,
        "strides": [[1, 1, 1]] + [[2, 2, 2]] * (depth - 1),
        "n_conv_per_stage": [2] * depth,
        "n_conv_per_stage_decoder": [2] * (depth - 1),
    }
    labels = {"background": 0, **{f"structure {value}": value for value in range(1, CLASSES)}}
    plan = fixtures.plans("Bench", {"3d_fullres": configuration})
    folder = known.folder / "nnUNetTrainer__nnUNetPlans__3d_fullres"
    fixtures.write_model(folder, "3d_fullres", plan, fixtures.dataset(labels, {"0": "CT"}), folds=1, mirror=None)
    volume = sitk.ReadImage(known.volume)
    if known.labels:
        labelmap = sitk.ReadImage(known.labels)
        learn(folder, volume, labelmap, spacing=known.spacing, steps=known.steps, is_bfloat16=known.bfloat16)
    elif not known.no_balance:
        middle = [slice(max(0, size - known.patch) // 2, (size + known.patch) // 2) for size in volume.GetSize()[::-1]]
        image = sitk.GetArrayFromImage(volume)[None][(slice(None), *middle)]
        fixtures.balance_heads(folder, image, list(volume.GetSpacing()[::-1]), values=list(labels.values()))
    sys.stdout.write(f"{folder}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
