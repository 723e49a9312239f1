"""NVIDIA GPUs: tensor cores by TF32 or float16, channels-last, and the kernel launches of a tile recorded once.

The kernels of a small tile run faster than Python can launch them; a CUDA graph launches them all at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar

import torch
from torch import Tensor

from ..networks.parts.memory_format import FORMATS
from .contract import BACKENDS, Backend, Computation, Forward, autocast_forward, main_output
from .parts.network_copy import channels_last_copy

_WARM_UPS = 3  # cuDNN selects its kernels in the first calls, which a graph must not record


def _obstacle(device: torch.device, *, least_capability: tuple[int, int]) -> str:
    if device.type != "cuda":
        return "runs on NVIDIA GPUs only"
    capability = torch.cuda.get_device_capability(device)
    return "" if capability >= least_capability else "this GPU lacks the tensor cores for it"


@contextmanager
def _tf32() -> Iterator[None]:
    """Allow TF32 in cuDNN and cuBLAS within the block."""
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = True
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


@BACKENDS.register("cuda_tf32", title="CUDA, TF32, channels last")
class CudaTF32(Backend):
    """float32 with operands rounded to 10 bits of mantissa."""

    precision: ClassVar[str] = "tf32"

    def obstacle(self, device: torch.device) -> str:
        """It needs an Ampere or later GPU."""
        return _obstacle(device, least_capability=(8, 0))

    def build(self, computation: Computation) -> Forward:
        """Return the forward function of a copy."""
        copy = channels_last_copy(computation.network)

        def forward(batch: Tensor) -> Tensor:
            with _tf32():
                return main_output(copy(batch.contiguous(memory_format=FORMATS[batch.ndim])))

        return forward


@BACKENDS.register("cuda_float16", title="CUDA, float16 mixed precision")
class CudaFloat16(Backend):
    """Mixed precision, channels-last."""

    precision: ClassVar[str] = "float16"

    def obstacle(self, device: torch.device) -> str:
        """It needs a Volta or later GPU."""
        return _obstacle(device, least_capability=(7, 0))

    def build(self, computation: Computation) -> Forward:
        """Return the forward function of a copy."""
        return autocast_forward(channels_last_copy(computation.network), computation.device, torch.float16)


@BACKENDS.register("cuda_graph", title="CUDA, float16 mixed precision, recorded")
class CudaGraph(Backend):
    """Mixed precision, all launches of a tile in one CUDA graph."""

    precision: ClassVar[str] = "float16"
    is_recorded: ClassVar[bool] = True

    def obstacle(self, device: torch.device) -> str:
        """It needs a Volta or later GPU."""
        return _obstacle(device, least_capability=(7, 0))

    def build(self, computation: Computation) -> Forward:
        """Record the launches; logits are copied out, because the next replay overwrites them."""
        eager = autocast_forward(channels_last_copy(computation.network), computation.device, torch.float16)
        entry = torch.zeros(computation.shape, device=computation.device)
        graph = torch.cuda.CUDAGraph()
        # The autocast cache would keep casts from the recording alive outside it.
        with torch.inference_mode(), torch.cuda.device(computation.device):
            aside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
            aside.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(aside):
                for _ in range(_WARM_UPS):
                    eager(entry)
            torch.cuda.current_stream().wait_stream(aside)
            with torch.cuda.graph(graph):
                logits = eager(entry)

        def forward(batch: Tensor) -> Tensor:
            entry.copy_(batch)
            graph.replay()
            return logits.clone()

        return forward
