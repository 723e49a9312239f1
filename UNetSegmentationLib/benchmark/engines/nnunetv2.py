"""nnU-Net v2's predictor (Isensee et al. 2021, doi:10.1038/s41592-020-01008-z) on its results folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from .serving import Answer, Scan, TileCounter, serve


def load(folder: Path) -> Callable[[Scan], Answer]:
    """Return a function that segments with nnU-Net's results folder, all folds, without mirroring."""
    import torch
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    predictor = nnUNetPredictor(
        use_gaussian=True,
        use_mirroring=False,
        perform_everything_on_device=False,
        device=torch.device("cpu"),
        allow_tqdm=False,
    )
    name = "checkpoint_final.pth"
    folds = tuple(int(path.parent.name.removeprefix("fold_")) for path in sorted(folder.glob(f"fold_[0-9]/{name}")))
    predictor.initialize_from_trained_model_folder(str(folder), folds or ("all",), name)
    counter = TileCounter()
    predictor.network.register_forward_pre_hook(counter)

    def segment(scan: Scan) -> Answer:
        properties = {"spacing": list(scan.spacing_mm)}
        labelmap = predictor.predict_single_npy_array(scan.array.astype(np.float32), properties)
        return Answer(labelmap=labelmap, tiles=counter.take())

    return segment


if __name__ == "__main__":
    serve(load)
