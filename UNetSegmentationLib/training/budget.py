"""A plan that fits a device: patch and batch size of any registered network from its estimated cost."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import torch

from ..core.errors import InputError
from ..core.host_memory import host_memory
from ..networks.parts.cost import TrainingCost, training_cost
from ..networks.parts.planned_config import planned_config
from ..planning.fingerprint import Fingerprint
from ..planning.plan import Plan
from ..planning.planner import PATCH_VOXELS, dimensions_for, make_plan

# Slightly more than a U-Net with 16 features needs for a step with two patches of 96^3 voxels: about two seconds on
# two cores in mixed precision (460 GFLOP/s measured), four times as long in float32.
_CPU_OPERATIONS = 9e11
_CPU_THREADS = 2
# One second on a workstation's GPU in mixed precision.
_GPU_OPERATIONS = 2e13
_GPU_PATCH = {2: 512 * 512, 3: 128 * 128 * 128}
_GPU_BATCH = 12
# Share of the device's memory; the rest is for the data set and other programs.
_CPU_SHARE, _GPU_SHARE = 0.5, 0.8
_UNKNOWN_MEMORY = 8 * 2**30
_LEAST_SHRINKING = 0.95
_SMALLEST_BATCH = 2
_SMALLEST_PATCH = {2: 64 * 64, 3: 32 * 32 * 32}
# As in nnU-Net: a step must not see more than this share of all voxels.
_LARGEST_BATCH_SHARE = 0.05


@dataclass(frozen=True, kw_only=True)
class Budget:
    """Limits of a training step.

    Attributes:
        memory_bytes: Memory in bytes.
        operations: Floating-point operations.
        patch_voxels: Largest number of voxels of a patch in 2D and 3D, regardless of memory and time.
        batch_size: Largest number of 3D patches (four times as many in 2D) if they fit; two are tried first.
    """

    memory_bytes: int
    operations: float
    patch_voxels: Mapping[int, int]
    batch_size: int = 2

    def allows(self, cost: TrainingCost, batch_size: int) -> bool:
        """Return whether a step with `batch_size` patches of a cost fits."""
        return self.share_of(cost, batch_size) >= 1

    def share_of(self, cost: TrainingCost, batch_size: int) -> float:
        """Return how many times a step with `batch_size` patches of a cost would fit."""
        return min(self.memory_bytes / cost.memory_bytes(batch_size), self.operations / (batch_size * cost.flops))


def budget_of(device: torch.device) -> Budget:
    """Return the budget of a device of this machine."""
    if device.type == "cuda":
        memory = torch.cuda.get_device_properties(device).total_memory
        return Budget(
            memory_bytes=int(_GPU_SHARE * memory),
            operations=_GPU_OPERATIONS,
            patch_voxels=_GPU_PATCH,
            batch_size=_GPU_BATCH,
        )
    threads = max(_CPU_THREADS, os.cpu_count() or _CPU_THREADS)
    return Budget(
        memory_bytes=int(_CPU_SHARE * (host_memory().total or _UNKNOWN_MEMORY)),
        operations=_CPU_OPERATIONS * threads / _CPU_THREADS,
        patch_voxels=PATCH_VOXELS,
    )


def plan_for(
    network: str,
    fingerprint: Fingerprint,
    preset: str,
    *,
    budget: Budget,
    num_classes: int,
    network_options: Mapping[str, Any] | None = None,
    resolution: str = "full",
    dimensions: int | None = None,
) -> Plan:
    """Return the plan for training `network` within a budget; the same arguments always give the same plan.

    The batch shrinks to two patches, then the patch until a step fits, then the batch to one; a batch that may be
    larger grows while it fits and covers less than a twentieth of the data set.

    Args:
        network: Registered name.
        fingerprint: Fingerprint of the data set.
        preset: Registered name.
        budget: Limits of a step.
        num_classes: K, background included.
        network_options: Options of the network beyond those of the plan.
        resolution: "full" or "low", see planning.planner.make_plan.
        dimensions: 2 or 3, see planning.planner.make_plan.

    Raises:
        InputError: Unknown name, or even the smallest patch does not fit.
    """
    dimensions = dimensions_for(fingerprint, wanted=dimensions)
    voxels = budget.patch_voxels[dimensions]

    def planned(limit: int) -> tuple[Plan, TrainingCost]:
        plan = make_plan(fingerprint, preset, patch_voxels=limit, resolution=resolution, dimensions=dimensions)
        config = planned_config(
            network, plan, channels=fingerprint.channels, num_classes=num_classes, options=network_options
        )
        return plan, training_cost(network, config, plan.patch_size[3 - dimensions :])

    plan, cost = planned(voxels)
    batch_size = _largest_batch(cost, budget, first=plan.batch_size, last=_SMALLEST_BATCH)
    voxels = min(voxels, prod(plan.patch_size))
    while not budget.allows(cost, batch_size) and voxels > _SMALLEST_PATCH[dimensions]:
        # Cost grows with the voxels; rounding to the strides may take another round or two.
        share = min(_LEAST_SHRINKING, budget.share_of(cost, batch_size))
        voxels = max(_SMALLEST_PATCH[dimensions], int(voxels * share))
        plan, cost = planned(voxels)
    batch_size = _largest_batch(cost, budget, first=batch_size, last=1)
    if not budget.allows(cost, batch_size):
        raise InputError(
            f"network '{network}' needs {cost.memory_bytes(1) / 1e9:.1f} GB and {cost.flops / 1e9:.0f} GFLOP for a "
            f"step with one patch {plan.patch_size}, too much for this device: choose another network"
        )
    largest = budget.batch_size * (4 if dimensions == 2 else 1)
    total = sum(prod(shape) for shape in fingerprint.content_shapes)
    while batch_size < largest and (
        budget.allows(cost, batch_size + 1) and (batch_size + 1) * prod(plan.patch_size) <= _LARGEST_BATCH_SHARE * total
    ):
        batch_size += 1
    return replace(plan, batch_size=batch_size)


def _largest_batch(cost: TrainingCost, budget: Budget, *, first: int, last: int) -> int:
    """Return the largest batch from `first` down to `last` that fits, or `last`."""
    return next((size for size in range(first, last, -1) if budget.allows(cost, size)), last)
