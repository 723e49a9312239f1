"""MONAI's sliding window and resampling (arXiv:2211.02701) round the network of one of our model folders."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ..planning import Normalization
from .serving import Answer, Scan, TileCounter, serve


def load(folder: Path) -> Callable[[Scan], Answer]:
    """Return what segments with the network of a model folder, by MONAI's transforms and inferer."""
    import torch
    from monai.data import MetaTensor
    from monai.inferers import SlidingWindowInferer
    from monai.transforms import Spacing

    from ..checkpoint import load_network

    network, description = load_network(folder)
    plan = description.plan
    counter = TileCounter()
    network.register_forward_pre_hook(counter)
    scale = [_scaling(channel) for channel in plan.normalization]
    spacing_xyz = plan.spacing_mm[::-1]
    resample = Spacing(pixdim=spacing_xyz, mode="bilinear")
    infer = SlidingWindowInferer(plan.patch_size[::-1], sw_batch_size=1, overlap=0.5, mode="gaussian")
    values = np.array([0, *(label.value for label in description.labels)], dtype=np.uint8)

    def segment(scan: Scan) -> Answer:
        with torch.inference_mode():
            # MONAI's arrays run x, y, z.
            image = torch.from_numpy(scan.array.astype(np.float32).transpose(0, 3, 2, 1).copy())
            normalised = torch.stack([change(channel) for change, channel in zip(scale, image, strict=True)])
            prepared = resample(MetaTensor(normalised, affine=torch.from_numpy(scan.affine_ras)))
            logits = infer(torch.as_tensor(prepared)[None], lambda tile: network(tile.transpose(2, 4)).transpose(2, 4))
            logits = torch.nn.functional.interpolate(logits, size=image.shape[1:], mode="trilinear")
            classes = logits[0].argmax(0).numpy().transpose(2, 1, 0)
        return Answer(labelmap=values[classes], tiles=counter.take())

    return segment


def _scaling(normalization: Normalization) -> Any:
    from monai.transforms import NormalizeIntensity, ScaleIntensityRange

    if normalization.scheme == "ct":
        ends = [(end - normalization.mean) / normalization.std for end in (normalization.lower, normalization.upper)]
        return ScaleIntensityRange(normalization.lower, normalization.upper, ends[0], ends[1], clip=True)
    if normalization.scheme == "zscore":
        return NormalizeIntensity(nonzero=normalization.use_mask)
    raise ValueError(f"the comparison with MONAI knows no normalization '{normalization.scheme}'")


if __name__ == "__main__":
    serve(load)
