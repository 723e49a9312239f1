"""Initial weights of a training from another model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..core.errors import InputError
from ..core.event_log import TrainingRecord
from ..models.installed import find_model
from ..networks import NETWORKS, SegmentationNetwork
from ..networks.parts.weights import load_network

EVENT = "initialised"


def start_from_model(network: SegmentationNetwork, model: str) -> dict[str, Any]:
    """Load the weights of a model except its heads into a network, and return the event for the record.

    Args:
        network: Changed in place.
        model: Id of an installed model, or a model folder.

    Returns:
        {"event": "initialised", "step": 0, "model": id, "earlier_steps": n}

    Raises:
        InputError: The model is unknown, or has another network.
    """
    source, description = load_network(find_model(model).folder)
    if description.members > 1:
        raise InputError(f"model '{description.id}' has {description.members} members: start from a model with one")
    if NETWORKS[description.network] is not type(network):
        name = next(name for name in NETWORKS if NETWORKS[name] is type(network))
        raise InputError(
            f"model '{description.id}' is a {description.network}, but this training needs a {name}: "
            f"use --variant {description.network}, or another model"
        )
    carry_over(network, source.state_dict())
    return {"event": EVENT, "step": 0, "model": description.id, "earlier_steps": total_steps(description.training)}


def heads_of(network: SegmentationNetwork) -> set[str]:
    """Return the names of the weights that depend on the number of classes."""
    shapes = []
    for more in (0, 1):
        with torch.device("meta"):
            like = type(network)(replace(network.config, num_classes=network.config.num_classes + more))
        shapes.append({name: value.shape for name, value in like.state_dict().items()})
    return {name for name, shape in shapes[0].items() if shapes[1].get(name) != shape}


def carry_over(network: SegmentationNetwork, weights: dict[str, Tensor]) -> None:
    """Load all weights except those of the heads into a network.

    Raises:
        InputError: A weight is missing or of another shape.
    """
    heads, own = heads_of(network), network.state_dict()
    for name, value in own.items():
        if name not in heads and (name not in weights or weights[name].shape != value.shape):
            raise InputError(
                f"the initial weights do not fit this network (at {name}): train with the plan and the network "
                "options that they were trained with, or without --init"
            )
    network.load_state_dict({name: value if name in heads else weights[name] for name, value in own.items()})


def total_steps(training: Mapping[str, Any]) -> int:
    """Return the steps of a training and of its recorded predecessors.

    Args:
        training: Entry of a model's description.
    """
    return int(training.get("steps", 0)) + int(training.get("init", {}).get("earlier_steps", 0))


def read_initialisation(path: Path) -> dict[str, Any]:
    """Return the event of a training's record about its initial weights."""
    found = [event for event in TrainingRecord.read(path) if event["event"] == EVENT][-1]
    return {name: value for name, value in found.items() if name not in ("event", "step")}
