"""U-Net segmentation of medical images: library, worker process and command line.

This module has what a script needs: read a volume, segment it, write the result; list, train, fine-tune and evaluate
models.

>>> import UNetSegmentationLib as unetseg
>>> volume = unetseg.read_volume("Resources/Samples/mri_hippocampus.nii.gz")
>>> result = unetseg.segment(volume, "mri-hippocampus-unet")
>>> result.labelmap.shape == volume.shape
True
>>> [label.name for label in result.labels]
['Anterior hippocampus', 'Posterior hippocampus']

Importing this package is fast: torch and other dependencies are loaded when a name is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from .core.errors import CancelledError, InputError
    from .core.task import Task
    from .evaluation.cases import CaseFigures
    from .image.geometry import Volume
    from .image.labels import Label
    from .image.volume_io import read_labelmap, read_volume, write_labelmap, write_volume
    from .inference.predictor import Predictor, Segmentation
    from .models.description import ModelDescription
    from .models.installed import InstalledModel, find_model, list_models

__version__ = "0.1.0"
__all__ = [
    "CancelledError",
    "CaseFigures",
    "InputError",
    "InstalledModel",
    "Label",
    "ModelDescription",
    "Predictor",
    "Segmentation",
    "Task",
    "Volume",
    "evaluate",
    "find_model",
    "finetune",
    "list_models",
    "load_model",
    "read_labelmap",
    "read_volume",
    "segment",
    "train",
    "write_labelmap",
    "write_segmentation",
    "write_volume",
]

_MODULES = {
    "core.errors": ("CancelledError", "InputError"),
    "core.task": ("Task",),
    "evaluation.cases": ("CaseFigures",),
    "image.geometry": ("Volume",),
    "image.labels": ("Label",),
    "image.volume_io": ("read_labelmap", "read_volume", "write_labelmap", "write_volume"),
    "inference.predictor": ("Predictor", "Segmentation"),
    "models.description": ("ModelDescription",),
    "models.installed": ("InstalledModel", "find_model", "list_models"),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    """Import a name of `__all__` on first use."""
    if name not in _MODULE_OF:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    value = getattr(import_module(f".{_MODULE_OF[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def load_model(model: Path | str, *, device: str = "auto", backend: str | None = None) -> Predictor:
    """Load a model into memory, to segment one volume after another with `segment`.

    Args:
        model: Id of an installed model, or a model folder.
        device: "auto" (the fastest), "cpu", "cuda", "cuda:1" or "mps".
        backend: Backend for the network; by default the fastest one validated on this machine.

    Raises:
        InputError: There is no such model, device or backend, or the model is damaged.

    >>> load_model("mri-hippocampus-unet", device="cpu").description.title
    'Hippocampus in T1 MRI, U-Net'
    """
    from .inference.predictor import Predictor
    from .models.installed import find_model

    return Predictor(find_model(str(model)).folder, device=device, backend=backend)


def segment(
    volume: Volume | Path | str,
    model: Predictor | Path | str,
    *,
    device: str = "auto",
    tta: bool = False,
    overlap: float | None = None,
    postprocess: tuple[str, ...] | None = None,
    with_probabilities: bool = False,
    task: Task | None = None,
) -> Segmentation:
    """Segment a volume; the result has the same grid.

    Args:
        volume: A volume (C, D, H, W) with the model's channels, or its file or DICOM folder.
        model: A model from `load_model`, which is faster for several volumes, or a model's id or folder.
        device: As in `load_model`, if the model is not loaded yet.
        tta: Average over mirrored copies along the axes that the model was trained to mirror.
        overlap: Overlap of neighbouring tiles as a fraction, 0 to below 1, or None for the model's own.
        postprocess: Steps as `name` or `name:option=value,...`, or None for the model's own.
        with_probabilities: Also return probabilities (K, D, H, W).
        task: Receives progress; polled for cancellation.

    Raises:
        InputError: The volume cannot be read or does not fit the model, or there is no such model.
        CancelledError: The task was cancelled.

    >>> model = load_model("mri-hippocampus-unet")
    >>> result = segment("Resources/Samples/mri_hippocampus.nii.gz", model, with_probabilities=True)
    >>> result.probabilities.shape == (3, *result.labelmap.shape)
    True
    """
    from .core.task import UNWATCHED
    from .image.geometry import Volume
    from .image.volume_io import read_volume
    from .inference.predictor import Predictor

    predictor = model if isinstance(model, Predictor) else load_model(model, device=device)
    return predictor.segment(
        volume if isinstance(volume, Volume) else read_volume(volume),
        tta=tta,
        overlap=overlap,
        postprocess=postprocess,
        with_probabilities=with_probabilities,
        task=task or UNWATCHED,
    )


def write_segmentation(path: Path | str, result: Segmentation, volume: Volume) -> None:
    """Write a result; a .seg.nrrd file opens in Slicer as a segmentation with segment names and colours.

    Args:
        path: File to write; the name determines the format.
        result: A result of `segment`.
        volume: The segmented volume, which provides the geometry.

    Raises:
        InputError: The format is unknown, or the file cannot be written.
    """
    from .image.volume_io import write_labelmap

    write_labelmap(path, result.labelmap, affine_ras=volume.affine_ras, labels=result.labels)


def evaluate(model: Predictor | Path | str, dataset: Path | str, *, device: str = "auto") -> list[CaseFigures]:
    """Segment the cases of a data set and compare them with their references.

    Args:
        model: A model from `load_model`, or a model's id or folder.
        dataset: nnU-Net raw folder, or a folder with images/ and labels/ with matching file names.
        device: As in `load_model`, if the model is not loaded yet.

    Returns:
        For each case, the metrics of each label value: "dice", "iou", "hd95_mm", ...

    Raises:
        InputError: The data set or a case cannot be read or does not fit the model, or there is no such model.
    """
    from .cases.dataset import find_cases
    from .evaluation import cases
    from .inference.predictor import Predictor

    predictor = model if isinstance(model, Predictor) else load_model(model, device=device)
    return list(cases.evaluate(predictor, find_cases(dataset)))


def train(
    dataset: Path | str,
    folder: Path | str,
    *,
    network: str = "unet",
    preset: str = "mri",
    steps: int | None = None,
    minutes: float | None = None,
    device: str = "auto",
    is_resumed: bool = False,
    task: Task | None = None,
) -> ModelDescription:
    """Train a network and save it as a model folder; `training.job` and `training.run` accept all other options.

    Args:
        dataset: nnU-Net raw folder, or a folder with images/ and labels/ with matching file names.
        folder: Model folder to create.
        network: Registered name.
        preset: Registered name of the modality.
        steps: Optimiser steps, or None for 1250, or as many as fit into `minutes`.
        minutes: Time budget of the training loop.
        device: As in `load_model`.
        is_resumed: Continue from the folder's checkpoint.
        task: Receives every event of the training; polled for cancellation.

    Returns:
        The model's description, with its metrics on the held-back subjects.

    Raises:
        InputError: The data set or an option is invalid, or the folder already contains a model.
        CancelledError: The task was cancelled; once training has started, it can be resumed from the checkpoint.
    """
    from pathlib import Path

    from .core.task import UNWATCHED
    from .training.job import TrainingJob
    from .training.options import UNLIMITED_STEPS, TrainingOptions
    from .training.run import run_training

    if steps is None:
        steps = TrainingOptions().steps if minutes is None else UNLIMITED_STEPS
    job = TrainingJob(
        dataset=Path(dataset),
        folder=Path(folder),
        network=network,
        preset=preset,
        options=TrainingOptions(steps=steps, minutes=minutes),
        device=device,
    )
    return run_training(job, is_resumed=is_resumed, task=task or UNWATCHED)


def finetune(
    model: Path | str,
    dataset: Path | str,
    folder: Path | str,
    *,
    steps: int | None = None,
    minutes: float | None = None,
    device: str = "auto",
    is_resumed: bool = False,
    task: Task | None = None,
) -> ModelDescription:
    """Fine-tune a model on a few local cases and save it as a new model folder; the original is not changed.

    `finetuning.job` takes all other options.

    Args:
        model: Id or folder of the model to fine-tune.
        dataset: Local cases with the model's label values; 255 means unlabelled.
        folder: Model folder to create.
        steps: Optimiser steps, or None for 120 plus 40 per case, or as many as fit into `minutes`.
        minutes: Time budget of the training loop.
        device: As in `load_model`.
        is_resumed: Continue from the folder's checkpoint.
        task: Receives every event; polled for cancellation.

    Returns:
        The new model's description, with the comparison of the two models in `figures["gate"]`.

    Raises:
        InputError: The model, the cases or an option is invalid, or the folder already contains a model.
        CancelledError: The task was cancelled; once training has started, it can be resumed from the checkpoint.
    """
    from pathlib import Path

    from .core.task import UNWATCHED
    from .finetuning.job import FinetuningJob
    from .finetuning.run import run_finetuning

    job = FinetuningJob(
        model=str(model), dataset=Path(dataset), folder=Path(folder), steps=steps, minutes=minutes, device=device
    )
    return run_finetuning(job, is_resumed=is_resumed, task=task or UNWATCHED)
