"""MONAI's sliding window and resampling (arXiv:2211.02701) with the network of one of our model folders."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ...conventions.parts.axes import turn
from ...image.geometry import Volume
from ...planning.monai_recipe import Resample, ScaleRange, Standardise, Step
from .serving import Answer, Scan, TileCounter, serve


def load(folder: Path) -> Callable[[Scan], Answer]:
    """Return a function that segments by MONAI's transforms and inferer, with a model folder of MONAI's conventions."""
    import torch
    from monai.data import MetaTensor
    from monai.inferers import SlidingWindowInferer
    from monai.transforms import Spacing

    from ...networks.parts.weights import load_network

    network, description = load_network(folder)
    plan = description.plan
    steps = plan.recipe.steps if plan.recipe else ()
    if plan.recipe is None or plan.dimensions != 3 or Resample() not in steps[:1] or plan.recipe.restored != "logits":
        raise ValueError(
            "the comparison with MONAI supports only 3D models that resample linearly first and restore logits"
        )
    counter = TileCounter()
    network.register_forward_pre_hook(counter)
    # MONAI's arrays are (x, y, z).
    resample = Spacing(pixdim=plan.spacing_mm[::-1], mode="bilinear")
    scale = [_scaling(step) for step in steps[1:]]
    tiling = plan.recipe.tiling
    infer = SlidingWindowInferer(plan.patch_size[::-1], sw_batch_size=1, overlap=tiling.overlap, mode=tiling.weights)
    values = np.array([0, *(label.value for label in description.labels)], dtype=np.uint8)

    def segment(scan: Scan) -> Answer:
        with torch.inference_mode():
            turned, order = turn(Volume(scan.array, scan.affine_ras), plan)
            array = torch.from_numpy(turned.array.astype(np.float32).transpose(0, 3, 2, 1).copy())
            image = resample(MetaTensor(array, affine=torch.from_numpy(turned.affine_ras)))
            seen = torch.as_tensor(image)
            for change in scale:
                seen = change(seen)
            logits = infer(torch.as_tensor(seen)[None], lambda tile: network(tile.transpose(2, 4)).transpose(2, 4))[0]
            restored = resample.inverse(
                MetaTensor(logits, meta=image.meta, applied_operations=image.applied_operations)
            )
            classes = order.undo(restored.argmax(0).numpy().transpose(2, 1, 0))
        return Answer(labelmap=values[classes], tiles=counter.take())

    return segment


def _scaling(step: Step) -> Any:
    from monai.transforms import NormalizeIntensity, ScaleIntensityRange

    if isinstance(step, ScaleRange) and step.target:
        return ScaleIntensityRange(*step.source, *step.target, clip=step.is_clipped)
    if isinstance(step, Standardise):
        return NormalizeIntensity(nonzero=step.is_masked, channel_wise=step.is_each_channel)
    raise ValueError(f"the comparison with MONAI does not support {type(step).__name__}")


if __name__ == "__main__":
    serve(load)
