"""Make results folders of nnU-Net v2's cascade and what its own predictor finds with both stages.

Needs nnunetv2 (2.8.1 made the files) and takes about a minute:

    python Testing/Fixtures/make_nnunet_cascades.py

`cascade` is trained for a few steps by nnU-Net's own trainer, so that its checkpoints are what that writes: two folds
of the first stage, whose predictions for the cases held back are what the one fold of the second stage starts from.
`cascade_regions` has random weights as the other fixtures do, with regions, turned axes and thick slices.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import make_nnunet_fixtures as tiny
import numpy as np
import SimpleITK as sitk
import torch
from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

DATASET = "Dataset998_Cascade"
LOW, CASCADE = "3d_lowres", "3d_cascade_fullres"
CASES, STEPS = 6, 120
SHAPE, SPACING = (20, 22, 26), [1.2, 1.0, 0.9]


def predict_both(low: Path, cascade: Path, image: np.ndarray, spacing: list[float], *, mirrored: bool) -> np.ndarray:
    found_first = tiny.predict(low, image, spacing, mirrored=mirrored)
    return tiny.predict(cascade, image, spacing, mirrored=mirrored, found_first=found_first)


def save(name: str, folders: tuple[Path, Path], image: np.ndarray, spacing: list[float], *, mirrored: bool) -> None:
    """Write the image with what both stages find, and tell what the first stage changes."""
    arrays = {"image": image, "spacing_mm": np.array(spacing)}
    arrays["labels"] = predict_both(*folders, image, spacing, mirrored=False)
    if mirrored:
        arrays["labels_mirrored"] = predict_both(*folders, image, spacing, mirrored=True)
    np.savez_compressed(tiny.FOLDER / name / "images.npz", **arrays)
    nothing = np.zeros(image.shape[1:])
    alone = tiny.predict(folders[1], image, spacing, mirrored=False, found_first=nothing)
    size = sum(path.stat().st_size for path in (tiny.FOLDER / name).rglob("*") if path.is_file()) / 1000
    shares = np.bincount(arrays["labels"].ravel()) / nothing.size
    changed = np.mean(alone != arrays["labels"])
    sys.stdout.write(f"{name}: shares {np.round(shares, 2)}, {changed:.3f} depends on the first stage, {size:.0f} kB\n")


def case_of(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return an image (D, H, W) and its labels: smooth noise, cut at two heights."""
    image = tiny.smooth_image((1, *SHAPE), seed)[0]
    return image, np.digitize(image, [170, 240]).astype(np.uint8)


def cascade_plans() -> dict[str, Any]:
    low = tiny.configuration([16, 16, 16], [1.6, 1.6, 1.6], ["ZScoreNormalization"], data_identifier="low")
    full = tiny.configuration([16, 16, 16], [1.0, 1.0, 1.0], ["ZScoreNormalization"], data_identifier="full")
    configurations = {
        LOW: {**low, "next_stage": CASCADE},
        "3d_fullres": full,
        CASCADE: {"inherits_from": "3d_fullres", "previous_stage": LOW},
    }
    return {**tiny.plans("Cascade", configurations), "dataset_name": DATASET}


def prepare_data(work: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    raw, prepared = work / "raw" / DATASET, work / "preprocessed" / DATASET
    for folder in (raw / "imagesTr", raw / "labelsTr", prepared):
        folder.mkdir(parents=True)
    names = [f"case_{number}" for number in range(CASES)]
    for number, name in enumerate(names):
        image, labels = case_of(number)
        for array, path in ((image, f"imagesTr/{name}_0000.nii.gz"), (labels, f"labelsTr/{name}.nii.gz")):
            volume = sitk.GetImageFromArray(array)
            volume.SetSpacing(SPACING[::-1])
            sitk.WriteImage(volume, str(raw / path))
    data = {**tiny.dataset(tiny.TWO, tiny.MR), "numTraining": CASES}
    plans = cascade_plans()
    for folder in (raw, prepared):
        (folder / "dataset.json").write_text(json.dumps(data))
    (prepared / "nnUNetPlans.json").write_text(json.dumps(plans))
    splits = [{"train": names[fold::2], "val": names[1 - fold :: 2]} for fold in (0, 1)]
    # The trainer copies it beside its results, and reads nothing in it.
    (prepared / "dataset_fingerprint.json").write_text("{}")
    (prepared / "splits_final.json").write_text(json.dumps(splits))
    shutil.copytree(raw / "labelsTr", prepared / "gt_segmentations")
    for name in (LOW, "3d_fullres"):
        DefaultPreprocessor(verbose=False).run(DATASET, name, "nnUNetPlans", 1)
    return plans, data


def train(plans: dict[str, Any], data: dict[str, Any], configuration: str, fold: int) -> None:
    torch.manual_seed(fold)
    np.random.seed(fold)  # noqa: NPY002 -- nnU-Net draws from it
    trainer = nnUNetTrainer({**plans, "continue_training": False}, configuration, fold, data, torch.device("cpu"))
    trainer.num_epochs, trainer.num_iterations_per_epoch, trainer.num_val_iterations_per_epoch = 1, STEPS, 1
    trainer.run_training()
    trainer.perform_actual_validation()


def make_trained(work: Path) -> None:
    plans, data = prepare_data(work)
    for configuration, fold in ((LOW, 0), (LOW, 1), (CASCADE, 0)):
        train(plans, data, configuration, fold)
    target = tiny.FOLDER / "cascade"
    shutil.rmtree(target, ignore_errors=True)
    folders = []
    for configuration in (LOW, CASCADE):
        source = work / "results" / DATASET / f"nnUNetTrainer__nnUNetPlans__{configuration}"
        folders.append(target / source.name)
        folders[-1].mkdir(parents=True)
        wanted = [source / "plans.json", source / "dataset.json", *source.glob("fold_*/checkpoint_final.pth")]
        for path in wanted:
            copy = folders[-1] / path.relative_to(source)
            copy.parent.mkdir(exist_ok=True)
            shutil.copyfile(path, copy)
    image = case_of(99)[0][None]
    save("cascade", (folders[0], folders[1]), image, SPACING, mirrored=True)


def strengthen_first_stage(folder: Path) -> None:
    """Make the random weights for what the first stage finds so large that a mistake in it shows."""
    path = folder / "fold_0" / "checkpoint_final.pth"
    checkpoint = torch.load(path, weights_only=False)
    checkpoint["network_weights"]["encoder.stages.0.0.convs.0.conv.weight"][:, 1:] *= 6
    torch.save(checkpoint, path)


def make_random() -> None:
    thick = tiny.architecture(3, strides=[[1, 1, 1], [1, 2, 2], [2, 2, 2]])
    options = {"architecture": thick, "use_mask_for_norm": [True]}
    full = tiny.configuration([8, 24, 24], [4.0, 0.9, 1.0], ["ZScoreNormalization"], **options)
    low = tiny.configuration([8, 16, 16], [4.0, 1.8, 2.0], ["ZScoreNormalization"], next_stage=CASCADE, **options)
    configurations = {LOW: low, "3d_fullres": full}
    configurations[CASCADE] = {"inherits_from": "3d_fullres", "previous_stage": LOW}
    plan = tiny.plans("CascadeRegions", configurations, transpose=[2, 0, 1])
    regions = {"background": 0, "whole": [1, 2], "core": [2], "ignore": 3}
    data = tiny.dataset(regions, tiny.MR, regions_class_order=[1, 2])
    image, spacing = tiny.smooth_image((1, 33, 36, 15), 11, border=2), [1.1, 1.3, 5.0]
    folders = []
    for configuration in (LOW, CASCADE):
        folder = tiny.FOLDER / "cascade_regions" / f"nnUNetTrainer__nnUNetPlans__{configuration}"
        tiny.write_model(folder, configuration, plan, data, folds=1, mirror=None)
        found_first = tiny.predict(folders[0], image, spacing, mirrored=False) if folders else None
        if found_first is not None:
            strengthen_first_stage(folder)
        tiny.balance_heads(folder, image, spacing, values=[1, 2], found_first=found_first)
        folders.append(folder)
    save("cascade_regions", (folders[0], folders[1]), image, spacing, mirrored=False)


def main() -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        folders = {f"nnUNet_{name}": str(Path(folder) / name) for name in ("raw", "preprocessed", "results")}
        os.environ.update(folders, nnUNet_n_proc_DA="0")
        make_trained(Path(folder))
    make_random()


if __name__ == "__main__":
    main()
