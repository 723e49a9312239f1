"""The fastest valid backend, measured once per model, tile shape and machine."""

from __future__ import annotations

import platform
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn

from ..contract import BACKENDS, Backend, Computation, Forward
from ..openvino_cpu import openvino_version
from .devices import is_out_of_memory
from .parity import disagreement, make_tile

FORMAT_VERSION = 2  # a change invalidates all measurements, as when a backend changes its computation
TIMED_FORWARDS = 3
# A backend must be this much faster than the default to be worth loading.
WORTHWHILE = 0.95


@dataclass(frozen=True, kw_only=True)
class Result:
    """Measurement of one backend.

    Attributes:
        forward_s: Median time of a tile; 0 if unusable.
        build_s: Time until it was ready, using the store if it can.
        reason: Why it cannot be used; empty if it can.
    """

    forward_s: float = 0.0
    build_s: float = 0.0
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class Subject:
    """Network and tile to measure.

    Attributes:
        computation: Network, shape, device and store.
        raw_channels: Channels that are not normalised.
        is_regions: A label is present where its logit is positive.
        tile: A batch to compute; synthetic by default.
        reference: Its logits by eager float32, if known.
    """

    computation: Computation
    raw_channels: tuple[int, ...] = ()
    is_regions: bool = False
    tile: Tensor | None = field(default=None, compare=False)


def machine(device: torch.device) -> dict[str, Any]:
    """Return what the speed of a backend depends on besides the network."""
    cuda = device.type == "cuda"
    return {
        "format": FORMAT_VERSION,
        "device": torch.cuda.get_device_name(device) if cuda else device.type,
        "cpu": _cpu_model(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "openvino": openvino_version(),
    }


def default_backend(device: torch.device) -> str:
    """Return the name of the backend that needs no measuring: exact float32, and ready at once."""
    return "fused" if not BACKENDS["fused"]().obstacle(device) else "eager"


def candidates(network: nn.Module, device: torch.device, *, with_slow: bool = False) -> list[str]:
    """Return the names of the backends that can compute a network on a device, the default first.

    Args:
        network: Network to compute.
        device: Where.
        with_slow: Include those that take a minute to build.
    """
    first = default_backend(device)
    names = [name for name in BACKENDS if name not in (first, "eager") and not obstacle(name, network, device)]
    return [first, *(name for name in names if with_slow or not BACKENDS[name].is_slow_to_build)]


def obstacle(name: str, network: nn.Module, device: torch.device) -> str:
    """Return why a backend cannot compute a network on a device; empty if it can.

    Raises:
        InputError: Unknown backend.
    """
    backend = BACKENDS[name]()
    if backend.is_recorded and getattr(network, "accepts_missing_channels", False):
        return "the computation depends on which channels are present"
    return backend.obstacle(device)


def known_results(computation: Computation) -> dict[str, Result]:
    """Return earlier measurements from the store."""
    kept = computation.store.get_json("timing", _key(computation)) if computation.store is not None else None
    try:
        return {name: Result(**values) for name, values in (kept or {}).items()}
    except TypeError:
        return {}


def fastest(results: dict[str, Result], default: str) -> str:
    """Return the backend to use: the fastest valid one, or the default if none is clearly faster."""
    usable = {name: result.forward_s for name, result in results.items() if not result.reason}
    if not usable:
        return default
    best = min(usable, key=lambda name: usable[name])
    if default in usable and usable[best] > WORTHWHILE * usable[default]:
        return default
    return best


def is_complete(results: dict[str, Result], computation: Computation) -> bool:
    """Return whether every backend has been measured."""
    return set(candidates(computation.network, computation.device)) <= set(results)


def measure(subject: Subject, *, with_slow: bool = False) -> Iterator[dict[str, Result]]:
    """Measure every backend not measured yet; yield the results so far between steps.

    Closing the iterator interrupts the work; finished backends are in the store.
    """
    computation = subject.computation
    results = known_results(computation)
    names = [
        name for name in candidates(computation.network, computation.device, with_slow=with_slow) if name not in results
    ]
    if not names:
        yield results
        return
    tile = subject.tile
    if tile is None:
        tile = make_tile(computation.shape, raw_channels=subject.raw_channels)
    tile = tile.to(computation.device)
    reference = _run(BACKENDS["eager"]().build(computation), tile)
    for name in names:
        yield results
        result = yield from _measure_one(BACKENDS[name](), subject, tile, reference, results)
        if result is None:
            continue
        results[name] = result
        if computation.store is not None:
            computation.store.put_json(
                "timing", _key(computation), {name: vars(result) for name, result in results.items()}
            )
    yield results


def _measure_one(
    backend: Backend, subject: Subject, tile: Tensor, reference: Tensor, so_far: dict[str, Result]
) -> Generator[dict[str, Result], None, Result | None]:
    """Return the result, or None if memory ran out, which may not happen next time."""
    try:
        began = perf_counter()
        forward = backend.build(subject.computation)
        build_s = perf_counter() - began
        yield so_far
        reason = disagreement(_run(forward, tile), reference, backend.precision, is_regions=subject.is_regions)
        if reason:
            return Result(reason=reason)
        times = []
        for _ in range(TIMED_FORWARDS):
            yield so_far
            times.append(_time(forward, tile))
        return Result(forward_s=median(times), build_s=build_s)
    except Exception as error:  # noqa: BLE001  # whatever a backend does wrong, there are others
        return None if is_out_of_memory(error) else Result(reason=f"{type(error).__name__}: {error}"[:500])


def _run(forward: Forward, tile: Tensor) -> Tensor:
    with torch.inference_mode():
        return forward(tile)


def _time(forward: Forward, tile: Tensor) -> float:
    _wait_for(tile.device)
    began = perf_counter()
    _run(forward, tile)
    _wait_for(tile.device)
    return perf_counter() - began


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def _key(computation: Computation) -> dict[str, Any]:
    return {"network": computation.identity, "shape": list(computation.shape), "machine": machine(computation.device)}


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.processor()
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor()
