"""Cascades: what a first network finds is a further input of a second (Isensee et al. 2021, nnU-Net)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from ..image.geometry import Volume
from ..planning.plan import Plan
from .nnunet_math import plane_axis, resample_labels_by_share
from .own import PreparedVolume, rule_spacing_mm, turn

# nnU-Net marks what lies outside the content as a label of its own, which takes its share when it is resampled.
_OUTSIDE = -1


def add_found_labels(
    prepared: PreparedVolume, labelmap: Volume, plan: Plan, *, label_values: Sequence[int]
) -> PreparedVolume:
    """Return a prepared volume with a further channel for each label value: 1 where it was found, 0 elsewhere.

    Args:
        prepared: A volume on the network's grid.
        labelmap: What the first network found, one channel on the grid of the volume that was prepared.
        plan: The plan that the volume was prepared by.
        label_values: Which values, in the order of the channels.
    """
    turned, _ = turn(labelmap, plan)
    labels, across = turned.array[0][prepared.box].astype(np.int32), None
    if prepared.content is not None:
        labels[(labels == 0) & ~prepared.content] = _OUTSIDE
    if plan.conventions == "nnunet":
        across = plane_axis(rule_spacing_mm(turned, plan), prepared.spacing_mm)
    depth, height, width = prepared.image.shape[1:]
    resampled = resample_labels_by_share(labels, (depth, height, width), across=across)
    found = torch.stack([torch.from_numpy(resampled == value) for value in label_values]).float()
    return replace(
        prepared,
        image=torch.cat([prepared.image, found]),
        padding=torch.cat([prepared.padding, prepared.padding.new_zeros(len(found))]),
    )
