"""The configuration of a network under a plan."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...planning.plan import Plan
from ...planning.planner import network_shape_for
from ..contract import NETWORKS


def planned_config(
    network: str, plan: Plan, *, channels: int, num_classes: int, options: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Return the configuration, as JSON, of a network trained with a plan.

    Args:
        network: Registered name.
        plan: Its patch determines the stages; the options or the network may limit their number.
        channels: C, channels of the image.
        num_classes: K, background included.
        options: Options that override the plan.

    Raises:
        InputError: Unknown network.
    """
    options, shape = options or {}, network_shape_for(plan)
    shaped = NETWORKS[network].planned_network(options)
    kernel = shaped.planned_kernel
    shape["kernel_sizes"] = [[kernel if size > 1 else 1 for size in sizes] for sizes in shape["kernel_sizes"]]
    wanted = options.get("features_per_stage")
    stages = len(wanted) if isinstance(wanted, list | tuple) else shaped.most_stages
    return {
        "in_channels": channels,
        "num_classes": num_classes,
        "dimensions": plan.dimensions,
        **{name: entries[:stages] for name, entries in shape.items()},
        "deep_supervision": True,
        **options,
    }
