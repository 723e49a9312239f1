"""What pretraining on unlabelled cases is worth where few cases are labelled.

python Testing/Benchmarks/bench_pretraining.py DATASET [--labelled 2 8] [--seeds 3] [--steps 200]
    [--pretraining-steps 500] [--learning-rate 1e-3] [--features 8 16 32] [--patch 32 32 32] [--tested 20] [--threads 2]

Of the subjects a quarter is held back for testing. A seed decides which cases count as labelled, one a subject, and on
weights, patches and augmentation. Three networks are trained on them: from drawn weights; from weights that were
pretrained on the images of all subjects that are not held back, for equally many steps of segmentation; and, as that
takes time too, from drawn weights for the steps of both. Dice is the mean over labels and over the held-back cases.
"""

from __future__ import annotations

import argparse
import platform
import sys
import tempfile
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from time import perf_counter

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[2]))

from UNetSegmentationLib.dataset import (
    Case,
    PreparedCase,
    find_cases,
    label_values,
    prepare_case,
    read_labels_of,
    split_by_subject,
)
from UNetSegmentationLib.metrics import dice
from UNetSegmentationLib.networks import SegmentationNetwork, build_network
from UNetSegmentationLib.planning import Normalization, Plan
from UNetSegmentationLib.pretraining import pretrain
from UNetSegmentationLib.sliding_window import predict_logits
from UNetSegmentationLib.training import train
from UNetSegmentationLib.training_options import TrainingOptions
from UNetSegmentationLib.training_plan import augmentation_for
from UNetSegmentationLib.unlabelled import find_unlabelled, prepare_unlabelled

CPU = torch.device("cpu")
ARMS = ("drawn", "pretrained", "drawn, longer")


class Bench:
    """Everything that the runs have in common."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments = arguments
        self.plan = Plan(
            dimensions=3,
            spacing_mm=(1.0, 1.0, 1.0),
            patch_size=tuple(arguments.patch),
            batch_size=2,
            orientation="RAS",
            normalization=(Normalization(scheme="zscore"),),
        )
        cases = find_cases(arguments.dataset)
        held_back, *rest = split_by_subject(cases, folds=4)
        self.labels = read_labels_of(arguments.dataset, label_values(cases[:4]))
        self.augmentation = augmentation_for(self.plan, self.labels)
        self.training: list[Case] = [case for part in rest for case in part]
        self.tested = [prepare_case(case, self.plan, self.labels) for case in held_back[: arguments.tested]]
        found, _ = find_unlabelled(arguments.dataset, dataset=arguments.dataset, channels=1, held_back=held_back)
        self.images = prepare_unlabelled(found, self.plan)

    def options(self, seed: int, steps: int) -> TrainingOptions:
        """Return the options of one training."""
        rate = self.arguments.learning_rate
        return TrainingOptions(steps=steps, seed=seed, learning_rate=rate, precision="float32", validate_every=0)

    def draw_network(self, seed: int) -> SegmentationNetwork:
        """Return the network of a seed."""
        shape = {"in_channels": 1, "num_classes": len(self.labels) + 1, "deep_supervision": True}
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return build_network("unet", {**shape, "features_per_stage": self.arguments.features})

    def pretrained(self, seed: int) -> SegmentationNetwork:
        """Return the network of a seed after pretraining."""
        network = self.draw_network(seed)
        losses = []
        with tempfile.TemporaryDirectory() as folder:
            for event in pretrain(
                network,
                self.images,
                self.plan,
                options=self.options(seed, self.arguments.pretraining_steps),
                augmentation=self.augmentation,
                folder=Path(folder),
                device=CPU,
            ):
                losses.append(event["loss"])
        sys.stderr.write(f"seed {seed}: loss of pretraining {np.mean(losses[:20]):.3f} → {np.mean(losses[-20:]):.3f}\n")
        return network

    def draw_cases(self, seed: int, count: int) -> list[PreparedCase]:
        """Return the labelled cases of a seed, one a subject; more of them hold the fewer."""
        order = np.random.default_rng(seed).permutation(len(self.training))
        chosen = {self.training[index].subject: self.training[index] for index in reversed(order)}
        ranked = [
            self.training[index] for index in order if chosen[self.training[index].subject] is self.training[index]
        ]
        return [prepare_case(case, self.plan, self.labels) for case in ranked[:count]]

    def dice_after(self, start: SegmentationNetwork, cases: Sequence[PreparedCase], *, seed: int, steps: int) -> float:
        """Return the mean Dice on the tested cases after a training from `start`."""
        network = deepcopy(start)
        with tempfile.TemporaryDirectory() as folder:
            for _ in train(
                network,
                cases,
                [],
                self.plan,
                options=self.options(seed, steps),
                augmentation=self.augmentation,
                folder=Path(folder),
                device=CPU,
            ):
                pass
        return float(np.mean([self._dice(network, case) for case in self.tested]))

    def _dice(self, network: SegmentationNetwork, case: PreparedCase) -> float:
        logits = predict_logits(
            network, case.image, patch_size=self.plan.patch_size, dimensions=3, padding=case.padding
        )
        found, truth = logits.argmax(dim=0).numpy(), case.labels.numpy()
        return float(np.mean([dice(found == value, truth == value) for value in range(1, len(logits))]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--labelled", type=int, nargs="+", default=[2, 8])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--pretraining-steps", type=int, default=500)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--features", type=int, nargs="+", default=[8, 16, 32])
    parser.add_argument("--patch", type=int, nargs=3, default=[32, 32, 32])
    parser.add_argument("--tested", type=int, default=20)
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    began, bench = perf_counter(), Bench(arguments)
    figures: dict[tuple[int, str], list[float]] = {}
    for seed in range(arguments.seeds):
        starts = {"drawn": bench.draw_network(seed), "pretrained": bench.pretrained(seed)}
        starts["drawn, longer"] = starts["drawn"]
        for count in arguments.labelled:
            cases = bench.draw_cases(seed, count)
            for arm in arguments.arms:
                more = arguments.pretraining_steps if arm == "drawn, longer" else 0
                reached = bench.dice_after(starts[arm], cases, seed=seed, steps=arguments.steps + more)
                figures.setdefault((count, arm), []).append(reached)
                sys.stderr.write(f"seed {seed}, {count} labelled, {arm}: {reached:.3f}\n")
    others = [arm for arm in arguments.arms if arm != "pretrained" and "pretrained" in arguments.arms]
    about = f"{platform.processor() or platform.machine()}, torch {torch.__version__}, {arguments.threads} threads"
    lines = [
        f"{about}; {arguments.steps} steps, pretraining {arguments.pretraining_steps} on {len(bench.images)} images, "
        f"{len(bench.tested)} cases tested, {(perf_counter() - began) / 60:.0f} minutes",
        "",
        "| labelled | " + " | ".join([*arguments.arms, *(f"pretrained − {arm}" for arm in others)]) + " |",
        "|---:|" + "---:|" * (len(arguments.arms) + len(others)),
    ]
    for count in arguments.labelled:
        columns = {arm: np.array(figures[count, arm]) for arm in arguments.arms}
        cells = [f"{values.mean():.3f} ± {values.std():.3f}" for values in columns.values()]
        gains = [columns["pretrained"] - columns[arm] for arm in others]
        cells += [f"{gain.mean():+.3f} ({', '.join(f'{value:+.3f}' for value in gain)})" for gain in gains]
        lines.append(f"| {count} | " + " | ".join(cells) + " |")
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
