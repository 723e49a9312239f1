"""Write the golden plans beside this file: one for each fingerprint below.

python Testing/Lib/golden/make_plans.py

The fingerprints are like those of public data sets, rounded. The budget is that of two CPU cores with 12 GB to spare,
written out, so that the machine has no say.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
sys.path.insert(0, str(FOLDER.parents[2]))

from UNetSegmentationLib.networks.parts.planned_config import planned_config  # noqa: E402
from UNetSegmentationLib.planning.explanation import explain  # noqa: E402
from UNetSegmentationLib.planning.fingerprint import Fingerprint  # noqa: E402
from UNetSegmentationLib.planning.planner import network_shape_for  # noqa: E402
from UNetSegmentationLib.training.budget import Budget, plan_for  # noqa: E402

BUDGET = Budget(memory_bytes=12 * 10**9, operations=9e11, patch_voxels={2: 256 * 256, 3: 96 * 96 * 96})
MRI = {"mean": 220.0, "std": 80.0, "lower": 60.0, "upper": 470.0}
LIVER = {"mean": 100.0, "std": 40.0, "lower": -20.0, "upper": 200.0}

# name: (preset, network, resolution, fingerprint)
CASES: dict[str, tuple[str, str, str, Fingerprint]] = {
    # nnU-Net v2 plans Task04 of the Medical Segmentation Decathlon with spacing 1 x 1 x 1 mm, patch 40 x 56 x 40,
    # strides 1, 2, 2, 2 along each axis, z-score, and a batch of 9. All agree but the batch, which is 2 here: nnU-Net
    # fills the memory of a GPU, while two CPU cores learn more from four times as many steps in the same time. Features
    # begin at 16, not 32, for the same reason.
    "hippocampus": ("mri", "unet", "full", Fingerprint(
        shapes=((35, 51, 35), (36, 50, 35), (37, 49, 36), (34, 50, 36)), spacings_mm=((1.0, 1.0, 1.0),) * 4,
        channels=1, channel_names=("MRI",), foreground=(MRI,), class_shares={1: 0.0275, 2: 0.0252},
        label_names=("Anterior", "Posterior"), subjects=3)),
    "hippocampus_unet_plus_plus": ("mri", "unet_plus_plus", "full", Fingerprint(
        shapes=((36, 50, 35),), spacings_mm=((1.0, 1.0, 1.0),), channels=1, foreground=(MRI,),
        class_shares={1: 0.0275, 2: 0.0252})),
    "spleen_ct": ("ct", "unet", "full", Fingerprint(
        shapes=((90, 512, 512), (60, 512, 512), (110, 512, 512)),
        spacings_mm=((5.0, 0.79, 0.79), (5.0, 0.74, 0.74), (2.5, 0.84, 0.84)), channels=1, channel_names=("CT",),
        foreground=(LIVER,), class_shares={1: 0.006}, label_names=("Spleen",))),
    "prostate_coarse_slices": ("mri", "unet", "full", Fingerprint(
        shapes=((20, 320, 320), (20, 320, 320), (16, 256, 256), (24, 384, 384)),
        spacings_mm=((3.6, 0.62, 0.62), (3.6, 0.62, 0.62), (4.0, 0.75, 0.75), (3.0, 0.5, 0.5)), channels=2,
        channel_names=("T2", "ADC"), foreground=(MRI, MRI), class_shares={1: 0.01, 2: 0.02},
        label_names=("Peripheral zone", "Transition zone"))),
    "chest_xray": ("xray", "unet", "full", Fingerprint(
        shapes=((1, 512, 512), (1, 420, 512), (1, 512, 430)), spacings_mm=((1.0, 1.0, 1.0),) * 3, channels=1,
        foreground=({"mean": 90.0, "std": 50.0, "lower": 5.0, "upper": 230.0},), class_shares={1: 0.17, 2: 0.2},
        label_names=("Left lung", "Right lung"), subjects=2)),
    "sarcoma_three_channels": ("mri", "unet", "full", Fingerprint(
        shapes=((59, 39, 43), (35, 22, 28), (56, 32, 32)), spacings_mm=((3.27, 3.906, 3.906),) * 3, channels=3,
        channel_names=("CT", "PET", "T1"),
        foreground=(LIVER, {"mean": 400.0, "std": 300.0, "lower": 20.0, "upper": 1800.0}, MRI), class_shares={1: 0.087},
        label_names=("Tumour",))),
    "large_ct": ("ct", "unet", "full", Fingerprint(
        shapes=((300, 512, 512),) * 2, cropped_shapes=((300, 480, 500), (300, 470, 510)),
        spacings_mm=((1.5, 0.8, 0.8),) * 2, channels=1, foreground=(LIVER,), class_shares={1: 0.0004, 2: 0.02},
        label_names=("Left adrenal gland", "Liver"))),
    "large_ct_low_resolution": ("ct", "unet", "low", Fingerprint(
        shapes=((300, 512, 512),), spacings_mm=((1.5, 0.8, 0.8),), channels=1, foreground=(LIVER,),
        class_shares={1: 0.02}, label_names=("Liver",))),
    "heart_few_slices": ("mri", "unet", "full", Fingerprint(
        shapes=((6, 256, 216), (7, 256, 216), (6, 240, 200)), spacings_mm=((10.0, 1.4, 1.4),) * 3, channels=1,
        foreground=(MRI,), class_shares={1: 0.03}, label_names=("Myocardium",))),
}  # fmt: skip
CASES["prostate_slice_by_slice"] = CASES["prostate_coarse_slices"]
CASES["heart_as_volume"] = CASES["heart_few_slices"]
# Where others than the number of slices suggests are asked for.
DIMENSIONS = {"prostate_slice_by_slice": 2, "heart_as_volume": 3}


def golden(name: str) -> dict[str, Any]:
    """Return what the planner says of one case."""
    preset, network, resolution, fingerprint = CASES[name]
    plan = plan_for(
        network,
        fingerprint,
        preset,
        budget=BUDGET,
        num_classes=1 + len(fingerprint.class_shares or {}),
        resolution=resolution,
        dimensions=DIMENSIONS.get(name),
    )
    config = planned_config(network, plan, channels=fingerprint.channels, num_classes=2)
    shape = {name: config[name] for name in network_shape_for(plan)}
    return {
        "preset": preset,
        "network": network,
        "resolution": resolution,
        "plan": plan.to_dict(),
        "network_shape": shape,
        "explanation": list(explain(fingerprint, plan, network=network, shape=shape)),
        "fingerprint": fingerprint.to_dict(),
    }


if __name__ == "__main__":
    for name in CASES:
        (FOLDER / f"{name}.json").write_text(json.dumps(golden(name), indent=1) + "\n", encoding="utf-8")
