"""Provenance of a result as readable text, from the record on the segmentation node."""

import html
import math
from collections.abc import Mapping
from typing import Any

from slicer.i18n import tr as _


def linesOf(made: Mapping[str, Any], modelTitle: str) -> list[tuple[str, str]]:
    """Return names and values; missing entries are omitted."""
    settings, seconds = made.get("settings", {}), made.get("duration_s", {})
    stages = [f"{name} {value:.1f} s" for name, value in seconds.items() if name != "total"]
    total = f"{seconds['total']:.1f} s" if "total" in seconds else ""
    steps = settings.get("postprocess")
    lines = [
        (_("Model"), modelTitle),
        (_("Model ID"), made.get("model_id")),
        (_("Weights (SHA-256)"), made.get("weights_sha256")),
        (_("Network"), made.get("network")),
        (_("Volume"), made.get("volume")),
        (_("Channels"), ", ".join(name or _("missing") for name in made.get("channel_volumes", ()))),
        (_("Added to"), _addedTo(made.get("added_to"))),
        (_("Region"), _boxOf(made.get("region_to_ras"))),
        (_("Mirrored copies"), _("averaged") if settings.get("tta") else ""),
        (_("Tile overlap"), f"{settings['overlap']:.0%}" if "overlap" in settings else ""),
        (_("Post-processing"), ", ".join(steps) if steps else _("none") if steps is not None else ""),
        (_("Device"), " ".join(str(made[name]) for name in ("device", "precision") if made.get(name))),
        (_("Time"), f"{total} ({', '.join(stages)})" if stages else total),
        (_("Date"), made.get("date")),
        (_("Versions"), ", ".join(f"{name} {value}" for name, value in made.get("versions", {}).items())),
        (_("Warnings"), " ".join(made.get("warnings", ()))),
    ]
    return [(name, str(value)) for name, value in lines if value]


def _addedTo(former: Any) -> str:
    """Return the name of the segmentation that a result was added to, or the ID of the model that made it."""
    return str(former.get("model_id", "")) if isinstance(former, Mapping) else str(former or "")


def _boxOf(region: Any) -> str:
    if not region:
        return ""
    size = " x ".join(f"{2 * math.hypot(*(row[axis] for row in region[:3])):.0f}" for axis in range(3))
    centre = ", ".join(f"{row[3]:.0f}" for row in region[:3])
    return _("{size} mm around ({centre})").format(size=size, centre=centre)


def asTable(lines: list[tuple[str, str]]) -> str:
    """Return the lines as a rich-text table."""
    rows = [
        f'<tr><td style="padding-right: 8px">{html.escape(name)}</td><td>{html.escape(value)}</td></tr>'
        for name, value in lines
    ]
    return f"<table>{''.join(rows)}</table>"


def asText(lines: list[tuple[str, str]]) -> str:
    """Return the lines as plain text."""
    return "\n".join(f"{name}: {value}" for name, value in lines)
