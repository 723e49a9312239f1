"""Augmentation of a training patch: ours and batchgenerators v2 on the same work, alternating.

Usage: python Testing/Benchmarks/bench_augmentation.py [--repetitions N] [--threads N]

Needs `batchgeneratorsv2` in the environment. Same work: the same source and output size, and for every step of both
the same probability and range: rotation 20 degrees (0.2), isotropic scaling 0.8 to 1.25 (0.2), elastic deformation
(0.1), noise, blur, brightness, contrast (0.15 each), low resolution 0.5 to 1 (0.15), gamma (0.3), flips (0.5 an axis);
linear for the image and nearest for the labels. Ours runs without bias field and remapping, which theirs lacks.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections.abc import Callable
from importlib.metadata import version

import numpy as np
import torch
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform
from batchgeneratorsv2.transforms.intensity.brightness import MultiplicativeBrightnessTransform
from batchgeneratorsv2.transforms.intensity.contrast import ContrastTransform
from batchgeneratorsv2.transforms.intensity.gamma import GammaTransform
from batchgeneratorsv2.transforms.intensity.gaussian_noise import GaussianNoiseTransform
from batchgeneratorsv2.transforms.noise.gaussian_blur import GaussianBlurTransform
from batchgeneratorsv2.transforms.spatial.low_resolution import SimulateLowResolutionTransform
from batchgeneratorsv2.transforms.spatial.mirroring import MirrorTransform
from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from batchgeneratorsv2.transforms.utils.random import RandomTransform
from torch import Tensor

from UNetSegmentationLib.augmentation import AugmentationConfig, augment_patch

Size = tuple[int, int, int]
PATCHES: tuple[tuple[Size, Size], ...] = (
    ((40, 56, 40), (52, 68, 52)),
    ((96, 96, 96), (112, 112, 112)),
    ((1, 256, 256), (1, 288, 288)),
)
OURS = AugmentationConfig(remap_probability=0.0, bias_field_probability=0.0, outside_label=0)
EVERYTHING = AugmentationConfig()


def make_theirs(size: Size) -> BasicTransform:
    """Return the other library's transforms with the probabilities and ranges of `OURS`."""
    is_flat = size[0] == 1
    angle = float(np.deg2rad(OURS.rotation_deg))
    spatial = SpatialTransform(
        size[1:] if is_flat else size,
        patch_center_dist_from_border=0,
        random_crop=False,
        p_elastic_deform=OURS.elastic_probability,
        p_rotation=OURS.rotation_probability,
        rotation=(-angle, angle),
        p_scaling=OURS.scaling_probability,
        scaling=(1 / OURS.scale_range[1], 1 / OURS.scale_range[0]),
        p_synchronize_scaling_across_axes=1,
        mode_seg="nearest",
        padding_mode_image="border",
    )
    steps = (
        (GaussianNoiseTransform(noise_variance=(0, 0.09), p_per_channel=1), OURS.noise_probability),
        (
            GaussianBlurTransform(blur_sigma=OURS.blur_sigma_range, synchronize_axes=True, p_per_channel=1),
            OURS.blur_probability,
        ),
        (
            MultiplicativeBrightnessTransform(multiplier_range=(0.7, 1.3), synchronize_channels=False, p_per_channel=1),
            OURS.brightness_probability,
        ),
        (
            ContrastTransform(
                contrast_range=OURS.contrast_range, preserve_range=True, synchronize_channels=False, p_per_channel=1
            ),
            OURS.contrast_probability,
        ),
        (
            SimulateLowResolutionTransform(
                scale=OURS.low_resolution_range,
                synchronize_channels=False,
                synchronize_axes=True,
                ignore_axes=None,
                allowed_channels=None,
                p_per_channel=1,
            ),
            OURS.low_resolution_probability,
        ),
        (
            GammaTransform(
                gamma=OURS.gamma_range,
                p_invert_image=OURS.gamma_invert_probability,
                synchronize_channels=False,
                p_per_channel=1,
                p_retain_stats=1,
            ),
            OURS.gamma_probability,
        ),
    )
    mirror = MirrorTransform(allowed_axes=(0, 1) if is_flat else (0, 1, 2))
    intensity = [RandomTransform(step, apply_probability=probability) for step, probability in steps]
    return ComposeTransforms([spatial, *intensity, mirror])


def make_runs(size: Size, source: Size, channels: int) -> dict[str, Callable[[], object]]:
    """Return the timed calls by name."""
    image = torch.randn(channels, *source, generator=torch.Generator().manual_seed(0))
    labels = torch.randint(0, 3, source, generator=torch.Generator().manual_seed(1), dtype=torch.int16)
    theirs = make_theirs(size)
    flat_image, flat_labels = (image[:, 0], labels) if size[0] == 1 else (image, labels[None])
    generator = torch.Generator().manual_seed(2)

    def run_ours(config: AugmentationConfig) -> tuple[Tensor, Tensor]:
        return augment_patch(image, labels, output_size=size, config=config, generator=generator)

    return {
        "ours": lambda: run_ours(OURS),
        "batchgenerators v2": lambda: theirs(image=flat_image.clone(), segmentation=flat_labels.clone()),
        "ours, with bias field and remapping": lambda: run_ours(EVERYTHING),
    }


def time_runs(runs: dict[str, Callable[[], object]], repetitions: int) -> dict[str, list[float]]:
    """Return the milliseconds of every call; the runs alternate, so that other load affects all of them."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for repetition in range(repetitions + 5):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            if repetition >= 5:
                times[name].append(1000 * (time.perf_counter() - start))
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=200)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--channels", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002 - the other library draws from the global generators
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "batchgeneratorsv2"))
    print(f"{platform.processor() or platform.machine()}, {packages}, {arguments.threads} threads, ms of")  # noqa: T201
    print(f"{arguments.repetitions} calls, {arguments.channels} channels\n")  # noqa: T201
    print("| patch | | median | mean | 95 % | mean / ours |\n|---|---|---|---|---|---|")  # noqa: T201
    for size, source in PATCHES:
        times = time_runs(make_runs(size, source, arguments.channels), arguments.repetitions)
        for name, values in times.items():
            ratio = statistics.mean(values) / statistics.mean(times["ours"])
            shown = " | ".join(
                f"{v:.2f}" for v in (statistics.median(values), statistics.mean(values), np.quantile(values, 0.95))
            )
            print(f"| {'x'.join(map(str, size))} | {name} | {shown} | {ratio:.2f} |")  # noqa: T201


if __name__ == "__main__":
    main()
