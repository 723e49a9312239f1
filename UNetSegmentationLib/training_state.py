"""The state of a training loop and its checkpoint, from which the loop goes on as if it had never stopped."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from .errors import InputError
from .files import atomic_path
from .networks import SegmentationNetwork

CHECKPOINT_FILE = "checkpoint.safetensors"


@dataclass
class LoopState:
    """All that decides how the loop goes on; the checkpoint holds it whole."""

    network: SegmentationNetwork
    average: dict[str, Tensor]
    optimizer: torch.optim.AdamW
    step: int = 0
    elapsed_s: float = 0.0
    precision: str = "float32"


def save_state(path: Path, state: LoopState) -> None:
    """Write the loop's state: tensors in safetensors, numbers in its metadata; nothing is pickled."""
    tensors = {f"network.{name}": value for name, value in state.network.state_dict().items()}
    tensors |= {f"average.{name}": value for name, value in state.average.items()}
    for index, entries in state.optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{name}": value for name, value in entries.items()}
    numbers = {"step": state.step, "elapsed_s": state.elapsed_s, "precision": state.precision}
    with atomic_path(path) as temporary:
        contiguous = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
        save_file(contiguous, temporary, metadata={"loop": json.dumps(numbers)})


def load_state(path: Path, state: LoopState) -> bool:
    """Restore the loop's state from a checkpoint, where there is one."""
    if not path.is_file():
        return False
    try:
        with safe_open(path, framework="pt") as file:
            numbers = json.loads(file.metadata()["loop"])
        tensors = load_file(path)
        state.network.load_state_dict(_below(tensors, "network."))
    except (SafetensorError, RuntimeError, KeyError, ValueError) as error:
        raise InputError(f"checkpoint {path} is damaged or another network's: remove it to start anew") from error
    device = next(state.network.parameters()).device
    state.average = {name: value.to(device) for name, value in _below(tensors, "average.").items()}
    entries: dict[int, dict[str, Tensor]] = {}
    for name, value in _below(tensors, "optimizer.").items():
        index, key = name.split(".", 1)
        entries.setdefault(int(index), {})[key] = value
    groups = state.optimizer.state_dict()["param_groups"]
    state.optimizer.load_state_dict({"state": entries, "param_groups": groups})
    state.step, state.elapsed_s = int(numbers["step"]), float(numbers["elapsed_s"])
    state.precision = str(numbers["precision"])
    return True


def _below(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
