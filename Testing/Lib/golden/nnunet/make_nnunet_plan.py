"""Write what nnU-Net v2's own planner says of the hippocampus set beside this file.

    PYTHON Testing/Benchmarks/nnunet_steps.py plan DATASET WORK
    python Testing/Lib/golden/nnunet/make_nnunet_plan.py PYTHON WORK

PYTHON is the interpreter of an environment with nnunetv2 (2.8.1 made the file), DATASET the 200 cases of Task04 of the
Medical Segmentation Decathlon in images/ and labels/, WORK a folder to make.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

DATASET = "Dataset004_Hippocampus"
NETWORK = ("features_per_stage", "kernel_sizes", "strides", "n_conv_per_stage", "n_conv_per_stage_decoder")
PLAN = ("spacing", "patch_size", "batch_size", "median_image_size_in_voxels", "normalization_schemes")


def golden(work: Path, version: str) -> dict[str, Any]:
    folder = work / "preprocessed" / DATASET
    fingerprint = json.loads((folder / "dataset_fingerprint.json").read_text(encoding="utf-8"))
    plans = json.loads((folder / "nnUNetPlans.json").read_text(encoding="utf-8"))
    configuration = plans["configurations"]["3d_fullres"]
    options = configuration["architecture"]["arch_kwargs"]
    return {
        "nnunetv2": version,
        "configurations": sorted(plans["configurations"]),
        "transpose_forward": plans["transpose_forward"],
        **{name: configuration[name] for name in PLAN},
        **{name: options[name] for name in NETWORK},
        "foreground": fingerprint["foreground_intensity_properties_per_channel"]["0"],
        "spacings": sorted({tuple(spacing) for spacing in fingerprint["spacings"]}),
        "shapes_after_crop": fingerprint["shapes_after_crop"],
    }


if __name__ == "__main__":
    ask = "from importlib.metadata import version; print(version('nnunetv2'))"
    number = subprocess.run([sys.argv[1], "-c", ask], capture_output=True, text=True, check=True).stdout.strip()
    text = json.dumps(golden(Path(sys.argv[2]), number), separators=(",", ":"))
    Path(__file__).with_name("hippocampus.json").write_text(text + "\n", encoding="utf-8")
