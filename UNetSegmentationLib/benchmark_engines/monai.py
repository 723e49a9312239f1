"""MONAI's sliding window and resampling (arXiv:2211.02701) round the network of one of our model folders."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ..geometry import Volume
from ..planning import Normalization
from ..preprocessing import foreseen_shape, turn
from .serving import Answer, Scan, TileCounter, serve


def load(folder: Path) -> Callable[[Scan], Answer]:
    """Return what segments with the network of a model folder, by MONAI's transforms and inferer.

    The network's grid is the model's own, which covers the extent of the image: MONAI's Spacing would lay the first
    voxels on each other, and with that show the network another image.
    """
    import torch
    from monai.inferers import SlidingWindowInferer

    from ..checkpoint import load_network

    network, description = load_network(folder)
    plan = description.plan
    counter = TileCounter()
    network.register_forward_pre_hook(counter)
    scale = [_scaling(channel) for channel in plan.normalization]
    infer = SlidingWindowInferer(plan.patch_size, sw_batch_size=1, overlap=0.5, mode="gaussian")
    values = np.array([0, *(label.value for label in description.labels)], dtype=np.uint8)

    def segment(scan: Scan) -> Answer:
        with torch.inference_mode():
            turned, order = turn(Volume(scan.array, scan.affine_ras), plan)
            image = torch.from_numpy(turned.array.astype(np.float32))
            normalised = torch.stack([change(channel) for change, channel in zip(scale, image, strict=True)])
            prepared = _resample(normalised, foreseen_shape(turned, plan), is_spline=plan.conventions == "nnunet")
            logits = infer(prepared[None], network)
            logits = torch.nn.functional.interpolate(logits, size=turned.shape, mode="trilinear")
            classes = order.undo(logits[0].argmax(0).numpy())
        return Answer(labelmap=values[classes], tiles=counter.take(), details="tiles every half, the last at the end")

    return segment


def _resample(image: Any, shape: tuple[int, int, int], *, is_spline: bool) -> Any:
    """Return (C, *shape) that covers the extent of an image (C, D, H, W): by cubic splines, as nnU-Net, or linearly."""
    import torch
    from monai.data import MetaTensor
    from monai.transforms import SpatialResample

    steps = [before / after for before, after in zip(image.shape[1:], shape, strict=True)]
    if steps == [1.0] * 3:
        return torch.as_tensor(image)
    target = np.diag([*steps, 1.0])
    target[:3, 3] = [(step - 1) / 2 for step in steps]
    resample = SpatialResample(mode=3 if is_spline else "bilinear", padding_mode="nearest" if is_spline else "border")
    source = MetaTensor(torch.as_tensor(image), affine=torch.eye(4, dtype=torch.float64))
    return torch.as_tensor(resample(source, dst_affine=torch.from_numpy(target), spatial_size=shape)).float()


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
