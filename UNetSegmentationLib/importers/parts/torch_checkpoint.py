"""Checkpoints of torch read as data: no code in them is run, and anything but plain data is rejected by name."""

from __future__ import annotations

import pickle
import re
import struct
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...core.errors import InputError

# Building blocks of numpy scalars and small arrays, under their names in numpy 2 and 1.
_NUMPY_KINDS = [np.dtype(kind) for kind in "?bhilqBHILQefdg"]
_NUMPY_CLASSES = (np.dtype, np.ndarray, *{type(kind) for kind in _NUMPY_KINDS}, *{kind.type for kind in _NUMPY_KINDS})
_DAMAGES = (
    AssertionError,
    AttributeError,
    EOFError,
    IndexError,
    KeyError,
    OSError,
    OverflowError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
)


ADVICE = "save the weights alone (network_weights, init_args and trainer_name) and import that"


def read_checkpoint(
    path: Path, *, advice: str = ADVICE, missing: str = "copy the whole results folder"
) -> dict[str, Any]:
    """Return the dictionary that torch.save wrote, tensors on the CPU.

    Args:
        path: Path of the file.
        advice: Advice if it contains code.
        missing: Advice if it is missing.

    Raises:
        InputError: Missing, damaged, not a dictionary, or with anything but plain data.
    """
    if not path.is_file():
        raise InputError(f"{path} is missing: {missing}")
    try:
        with torch.serialization.safe_globals(_harmless_globals()):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise InputError(_refusal(path, str(error), advice)) from error
    except _DAMAGES as error:
        first_line = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"the checkpoint {path} is damaged ({first_line}): copy it again") from error
    if not isinstance(content, dict):
        raise InputError(
            f"the checkpoint {path} holds a {type(content).__name__}, not the dictionary that training writes"
        )
    return content


def read_torchscript(path: Path) -> dict[str, Tensor]:
    """Return the weights in a TorchScript archive. This runs code from the archive: ask the user first.

    Raises:
        InputError: It cannot be loaded.
    """
    try:
        with warnings.catch_warnings():
            # The format is deprecated, but existing files use it.
            warnings.simplefilter("ignore", DeprecationWarning)
            script = torch.jit.load(path, map_location="cpu")  # type: ignore[no-untyped-call]
    except (*_DAMAGES, pickle.UnpicklingError) as error:
        first_line = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"the TorchScript {path} cannot be loaded ({first_line}): export it again") from error
    return {str(name): value.detach() for name, value in script.state_dict().items()}


def tensors_of(state: Any, path: Path) -> dict[str, Tensor]:
    """Return the weights of a state dictionary without the prefixes of wrappers.

    Raises:
        InputError: It is not a dictionary of tensors.
    """
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()) or not state:
        raise InputError(f"the checkpoint {path} contains no weights: choose the checkpoint of a finished training")
    return {re.sub(r"^((module|_orig_mod)\.)+", "", str(name)): value for name, value in state.items()}


def _harmless_globals() -> list[Any]:
    functions = {"scalar": np.float64(0).__reduce__()[0], "_reconstruct": np.zeros(1).__reduce__()[0]}
    aliases = [
        (function, f"numpy.{package}.multiarray.{name}")
        for name, function in functions.items()
        for package in ("core", "_core")
    ]
    return [*_NUMPY_CLASSES, *aliases, torch.device]


def _refusal(path: Path, message: str, advice: str) -> str:
    found = re.search(r"GLOBAL ([\w.]*\w)", message)
    if found is None:
        return f"the checkpoint {path} is damaged or not a torch checkpoint: copy it again"
    return f"the checkpoint {path} holds '{found[1]}', which is code and not plain data, so it is not read: {advice}"
