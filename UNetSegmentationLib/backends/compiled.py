"""torch.compile: fuses more than eager torch, after a compilation of up to two minutes in every process."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from typing import ClassVar

import torch
from torch import Tensor

from ..networks.parts.memory_format import FORMATS
from .contract import BACKENDS, Backend, Computation, Forward, main_output
from .parts.network_copy import channels_last_copy

_COMPILERS = ("cl",) if sys.platform == "win32" else ("c++", "g++", "clang++")


@BACKENDS.register("compiled", title="torch.compile, float32")
class Compiled(Backend):
    """Channels-last, compiled for tiles of one shape."""

    is_recorded: ClassVar[bool] = True
    is_slow_to_build: ClassVar[bool] = True

    def obstacle(self, device: torch.device) -> str:
        """It needs a C++ compiler on the CPU and Triton on a GPU."""
        if device.type == "cpu":
            return "" if any(map(shutil.which, _COMPILERS)) else "no C++ compiler was found"
        if device.type == "cuda":
            return "" if importlib.util.find_spec("triton") else "Triton is not installed"
        return "torch.compile does not support this device"

    def build(self, computation: Computation) -> Forward:
        """Compile and run once, so that errors surface here."""
        copy = channels_last_copy(computation.network)
        compiled = torch.compile(copy, dynamic=False)

        def forward(batch: Tensor) -> Tensor:
            return main_output(compiled(batch.contiguous(memory_format=FORMATS[batch.ndim])))

        with torch.inference_mode():
            forward(torch.zeros(computation.shape, device=computation.device))
        return forward
