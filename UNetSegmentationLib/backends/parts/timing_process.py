"""Measuring in a separate process, which can be stopped at any time and may even crash.

Results go into the store backend by backend; after an early stop, the next process continues from there.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from argparse import ArgumentParser
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch

from ...networks.parts.weights import load_network
from ..contract import Computation
from .store import FOLDER_VARIABLE, Store, identity_of
from .timing import Subject, measure


@contextmanager
def start_measuring(
    folder: Path, device: torch.device, shape: tuple[int, ...], cache: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """Measure all backends for tiles of a shape, at low priority, until done or the block ends.

    Args:
        folder: Model folder.
        device: Where.
        shape: Of a batch.
        cache: Folder of the store.
    """
    library = Path(__file__).parents[3]
    paths = [str(library), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(paths),
        FOLDER_VARIABLE: str(cache),
        # As many threads as in later use: the fastest backend depends on it.
        "OMP_NUM_THREADS": str(torch.get_num_threads()),
    }
    words = [sys.executable, "-m", __name__, str(folder.resolve()), str(device), *map(str, shape)]
    flags = 0
    if sys.platform == "win32":
        flags = subprocess.BELOW_NORMAL_PRIORITY_CLASS | subprocess.CREATE_NO_WINDOW
    process = subprocess.Popen(
        words,
        env=environment,
        stdin=subprocess.PIPE,  # closes when this process ends for any reason
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        creationflags=flags,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def main() -> None:
    """Measure as the arguments say; exit with the parent process."""
    parser = ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("device")
    parser.add_argument("shape", type=int, nargs="+")
    asked = parser.parse_args()
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if hasattr(os, "nice"):
        with suppress(OSError):
            os.nice(5)
    device = torch.device(asked.device)
    network, description = load_network(asked.folder)
    computation = Computation(
        network=network.to(device),
        shape=tuple(asked.shape),
        device=device,
        store=Store(),
        identity=identity_of(description),
    )
    subject = Subject(
        computation=computation, raw_channels=network.raw_channels, is_regions=description.output == "regions"
    )
    for _ in measure(subject):
        pass


def _end_with_parent() -> None:
    sys.stdin.buffer.read()
    os._exit(1)


if __name__ == "__main__":
    main()
