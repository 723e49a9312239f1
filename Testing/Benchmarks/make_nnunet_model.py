"""Make a folder of nnU-Net v2 results with random weights, for `unetseg bench inference --against nnunetv2`.

    python Testing/Benchmarks/make_nnunet_model.py FOLDER CT_VOLUME [--features 16 32 64 128 256] [--patch 64]

Needs nnunetv2. Heads are shifted by what nnU-Net finds in the volume's middle, so that every class is found there.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import SimpleITK as sitk

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "Fixtures"))

import make_nnunet_fixtures as fixtures

CLASSES = 8


def main() -> int:
    """Write the folder and print its path."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("volume")
    parser.add_argument("--features", type=int, nargs="+", default=[16, 32, 64, 128, 256])
    parser.add_argument("--patch", type=int, default=64)
    parser.add_argument("--spacing", type=float, default=2.8)
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
    if not known.no_balance:
        volume = sitk.ReadImage(known.volume)
        middle = [slice(max(0, size - known.patch) // 2, (size + known.patch) // 2) for size in volume.GetSize()[::-1]]
        image = sitk.GetArrayFromImage(volume)[None][(slice(None), *middle)]
        fixtures.balance_heads(folder, image, list(volume.GetSpacing()[::-1]), values=list(labels.values()))
    sys.stdout.write(f"{folder}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
