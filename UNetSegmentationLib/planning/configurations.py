"""The configurations of the plan that a study compares: how each is planned, and what it is in a few words."""

from __future__ import annotations

from typing import Any

# Arguments of planner.make_plan by name.
CONFIGURATIONS: dict[str, dict[str, Any]] = {"full": {}, "low": {"resolution": "low"}, "slices": {"dimensions": 2}}
CONFIGURATION_LINES = {
    "full": "the plan as it is made for the data",
    "low": "coarser, until a patch shows enough of the image",
    "slices": "axial slices one by one",
}
