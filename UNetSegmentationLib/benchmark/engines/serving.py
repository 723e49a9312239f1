"""The loop of every engine's process: load once, then segment the same volume on request and report time and memory."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

# On Linux the peak is reset before a run; elsewhere it is that of the process.
_STATUS = Path("/proc/self/status")
_CLEAR_REFS = Path("/proc/self/clear_refs")


@dataclass(frozen=True, kw_only=True)
class Scan:
    """The volume.

    Attributes:
        array: (C, D, H, W).
        affine_ras: 4x4.
        spacing_mm: (D, H, W).
    """

    array: Any
    affine_ras: Any
    spacing_mm: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Answer:
    """Result of an engine.

    Attributes:
        labelmap: Label values (D, H, W) on the volume's grid.
        tiles: Number of tiles computed.
        details: Further details, in a word.
    """

    labelmap: Any
    tiles: int
    details: str = ""


class TileCounter:
    """A hook that counts the images a network computes."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, _module: Any, inputs: tuple[Any, ...]) -> None:
        """Count the batch that a network is about to compute."""
        self.count += len(inputs[0])

    def take(self) -> int:
        """Return the count since the last call."""
        count, self.count = self.count, 0
        return count


def serve(load: Callable[[Path], Callable[[Scan], Answer]]) -> None:
    """Answer each line of standard input, the path for a labelmap, with a JSON line; arguments: model, volume.

    Args:
        load: Returns a segmentation function for a model folder.
    """
    sink = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # output of libraries must not mix with the answers

    def tell(**values: Any) -> None:
        sink.write(json.dumps(values) + "\n")
        sink.flush()

    try:
        began = perf_counter()
        segment = load(Path(sys.argv[1]))
        with np.load(sys.argv[2]) as file:
            scan = Scan(array=file["array"], affine_ras=file["affine_ras"], spacing_mm=tuple(file["spacing_mm"]))
        tell(load_s=perf_counter() - began)
        for line in sys.stdin:
            before_mb = _forget_peak()
            began = perf_counter()
            answer = segment(scan)
            seconds = perf_counter() - began
            np.save(line.strip(), answer.labelmap)
            tell(seconds=seconds, extra_mb=_memory_mb("VmHWM") - before_mb, tiles=answer.tiles, details=answer.details)
    except Exception as error:  # noqa: BLE001  # one engine's fault must not cost the others their figures
        tell(error=f"{type(error).__name__}: {error}")


def _forget_peak() -> float:
    """Reset the peak to the current use if possible; return it in MiB."""
    try:
        _CLEAR_REFS.write_text("5")
    except OSError:
        return _memory_mb("VmHWM")
    return _memory_mb("VmRSS")


def _memory_mb(name: str) -> float:
    if _STATUS.is_file():
        for line in _STATUS.read_text().splitlines():
            if line.startswith(name + ":"):
                return int(line.split()[1]) / 1024
    if sys.platform == "win32":
        return float("nan")
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 1024
