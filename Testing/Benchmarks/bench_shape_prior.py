"""Effect of the anatomical prior on held-back radiographs: Dice, islands, pixels far outside.

python Testing/Benchmarks/bench_shape_prior.py FOLDER [--steps 300] [--folds 4] [--parts 1] [--size 128] [--threads 1]

FOLDER holds images/, labels/ and manifest.csv, which names each image's subject. Two networks are trained on all but
one part of the subjects, identical except for the prior's loss, and evaluated on that part: with the gate off and on,
on the images and on the same images with a grey box over them. An island is a component that touches no true pixel;
far means more than 8 pixels outside.
"""

from __future__ import annotations

import argparse
import platform
import sys
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).parents[2]))

from UNetSegmentationLib.cases.dataset import Case, find_cases, read_case, split_by_subject
from UNetSegmentationLib.conventions.parts.intensity import normalize
from UNetSegmentationLib.losses import build_loss
from UNetSegmentationLib.networks import build_network
from UNetSegmentationLib.networks.shape_prior import ShapePriorNetwork
from UNetSegmentationLib.planning.plan import Normalization

CONFIG = {"in_channels": 1, "num_classes": 2, "dimensions": 2, "features_per_stage": (8, 16, 32, 64)}
BATCH = 6
Pair = tuple[Tensor, Tensor]


def load(case: Case, size: int) -> Pair:
    """Return image (1, size, size) and labels (size, size)."""
    image, labels = read_case(case)
    scaled = normalize(image.array[0], Normalization(scheme="percentile"))
    mask = torch.from_numpy((labels.array[0] > 0).astype(np.float32))
    both = F.interpolate(torch.stack([scaled[0], mask[0]])[None], size=(size, size), mode="area")[0]
    return both[:1], (both[1] > 0.5).long()


def train(start: ShapePriorNetwork, pairs: list[Pair], *, steps: int, is_constrained: bool) -> ShapePriorNetwork:
    """Return a network trained with or without the prior's loss, from the same start on the same batches."""
    network = deepcopy(start).train()
    loss_function = build_loss("dice_cross_entropy")
    weights = [parameter for parameter in network.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=1e-3)
    schedule = torch.optim.lr_scheduler.PolynomialLR(optimizer, steps, power=0.9)
    generator = torch.Generator().manual_seed(0)
    for _ in range(steps):
        chosen = [pairs[index] for index in torch.randint(len(pairs), (BATCH,), generator=generator).tolist()]
        image, labels = (torch.stack(entries) for entries in zip(*chosen, strict=True))
        image = image * (0.8 + 0.4 * torch.rand(BATCH, 1, 1, 1, generator=generator))
        image = image + 0.05 * torch.randn(image.shape, generator=generator)
        logits = network(image)
        loss = loss_function(logits, labels)
        if is_constrained:
            loss = loss + network.prior_loss(logits, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return network.eval()


def cover(image: Tensor, seed: int) -> Tensor:
    """Return the image (1, H, W) with a grey box over a part of it."""
    rng, size = np.random.default_rng(seed), image.shape[-1]
    side = size * 28 // 128
    row, column = rng.integers(0, size - side, 2)
    covered = image.clone()
    covered[:, row : row + side, column : column + side] = float(rng.random())
    return covered


def judge(network: ShapePriorNetwork, pairs: list[Pair], *, is_covered: bool) -> list[tuple[float, int, int]]:
    """Return Dice, islands and far pixels of each image."""
    figures = []
    for number, (image, labels) in enumerate(pairs):
        shown = cover(image, number) if is_covered else image
        with torch.inference_mode():
            found = network(shown[None]).argmax(dim=1)[0].numpy() > 0
        truth = labels.numpy() > 0
        components, count = ndimage.label(found)
        islands = count - len(set(components[truth].tolist()) - {0})
        far = int((found & ~ndimage.binary_dilation(truth, iterations=8)).sum())
        figures.append((2 * float((found & truth).sum()) / float(found.sum() + truth.sum()), islands, far))
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--folds", type=int, default=4)
    parser.add_argument("--parts", type=int, default=1, help="how many parts are held back in turn")
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    parts = split_by_subject(find_cases(arguments.folder), folds=arguments.folds)
    figures: dict[tuple[bool, bool, bool], list[tuple[float, int, int]]] = {}
    for held_back in parts[: arguments.parts]:
        training = [load(case, arguments.size) for part in parts if part is not held_back for case in part]
        testing = [load(case, arguments.size) for case in held_back]
        torch.manual_seed(0)
        start = build_network("shape_prior", CONFIG)
        assert isinstance(start, ShapePriorNetwork)
        start.fit_prior([labels for _, labels in training], steps=1000)
        for is_constrained in (False, True):
            network = train(start, training, steps=arguments.steps, is_constrained=is_constrained)
            config = network.config
            for is_gated in (False, True):
                network.config = replace(config, gate_strength=float(is_gated))
                for is_covered in (False, True):
                    key = (is_covered, is_constrained, is_gated)
                    figures.setdefault(key, []).extend(judge(network, testing, is_covered=is_covered))
    about = f"{platform.processor() or platform.machine()}, torch {torch.__version__}"
    lines = [f"{about}; {arguments.steps} steps at {arguments.size}^2", ""]
    lines += ["| images | prior in the loss | gate | n | Dice | worst | islands | far pixels |"]
    lines += ["|---|---|---|---:|---:|---:|---:|---:|"]
    for (is_covered, is_constrained, is_gated), rows in sorted(figures.items()):
        dice, islands, far = zip(*rows, strict=True)
        words = [("whole", "covered")[is_covered], *(("no", "yes")[flag] for flag in (is_constrained, is_gated))]
        cells = [*words, str(len(rows)), f"{np.mean(dice):.4f}", f"{min(dice):.3f}", str(sum(islands)), str(sum(far))]
        lines.append("| " + " | ".join(cells) + " |")
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
