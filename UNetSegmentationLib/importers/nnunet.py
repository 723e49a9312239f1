"""Results folders of nnU-Net v2 (Isensee et al. 2021, doi:10.1038/s41592-020-01008-z), Apache-2.0."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import InputError
from ..model_folder import ModelDescription
from ..networks import SegmentationNetwork, build_network
from ..networks.ensemble import Ensemble
from ..networks.nnunet_plain import NNUNetPlain
from ..networks.nnunet_residual import NNUNetResidual
from ..networks.nnunet_weights import convert_weights, unused_weights
from .contract import IMPORTERS, ForeignModel, Importer, ImportOptions
from .nnunet_plans import channels_of, configuration_of, labels_of, network_of, plan_of
from .torch_checkpoint import read_checkpoint, tensors_of

PLANS_FILE = "plans.json"
DATASET_FILE = "dataset.json"
CHECKPOINTS = ("checkpoint_final.pth", "checkpoint_best.pth")
HEADS = "decoder.seg_layers."
OWN_TRAINER = "nnUNetTrainer"


def find_results(folder: Path) -> list[Path]:
    """Return the results folders at or below a folder, at most three levels deep."""
    candidates = [folder, *(path for depth in ("*", "*/*", "*/*/*") for path in sorted(folder.glob(depth)))]
    return [
        path
        for path in candidates
        if any((fold / name).is_file() for fold in path.glob("fold_*") for name in CHECKPOINTS)
        or ((path / PLANS_FILE).is_file() and any(path.glob("fold_*")))
    ]


def read_results(folder: Path, options: ImportOptions) -> ForeignModel:
    """Return the model in a results folder.

    Raises:
        InputError: It cannot be imported; the message says why and what would help.
    """
    folder = _choose_results(folder, options.configuration)
    plans, dataset = _read_json(folder / PLANS_FILE), _read_json(folder / DATASET_FILE)
    paths, warnings = _find_checkpoints(folder, options.folds)
    checkpoints = [read_checkpoint(path) for path in paths]
    try:
        return _translate(folder, plans, dataset, list(zip(paths, checkpoints, strict=True)), warnings)
    except KeyError as error:
        raise InputError(f"{folder.name}: entry {error} is missing: copy the whole results folder") from error
    except (TypeError, ValueError, AttributeError, IndexError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{folder.name}: plans.json, dataset.json or checkpoint make no sense ({error})") from error


def _translate(
    folder: Path,
    plans: Mapping[str, Any],
    dataset: Mapping[str, Any],
    checkpoints: list[tuple[Path, dict[str, Any]]],
    warnings: list[str],
) -> ForeignModel:
    first = checkpoints[0][1]
    trainer = str(first.get("trainer_name", OWN_TRAINER))
    name = str(first["init_args"]["configuration"]) if "init_args" in first else folder.name.split("__")[-1]
    configuration = configuration_of(plans, name)
    labels, output = labels_of(dataset)
    channels = channels_of(dataset)
    outputs = len(labels) + (output == "labels")
    # A single region is a label beside a background whose logit is always 0.
    is_lone_region = outputs == 1
    network_name, shape = network_of(
        configuration, trainer=trainer, channels=len(channels), classes=2 if is_lone_region else outputs
    )
    members = []
    for path, checkpoint in checkpoints:
        weights = tensors_of(checkpoint["network_weights"], path)
        members.append(_member(network_name, shape, _with_background(weights) if is_lone_region else weights))
    if not trainer.startswith(OWN_TRAINER):
        warnings = [*warnings, f"trainer '{trainer}' is not known: it is taken for one that changes training alone"]
    data_name = str(plans.get("dataset_name") or dataset.get("name") or folder.parent.name)
    folds = [path.parent.name.removeprefix("fold_") for path, _ in checkpoints]
    plan = plan_of(plans, configuration, mirror_axes=first.get("inference_allowed_mirroring_axes") or ())
    description = ModelDescription(
        id=_id_of(f"nnunet-{data_name}-{name}"),
        title=f"{re.sub(r'^Dataset[0-9]+_', '', data_name)} (nnU-Net {name})",
        network=network_name,
        network_config=members[0].config.to_dict(),
        plan=plan,
        preset=_preset_of([scheme.scheme for scheme in plan.normalization], plans),
        channels=channels,
        labels=labels,
        output="labels" if is_lone_region else output,
        members=len(members),
        training={
            "imported_from": "nnU-Net v2",
            "data": data_name,
            "cases": dataset.get("numTraining"),
            "configuration": name,
            "folds": folds,
            "trainer": trainer,
            "epochs": first.get("current_epoch"),
        },
    )
    network: SegmentationNetwork = members[0] if len(members) == 1 else Ensemble(members)
    card = (
        f"nnU-Net v2, data set {data_name}, configuration {name}, trainer {trainer}, fold(s) {', '.join(folds)}.",
        "Images are prepared and tiles are weighted as nnU-Net does it; mirrored copies are averaged where asked for.",
    )
    return ForeignModel(description=description, network=network, card=card, warnings=tuple(warnings))


def _choose_results(folder: Path, configuration: str | None) -> Path:
    found = find_results(folder)
    named = {path: _configuration_named(path) for path in found}
    chosen = [path for path in found if configuration in (None, named[path])]
    if len(chosen) == 1:
        return chosen[0]
    known = ", ".join(f"{named[path]} ({path.name})" for path in found)
    if not chosen:
        raise InputError(f"there is no configuration '{configuration}': there is {known}")
    raise InputError(f"there are several models, {known}: name a --configuration or give the folder of one")


def _configuration_named(folder: Path) -> str:
    """Return the configuration in the name of a results folder, TRAINER__PLANS__CONFIGURATION, or its only one."""
    parts = folder.name.split("__")
    if len(parts) >= 3:
        return parts[-1]
    configurations = list(_read_json(folder / PLANS_FILE).get("configurations", {}))
    return str(configurations[0]) if len(configurations) == 1 else folder.name


def _find_checkpoints(folder: Path, wanted: tuple[str, ...]) -> tuple[list[Path], list[str]]:
    """Return one checkpoint a fold and what to warn of; by default those of all numbered folds, else that of "all"."""
    by_fold = {}
    for fold in sorted(folder.glob("fold_*")):
        path = next((fold / name for name in CHECKPOINTS if (fold / name).is_file()), None)
        if path is not None:
            by_fold[fold.name.removeprefix("fold_")] = path
    if not by_fold:
        raise InputError(f"{folder.name} has no fold with {' or '.join(CHECKPOINTS)}: copy the whole results folder")
    folds = wanted or tuple(fold for fold in by_fold if fold != "all") or tuple(by_fold)
    missing = [fold for fold in folds if fold not in by_fold]
    if missing:
        raise InputError(f"there is no checkpoint of fold {', '.join(missing)}: there is {', '.join(by_fold)}")
    paths = [by_fold[fold] for fold in dict.fromkeys(folds)]
    unfinished = [path.parent.name for path in paths if path.name != CHECKPOINTS[0]]
    warnings = [f"{name} has no {CHECKPOINTS[0]}, {CHECKPOINTS[1]} is taken" for name in unfinished]
    return paths, warnings


def _member(name: str, shape: dict[str, Any], weights: Mapping[str, Tensor]) -> SegmentationNetwork:
    network = build_network(name, shape)
    assert isinstance(network, NNUNetPlain | NNUNetResidual)
    network.load_state_dict(convert_weights(weights, network))
    unknown = unused_weights(weights, network)
    if unknown:
        raise InputError(
            f"the checkpoint has weights that the planned network does not ({', '.join(unknown[:3])}): its trainer "
            "changed the network, so it cannot be imported"
        )
    return network.eval()


def _with_background(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return weights whose heads give a first logit that is always 0."""
    return {
        name: torch.cat([torch.zeros_like(value), value]) if name.startswith(HEADS) else value
        for name, value in weights.items()
    }


def _preset_of(schemes: list[str], plans: Mapping[str, Any]) -> str:
    if "ct" in schemes:
        return "ct"
    return "xray" if plans["image_reader_writer"] == "NaturalImage2DIO" else "mri"


def _id_of(text: str) -> str:
    return re.sub(r"[^a-z0-9_-]+", "-", text.lower()).strip("-_")


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise InputError(f"{path.name} is missing beside the folds: copy the whole results folder")
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read ({error}): copy it again") from error
    if not isinstance(values, dict):
        raise InputError(f"{path} is not a JSON object: copy it again")
    return values


IMPORTERS.register("nnunet", title="nnU-Net v2 results")(
    Importer(recognises=lambda folder: bool(find_results(folder)), read=read_results)
)
