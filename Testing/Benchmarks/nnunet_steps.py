"""nnU-Net v2's trainer on the CPU for a number of steps, for bench_training.py, in nnU-Net's Python.

    python nnunet_steps.py plan IMAGES_AND_LABELS WORK
    python nnunet_steps.py train WORK --batch 2 --steps 20

`plan` writes the data set in nnU-Net's layout into the folder WORK, and runs fingerprint, planner and preprocessing.
`train` runs the inner loop of `nnUNetTrainer.run_training` with the trainer's loaders, augmentation, network, loss
and optimiser; the batch size is the only thing that is set. Events go to standard output as JSON lines, what nnU-Net
prints to standard error.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import shutil
import sys
from importlib.metadata import version
from pathlib import Path
from time import perf_counter
from typing import Any

DATASET, CONFIGURATION, PLANS = "Dataset004_Hippocampus", "3d_fullres", "nnUNetPlans"
LABELS = {"background": 0, "Anterior": 1, "Posterior": 2}


def set_folders(work: Path) -> dict[str, Path]:
    folders = {name: work / name for name in ("raw", "preprocessed", "results")}
    os.environ.update({f"nnUNet_{name}": str(folder) for name, folder in folders.items()})
    return folders


def make_plan(data: Path, work: Path) -> None:
    """Bring a folder of images/ and labels/ into nnU-Net's layout, plan and preprocess it."""
    folders = set_folders(work)
    raw = folders["raw"] / DATASET
    for name in ("imagesTr", "labelsTr"):
        (raw / name).mkdir(parents=True, exist_ok=True)
    images = sorted((data / "images").glob("*.nii.gz"))
    for path in images:
        shutil.copyfile(path, raw / "imagesTr" / path.name.replace(".nii.gz", "_0000.nii.gz"))
        shutil.copyfile(data / "labels" / path.name, raw / "labelsTr" / path.name)
    about = {"channel_names": {"0": "MRI"}, "labels": LABELS, "numTraining": len(images), "file_ending": ".nii.gz"}
    (raw / "dataset.json").write_text(json.dumps(about), encoding="utf-8")

    from nnunetv2.experiment_planning import plan_and_preprocess_api as steps

    steps.extract_fingerprints([4], num_processes=1, clean=False)
    steps.plan_experiments([4])
    steps.preprocess([4], configurations=(CONFIGURATION,), num_processes=(1,))


def train(work: Path, *, batch: int, steps: int, send: Any) -> None:
    """Take training steps and send the seconds of each, including the wait for its batch."""
    prepared = set_folders(work)["preprocessed"] / DATASET

    import torch
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    # As nnUNetv2_train does it for the CPU.
    torch.set_num_threads(multiprocessing.cpu_count())
    send({"event": "imported", "versions": {name: version(name) for name in ("nnunetv2", "torch")}})
    plans = json.loads((prepared / f"{PLANS}.json").read_text(encoding="utf-8"))
    plans["configurations"][CONFIGURATION]["batch_size"] = batch
    about = json.loads((prepared / "dataset.json").read_text(encoding="utf-8"))
    trainer = nnUNetTrainer({**plans, "continue_training": False}, CONFIGURATION, 0, about, torch.device("cpu"))
    trainer.on_train_start()
    trainer.on_epoch_start()
    trainer.on_train_epoch_start()
    weights = sum(parameter.numel() for parameter in trainer.network.parameters())
    send({"event": "start", "weights": weights, "threads": torch.get_num_threads()})
    for _ in range(steps):
        began = perf_counter()
        trainer.train_step(next(trainer.dataloader_train))
        send({"event": "step", "seconds": perf_counter() - began})
    for loader in (trainer.dataloader_train, trainer.dataloader_val):
        loader._finish()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    actions = parser.add_subparsers(dest="action", required=True)
    planning = actions.add_parser("plan")
    planning.add_argument("data", type=Path)
    planning.add_argument("work", type=Path)
    training = actions.add_parser("train")
    training.add_argument("work", type=Path)
    training.add_argument("--batch", type=int, required=True)
    training.add_argument("--steps", type=int, required=True)
    arguments = parser.parse_args()
    events = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

    def send(event: dict[str, Any]) -> None:
        events.write(json.dumps(event) + "\n")
        events.flush()

    if arguments.action == "plan":
        make_plan(arguments.data, arguments.work)
    else:
        train(arguments.work, batch=arguments.batch, steps=arguments.steps, send=send)


if __name__ == "__main__":
    main()
