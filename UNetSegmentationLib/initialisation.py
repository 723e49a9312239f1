"""What a training begins with: drawn weights, those of a pretraining without labels, or those of another model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from .augmentation import AugmentationConfig
from .checkpoint import load_network
from .dataset import Case, PreparedCase
from .distributed import Processes
from .errors import InputError
from .model_folder import find_model
from .networks import NETWORKS, SegmentationNetwork
from .planning import Plan
from .pretraining import STEPS, build_reconstructing, carry_over, pretrain
from .training_record import TrainingRecord
from .unlabelled import find_unlabelled, prepare_unlabelled

if TYPE_CHECKING:
    from .training_folder import TrainingJob

PRETRAINED = "pretrained"
EVENT = "initialised"


@dataclass(frozen=True, kw_only=True)
class Cases:
    """The cases of a training.

    Attributes:
        training: Those to learn from.
        prepared: The same on the network's grid.
        held_back: Those of other subjects, of which nothing may be learnt.
    """

    training: Sequence[Case]
    prepared: Sequence[PreparedCase]
    held_back: Sequence[Case]


def initialise(
    job: TrainingJob,
    network: SegmentationNetwork,
    plan: Plan,
    *,
    cases: Cases,
    augmentation: AugmentationConfig,
    device: torch.device,
    processes: Processes,
    is_cancelled: Callable[[], bool],
) -> Iterator[dict[str, Any]]:
    """Give a network the weights that a job says, but for its heads.

    Args:
        job: With `init`.
        network: On the CPU; changed in place.
        plan: Of the training.
        cases: Of the training.
        augmentation: Of the training.
        device: Where to compute.
        processes: Those that train together.
        is_cancelled: Asked often.

    Yields:
        Stages, events of pretraining.pretrain, and at the end {"event": "initialised", "step": 0, ...} with "model", or
        with "pretraining_steps", "images" and "left_out".

    Raises:
        InputError: The weights or the images cannot be used.
        CancelledError: `is_cancelled` said so; the checkpoint allows to go on.
    """
    if job.init != PRETRAINED:
        # The other processes get the weights as the training begins.
        yield processes.share(lambda: begin_with_model(network, job.init))
        return
    build_reconstructing(network, seed=0)  # a network that cannot be pretrained is told before images are read
    found, left_out = find_unlabelled(
        job.pretraining_images or job.dataset,
        dataset=job.dataset,
        channels=network.config.in_channels,
        held_back=cases.held_back,
    )
    processes.check_same("folder of images to pretrain on", [case.id for case in found])
    steps = job.pretraining_steps or STEPS
    about = f" ({len(left_out)} of subjects that are held back are left out)" if left_out else ""
    yield {"event": "stage", "message": f"Pretraining on {len(found)} images without their labels{about}"}
    images = prepare_unlabelled(found, plan, prepared=cases.prepared, labelled=cases.training)
    yield from pretrain(
        network,
        images,
        plan,
        options=replace(job.options, steps=steps, minutes=None, has_fixed_statistics=False),
        augmentation=augmentation,
        folder=job.folder,
        device=device,
        processes=processes,
        is_cancelled=is_cancelled,
    )
    counts = {"pretraining_steps": steps, "images": len(found), "left_out": len(left_out)}
    yield {"event": EVENT, "step": 0, **counts}


def begin_with_model(network: SegmentationNetwork, model: str) -> dict[str, Any]:
    """Give a network the weights of a model, but for the heads, and return what the record says of it.

    Raises:
        InputError: There is no such model, or it is another network.
    """
    source, description = load_network(find_model(model).folder)
    if description.members > 1:
        raise InputError(f"model '{description.id}' has {description.members} members: begin with a model of one")
    if NETWORKS[description.network] is not type(network):
        name = next(name for name in NETWORKS if NETWORKS[name] is type(network))
        raise InputError(
            f"model '{description.id}' is a {description.network}, this training a {name}: "
            f"give --variant {description.network}, or another model"
        )
    carry_over(network, source.state_dict())
    return {"event": EVENT, "step": 0, "model": description.id, "earlier_steps": total_steps(description.training)}


def total_steps(training: Mapping[str, Any]) -> int:
    """Return the steps of a training and of those before it, as far as the model tells of them.

    Args:
        training: Of a model's description.
    """
    return int(training.get("steps", 0)) + int(training.get("init", {}).get("earlier_steps", 0))


def read_beginning(path: Path) -> dict[str, Any]:
    """Return what a training's record says of its first weights."""
    found = [event for event in TrainingRecord.read(path) if event["event"] == EVENT][-1]
    return {name: value for name, value in found.items() if name not in ("event", "step")}
