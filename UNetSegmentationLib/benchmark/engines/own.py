"""This library, as the command line runs it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ...core.process_environment import settle_environment
from ...image.geometry import Volume
from .serving import Answer, Scan, TileCounter, serve


def load(folder: Path) -> Callable[[Scan], Answer]:
    """Return a function that segments with a model folder of this library."""
    from ...inference.predictor import Predictor

    predictor = Predictor(folder, device="cpu")
    counter = TileCounter()
    predictor.engine.register_forward_pre_hook(counter)

    def segment(scan: Scan) -> Answer:
        found = predictor.segment(Volume(scan.array, scan.affine_ras))
        # Once measured, the fastest backend is used from the next run on.
        return Answer(labelmap=found.labelmap, tiles=counter.take(), details=found.provenance["backend"])

    return segment


if __name__ == "__main__":
    settle_environment()
    serve(load)
