"""The configurations of the plan that a study compares: how each is planned, and a short description."""

from __future__ import annotations

from typing import Any

# Arguments of planner.make_plan by name.
CONFIGURATIONS: dict[str, dict[str, Any]] = {"full": {}, "low": {"resolution": "low"}, "slices": {"dimensions": 2}}
CONFIGURATION_LINES = {
    "full": "the plan at full resolution",
    "low": "coarser, until a patch shows enough of the image",
    "slices": "axial slices, one at a time",
}
