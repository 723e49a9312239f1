"""OpenVINO on the CPU (optional, Apache-2.0): the network as one graph, optimised as a whole for its tile shape.

The conversion is cached in the store; it traces the network and takes seconds.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from .contract import BACKENDS, Backend, Computation, Forward, main_output
from .parts.devices import computes_in_bfloat16
from .parts.kernel_rounding import with_rounded_kernel
from .parts.network_copy import copy_network
from .parts.openvino_precision import keep_in_float32, shield_from_rounding
from .parts.outer_layers import outer_layers

PULSE_MS = 50
_CONVERSION = 5  # version of cached conversions; a change invalidates them all


def openvino_version() -> str:
    """Return the installed version; empty if not installed."""
    try:
        return importlib.metadata.version("openvino")
    except importlib.metadata.PackageNotFoundError:
        return ""


def load_openvino() -> Any:
    """Return the package with its telemetry disabled, which it would otherwise send at every import."""
    if "openvino" not in sys.modules:
        sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # None: importing it fails
    import openvino

    return openvino


@BACKENDS.register("openvino", title="OpenVINO, float32")
class OpenVINO(Backend):
    """float32, with as many threads as torch."""

    is_recorded: ClassVar[bool] = True
    # Measured: the graph's constants, and oneDNN's rearranged copy.
    weight_copies: ClassVar[int] = 2
    hint: ClassVar[str] = "f32"

    def obstacle(self, device: torch.device) -> str:
        """It needs the package."""
        if device.type != "cpu":
            return "runs on CPUs only"
        return "" if importlib.util.find_spec("openvino") else "the package openvino is not installed"

    def build(self, computation: Computation) -> Forward:
        """Compile the converted network; convert it first if it is not cached."""
        openvino = load_openvino()
        core = openvino.Core()
        settings = {
            "INFERENCE_PRECISION_HINT": self.hint,
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        }
        model = _converted(computation, openvino, core, precision=self.precision)
        request = core.compile_model(model, "CPU", settings).create_infer_request()

        def forward(batch: Tensor) -> Tensor:
            tile = batch.contiguous()  # the request reads its memory without keeping it alive
            request.set_input_tensor(openvino.Tensor(tile.numpy(), shared_memory=True))
            request.start_async()
            try:
                while not request.wait_for(PULSE_MS):
                    computation.pulse()
            except BaseException:
                request.cancel()
                _wait_out(request)
                raise
            # The request's memory is overwritten by the next tile.
            return torch.from_numpy(request.get_output_tensor().data.copy())

        return forward


@BACKENDS.register("openvino_bfloat16", title="OpenVINO, bfloat16")
class OpenVINOBFloat16(OpenVINO):
    """bfloat16 for most of the computation, see openvino_precision, on CPUs that support it."""

    precision: ClassVar[str] = "bfloat16"
    hint: ClassVar[str] = "bf16"

    def obstacle(self, device: torch.device) -> str:
        """It needs the package and a CPU with bfloat16 instructions."""
        if missing := super().obstacle(device):
            return missing
        return "" if computes_in_bfloat16(device) else "this CPU has no bfloat16 instructions"


def _wait_out(request: Any) -> None:
    """Wait for a cancelled request, which reports that as an error."""
    try:
        request.wait()
    except RuntimeError:
        return


def _converted(computation: Computation, openvino: Any, core: Any, *, precision: str) -> Any:
    key = {
        "network": computation.identity,
        "shape": list(computation.shape),
        "openvino": openvino_version(),
        "precision": precision,
        "form": _CONVERSION,
    }
    store = computation.store if computation.identity else None
    content = None if store is None else store.get("openvino", key)
    if content is None:
        content = _packed(_convert(computation, openvino, precision=precision), openvino, precision=precision)
        if store is not None:
            store.put("openvino", key, content)
    return _unpacked(content, openvino, core)


def _convert(computation: Computation, openvino: Any, *, precision: str) -> Any:
    example = torch.zeros(computation.shape)
    network = computation.network
    if precision != "float32":
        ends = outer_layers(network, computation.shape)
        network = copy_network(network, replace=lambda layer: None if layer in ends else with_rounded_kernel(layer))
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")  # tracing warns of every size that becomes a constant, which is intended
        traced = torch.jit.trace(  # type: ignore[no-untyped-call]
            _MainOutput(network), example, check_trace=False
        )
        model = openvino.convert_model(traced, input=[list(computation.shape)])
    if precision != "float32":
        shield_from_rounding(model, openvino.opset13)
    return model


def _packed(model: Any, openvino: Any, *, precision: str) -> bytes:
    """Return the converted network as bytes: the length of its description, its description, its weights."""
    with tempfile.TemporaryDirectory() as folder:
        description = Path(folder) / "network.xml"
        openvino.save_model(model, description, compress_to_fp16=False)
        xml, weights = description.read_bytes(), description.with_suffix(".bin").read_bytes()
    if precision != "float32":
        xml = keep_in_float32(xml)
    return b"".join((len(xml).to_bytes(8, "little"), xml, weights))


def _unpacked(content: bytes, openvino: Any, core: Any) -> Any:
    end = 8 + int.from_bytes(content[:8], "little")
    weights = torch.frombuffer(bytearray(content[end:]), dtype=torch.uint8)
    return core.read_model(content[8:end], openvino.Tensor(weights.numpy()))


class _MainOutput(nn.Module):
    """The network with its finest logits as the only output."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, batch: Tensor) -> Tensor:
        return main_output(self.network(batch))
