"""A case on the network's grid, ready for training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..cases.dataset import Case, read_case
from ..conventions import conventions_of, prepare
from ..core.task import UNWATCHED, Task
from ..image.labels import Label
from ..inference.sliding_window import predict_logits
from ..networks import SegmentationNetwork
from ..planning.plan import Plan


@dataclass(frozen=True, kw_only=True)
class PreparedCase:
    """A case on the network's grid.

    Attributes:
        id: Name of the case.
        image: Normalised voxels (C, D, H, W), float32.
        padding: Value (C,) of voxels outside the image.
        labels: Class numbers (D, H, W), int16; -1 for unlabelled voxels.
        foreground: Indices (N, 3) of the labelled voxels, int16.
    """

    id: str
    image: Tensor
    padding: Tensor
    labels: Tensor
    foreground: Tensor


def prepare_case(
    case: Case,
    plan: Plan,
    labels: Sequence[Label],
    *,
    ignored: int | None = None,
    task: Task = UNWATCHED,
) -> PreparedCase:
    """Read a case and bring image and labels to the network's grid.

    Args:
        case: Case to read.
        plan: Defines the network's grid.
        labels: Labels of the model; class 1 is the first.
        ignored: Label value of unlabelled voxels; their class is -1, which losses ignore.
        task: Often checked for cancellation.

    Raises:
        InputError: The case cannot be read or does not fit the plan.
        CancelledError: The task was cancelled.
    """
    task.check()
    volume, reference = read_case(case)
    prepared = prepare(volume, plan, task=task)
    turned = prepared.order.apply(reference.array[0])[prepared.box]
    classes = np.zeros(turned.shape, dtype=np.int16)
    for index, label in enumerate(labels):
        classes[turned == label.value] = index + 1
    if ignored is not None:
        classes[turned == ignored] = -1
    target = prepared.labels_on_grid(torch.from_numpy(classes))
    return PreparedCase(
        id=case.id,
        image=prepared.image,
        padding=prepared.padding,
        labels=target,
        foreground=(target > 0).nonzero().to(torch.int16),
    )


def predict_case(network: SegmentationNetwork, case: PreparedCase, plan: Plan, *, task: Task = UNWATCHED) -> Tensor:
    """Return the logits (K, D, H, W) of a case on the network's grid, on the network's device.

    Args:
        network: In evaluation mode.
        case: Case prepared with the plan.
        plan: Plan of the case.
        task: Told the finished share, and often checked for cancellation.
    """
    tiling = conventions_of(plan).tiling(case.image.shape[1:], network.alignment)
    device = next(network.parameters()).device
    return predict_logits(network, case.image.to(device), tiling, padding=case.padding, task=task)
