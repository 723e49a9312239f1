"""Make the data sets of the CT demonstration from TotalSegmentator's test references.

python Testing/StarterModels/prepare_ct_demo.py FOLDER LABELS -o DATASET

FOLDER holds ct_mr_totalsegmentator_test, LABELS is ct_demo.json or ct_demo_organs.json of Resources/Labels. The whole
scan of one patient is for training and twenty slices of another for evaluation; the third scan is a part of the first
and so is left out. The labels are a model's output.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from UNetSegmentationLib.image.volume_io import read_labelmap, read_volume, write_labelmap, write_volume

CASES = {"ct_3mm_full": "images/ct_3mm_full.nii.gz", "dicom_ct_20slices": "dicom/ct_20slices"}
# Parts of each label: prefixes of names in label_names.json.
GROUPS = {
    "Liver": ("liver",),
    "Spleen": ("spleen",),
    "Kidneys": ("kidney_right", "kidney_left"),
    "Urinary bladder": ("urinary_bladder",),
    "Bones": ("vertebrae_", "sacrum", "hip_", "femur_", "humerus_", "rib_"),
}


def prepare(source: Path, labels: Path, dataset: Path) -> None:
    """Write images/ and labels/ of the data set."""
    names = json.loads((source / "label_names.json").read_text(encoding="utf-8"))["total"]
    for case, image in CASES.items():
        volume = read_volume(source / image)
        found = read_labelmap(source / "labels" / f"{case}.nii.gz")
        kept = np.zeros(found.shape, dtype=np.uint8)
        for label in json.loads(labels.read_text(encoding="utf-8")):
            members = [int(number) for number, name in names.items() if name.startswith(GROUPS[label["name"]])]
            kept[np.isin(found.array[0], members)] = label["value"]
        write_volume(dataset / "images" / f"{case}.nii.gz", volume)
        write_labelmap(dataset / "labels" / f"{case}.nii.gz", kept, affine_ras=found.affine_ras)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, metavar="FOLDER")
    parser.add_argument("labels", type=Path, metavar="LABELS")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="DATASET")
    known = parser.parse_args()
    for folder in ("images", "labels"):
        (known.output / folder).mkdir(parents=True, exist_ok=True)
    prepare(known.source, known.labels, known.output)
