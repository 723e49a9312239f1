"""Results folders of nnU-Net v2 (Isensee et al. 2021, doi:10.1038/s41592-020-01008-z), Apache-2.0."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...core.errors import InputError
from ...core.messages import sentence
from ...models.description import ModelDescription, PreviousStage
from ...networks import SegmentationNetwork, build_network
from ...networks.nnunet_plain import NNUNetPlain
from ...networks.nnunet_residual import NNUNetResidual
from ...networks.parts.ensemble import Ensemble
from ..contract import ForeignModel, ImportOptions
from ..parts.torch_checkpoint import read_checkpoint, tensors_of
from .plans import channels_of, configuration_of, label_values_of, labels_of, network_of, plan_of
from .weights import convert_weights, unused_weights

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
    """Return the model in a results folder, for a cascade with its first stage from the results folder beside it.

    Raises:
        InputError: It cannot be imported; the message says why and what would help.
    """
    found = find_results(folder)
    with _errors_named(folder):
        chosen = _choose_results(found, options.configuration)
    model = _read_stage(chosen, options.folds)
    if model.description.previous_stage is None:
        return model
    first_folder, warnings = _find_first_stage(chosen, str(model.description.training["previous_stage"]), found)
    folds, fold_warnings = _folds_of_first(first_folder, options.folds)
    first = _read_stage(first_folder, folds)
    _check_they_belong_together(chosen, model, first_folder, first)
    warnings += [*fold_warnings, *first.warnings, *model.warnings]
    card = (*model.card, *(f"First stage, in the folder `previous`: {line}" for line in first.card[:1]))
    return replace(model, previous=first, warnings=tuple(warnings), card=card)


def _read_stage(folder: Path, folds: tuple[str, ...]) -> ForeignModel:
    plans, dataset = _read_json(folder / PLANS_FILE), _read_json(folder / DATASET_FILE)
    paths, warnings = _find_checkpoints(folder, folds)
    checkpoints = [read_checkpoint(path) for path in paths]
    with _errors_named(folder):
        return _translate(folder, plans, dataset, list(zip(paths, checkpoints, strict=True)), warnings)


@contextmanager
def _errors_named(folder: Path) -> Iterator[None]:
    """Turn errors from malformed entries into InputError."""
    try:
        yield
    except KeyError as error:
        raise InputError(f"{folder.name}: entry {error} is missing: copy the whole results folder") from error
    except (TypeError, ValueError, AttributeError, IndexError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"{folder.name}: plans.json, dataset.json or checkpoint cannot be understood ({error})"
        ) from error


def _translate(
    folder: Path,
    plans: Mapping[str, Any],
    dataset: Mapping[str, Any],
    checkpoints: list[tuple[Path, dict[str, Any]]],
    warnings: list[str],
) -> ForeignModel:
    settings = checkpoints[0][1]
    trainer = str(settings.get("trainer_name", OWN_TRAINER))
    name = str(settings["init_args"]["configuration"]) if "init_args" in settings else folder.name.split("__")[-1]
    configuration = configuration_of(plans, name)
    labels, output = labels_of(dataset)
    channels = channels_of(dataset)
    first = configuration.get("previous_stage")
    found_values = label_values_of(dataset) if first else ()
    outputs = len(labels) + (output == "labels")
    # A single region becomes a label plus a background whose logit is always 0.
    is_lone_region = outputs == 1
    network_name, shape = network_of(
        configuration,
        trainer=trainer,
        channels=len(channels) + len(found_values),
        classes=2 if is_lone_region else outputs,
    )
    members = []
    for path, checkpoint in checkpoints:
        weights = tensors_of(checkpoint["network_weights"], path)
        members.append(_member(network_name, shape, _with_background(weights) if is_lone_region else weights))
    if not trainer.startswith(OWN_TRAINER):
        warnings = [
            *warnings,
            sentence(f"trainer '{trainer}' is unknown: it is assumed to change training alone"),
        ]
    data_name = str(plans.get("dataset_name") or dataset.get("name") or folder.parent.name)
    folds = [path.parent.name.removeprefix("fold_") for path, _ in checkpoints]
    plan = plan_of(plans, configuration, mirror_axes=settings.get("inference_allowed_mirroring_axes") or ())
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
            "epochs": checkpoints[0][1].get("current_epoch"),
            **({"previous_stage": first} if first else {}),
        },
        previous_stage=PreviousStage(label_values=found_values) if first else None,
    )
    network: SegmentationNetwork = members[0] if len(members) == 1 else Ensemble(members)
    card = (
        f"nnU-Net v2, data set {data_name}, configuration {name}, trainer {trainer}, fold(s) {', '.join(folds)}.",
        "Preprocessing and tile weighting follow nnU-Net; mirrored copies are averaged on request.",
    )
    return ForeignModel(description=description, network=network, card=card, warnings=tuple(warnings))


def _choose_results(found: Sequence[Path], configuration: str | None) -> Path:
    named = {path: _configuration_named(path) for path in found}
    chosen = [path for path in found if configuration in (None, named[path])]
    if len(chosen) > 1:
        chosen = _without_first_stages(chosen)
    if len(chosen) == 1:
        return chosen[0]
    known = ", ".join(f"{named[path]} ({path.name})" for path in found)
    if not chosen:
        raise InputError(f"there is no configuration '{configuration}': choose from {known}")
    raise InputError(f"there are several models, {known}: name a --configuration or choose the folder of one")


def _without_first_stages(found: Sequence[Path]) -> list[Path]:
    """Return the results folders that are not the first stage of another."""
    firsts = set()
    for path in found:
        plans, name = _read_json(path / PLANS_FILE), _configuration_named(path)
        if name in plans["configurations"]:
            firsts.add(_beside(path, str(configuration_of(plans, name).get("previous_stage"))))
    return [path for path in found if path not in firsts]


def _beside(folder: Path, configuration: str) -> Path:
    """Return where nnU-Net stores the results of another configuration with the same trainer and plans."""
    return folder.with_name("__".join([*folder.name.split("__")[:-1], configuration]))


def _find_first_stage(folder: Path, configuration: str, found: Sequence[Path]) -> tuple[Path, list[str]]:
    """Return the results folder of the first stage of a cascade, and warnings."""
    beside = _beside(folder, configuration)
    if beside in find_results(beside):
        return beside, []
    others = [path for path in found if path != folder and _configuration_named(path) == configuration]
    if len(others) == 1:
        return others[0], [f"the first stage is taken from {others[0].name}: there is no {beside.name}"]
    raise InputError(
        f"'{_configuration_named(folder)}' starts from what '{configuration}' finds, and its results are not "
        f"there: copy the folder {beside.name} beside {folder.name}, or put both into one zip archive"
    )


def _folds_of_first(folder: Path, wanted: tuple[str, ...]) -> tuple[tuple[str, ...], list[str]]:
    """Return the folds of the first stage that match those wanted of the second, and warnings."""
    missing = [fold for fold in wanted if not any((folder / f"fold_{fold}" / name).is_file() for name in CHECKPOINTS)]
    if not missing:
        return wanted, []
    return (), [f"{folder.name} has no fold {', '.join(missing)}: all its folds are used for the first stage"]


def _check_they_belong_together(folder: Path, model: ForeignModel, first_folder: Path, first: ForeignModel) -> None:
    one, other = first.description, model.description
    if len(one.channels) != len(other.channels) or one.labels != other.labels:
        raise InputError(
            f"{first_folder.name} and {folder.name} were trained on different channels or labels: copy the two "
            "that belong together"
        )


def _configuration_named(folder: Path) -> str:
    """Return the configuration in the name of a results folder, TRAINER__PLANS__CONFIGURATION, or its only one."""
    parts = folder.name.split("__")
    if len(parts) >= 3:
        return parts[-1]
    configurations = list(_read_json(folder / PLANS_FILE).get("configurations", {}))
    return str(configurations[0]) if len(configurations) == 1 else folder.name


def _find_checkpoints(folder: Path, wanted: tuple[str, ...]) -> tuple[list[Path], list[str]]:
    """Return one checkpoint per fold and warnings; by default of all numbered folds, else of "all"."""
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
        raise InputError(f"there is no checkpoint of fold {', '.join(missing)}: choose from {', '.join(by_fold)}")
    paths = [by_fold[fold] for fold in dict.fromkeys(folds)]
    unfinished = [path.parent.name for path in paths if path.name != CHECKPOINTS[0]]
    warnings = [sentence(f"{name} has no {CHECKPOINTS[0]}, {CHECKPOINTS[1]} is used") for name in unfinished]
    return paths, warnings


def _member(name: str, shape: dict[str, Any], weights: Mapping[str, Tensor]) -> SegmentationNetwork:
    network = build_network(name, shape)
    assert isinstance(network, NNUNetPlain | NNUNetResidual)
    network.load_state_dict(convert_weights(weights, network))
    unknown = unused_weights(weights, network)
    if unknown:
        raise InputError(
            f"the checkpoint has weights that the planned network lacks ({', '.join(unknown[:3])}): its trainer "
            "changed the network, so it cannot be imported"
        )
    return network.eval()


def _with_background(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return weights whose heads produce a first logit that is always 0."""
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
