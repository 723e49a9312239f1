"""The state of a training loop and its checkpoint, from which the loop resumes exactly."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save_file
from torch import Tensor

from ..core.errors import InputError
from ..core.tensor_files import atomic_tensor_file
from ..networks import SegmentationNetwork
from .processes.processes import ALONE, Processes

CHECKPOINT_FILE = "checkpoint.safetensors"
_NUMBERS = ("step", "elapsed_s", "precision", "batch_size")


@dataclass
class LoopState:
    """Everything that determines the course of the loop; the checkpoint stores all of it.

    Attributes:
        network: Current network.
        average: Moving average of its weights.
        optimizer: Optimiser of its weights.
        batch_size: Patches per step, over all processes.
        step: Steps taken.
        elapsed_s: Time they took.
        precision: "float32" or "bfloat16".
    """

    network: SegmentationNetwork
    average: dict[str, Tensor]
    optimizer: torch.optim.AdamW
    batch_size: int
    step: int = 0
    elapsed_s: float = 0.0
    precision: str = "float32"


def save_state(path: Path, state: LoopState) -> None:
    """Write the loop's state: tensors in safetensors, numbers in its metadata; nothing is pickled."""
    tensors = {f"network.{name}": value for name, value in state.network.state_dict().items()}
    tensors |= {f"average.{name}": value for name, value in state.average.items()}
    for index, entries in state.optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{name}": value for name, value in entries.items()}
    numbers = {name: getattr(state, name) for name in _NUMBERS}
    with atomic_tensor_file(path) as temporary:
        contiguous = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
        save_file(contiguous, temporary, metadata={"loop": json.dumps(numbers)})


def load_state(path: Path, state: LoopState, processes: Processes = ALONE) -> bool:
    """Restore the loop's state from a checkpoint, if any.

    Args:
        path: Read by the first process only, as other hosts may not have it.
        state: Overwritten, including its batch size.
        processes: Processes that train together; all get the same state.

    Raises:
        InputError: The checkpoint is damaged or belongs to another network.
    """
    content = processes.share_bytes(lambda: path.read_bytes() if path.is_file() else None)
    if content is None:
        return False
    try:
        numbers = json.loads(_header(content)["loop"])
        tensors = load(content)
        state.network.load_state_dict(_below(tensors, "network."))
    except (SafetensorError, RuntimeError, KeyError, ValueError) as error:
        raise InputError(
            f"checkpoint {path} is damaged or belongs to another network: remove it to start over"
        ) from error
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
    state.batch_size = int(numbers.get("batch_size", state.batch_size))
    return True


def _header(content: bytes) -> dict[str, str]:
    """Return the metadata of a safetensors file: JSON behind its length in eight bytes."""
    length = int.from_bytes(content[:8], "little")
    values: dict[str, str] = json.loads(content[8 : 8 + length])["__metadata__"]
    return values


def _below(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
