"""Weights in safetensors: nothing read from a file is ever executed."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ...core.errors import InputError
from ...core.files import sha256_of
from ...core.tensor_files import atomic_tensor_file
from ...models.description import WEIGHTS_FILE, ModelDescription, read_description
from .. import SegmentationNetwork, build_network
from .ensemble import Ensemble


def save_weights(path: Path, network: nn.Module, *, is_half: bool = False) -> None:
    """Write the weights atomically, in half precision on request (half the size; loaded as float32)."""
    state = {name: value.detach().cpu().contiguous().clone() for name, value in network.state_dict().items()}
    if is_half:
        state = {name: value.half() if value.dtype == torch.float32 else value for name, value in state.items()}
    with atomic_tensor_file(path) as temporary:
        save_file(state, temporary)


def load_weights(path: Path) -> dict[str, Tensor]:
    """Read weights; half precision becomes float32.

    Raises:
        InputError: Missing or damaged.
    """
    if not path.is_file():
        raise InputError(f"the model has no weights ({path} is missing): copy the whole model folder again")
    try:
        state = load_file(path)
    except (SafetensorError, OSError) as error:
        raise InputError(f"the weights {path} are damaged ({error}): copy the model folder again") from error
    return {name: value.float() if value.is_floating_point() else value for name, value in state.items()}


def load_network(folder: Path) -> tuple[SegmentationNetwork, ModelDescription]:
    """Return the network of a model folder in evaluation mode, on the CPU, and its description.

    Raises:
        InputError: The folder is incomplete, damaged or does not match its description.
    """
    description = read_description(folder)
    weights = folder / WEIGHTS_FILE
    state = load_weights(weights)
    if description.weights_sha256 and sha256_of(weights) != description.weights_sha256:
        raise InputError(f"the weights in {folder} do not match its model.json: copy the model folder again")
    networks = [build_network(description.network, description.network_config) for _ in range(description.members)]
    network = networks[0] if len(networks) == 1 else Ensemble(networks)
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise InputError(f"the weights in {folder} do not fit network '{description.network}': {error}") from error
    return network.eval(), description
