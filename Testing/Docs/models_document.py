"""docs/MODELS.md: the models that ship, from their own descriptions and from recorded timings."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

from markdown_table import table

from UNetSegmentationLib.models.description import WEIGHTS_FILE
from UNetSegmentationLib.models.installed import InstalledModel, list_models
from UNetSegmentationLib.networks.parts.cost import summarise_network
from UNetSegmentationLib.training.start_weights import total_steps

ROOT = Path(__file__).resolve().parents[2]
MODELS = ROOT / "Resources" / "Models"
# Written by Testing/Benchmarks/bench_models.py.
TIMINGS = Path(__file__).with_name("models_timing.json")

INTRODUCTION = """\
# Starter models

This file is written by `python Testing/Docs/make_tables.py` from the models' own descriptions and from the timings that
`Testing/Benchmarks/bench_models.py` recorded; a test fails where they differ. Every figure comes from cases of subjects
that the model has not seen; for each group of models they are the same cases. Dice, HD95 and surface Dice (at 1 mm) are
means over cases and labels; radiographs do not say how large a pixel is, so they have no distances. Weights in
millions; operations of one forward pass over a patch in GFLOP; training on two CPU cores, shared with other work.
Models that were trained in several goes count the steps of all, and the minutes of the last.
"""


def document() -> str:
    """Return the text of the file."""
    timings = json.loads(TIMINGS.read_text(encoding="utf-8"))
    groups: dict[str, list[InstalledModel]] = {}
    for model in list_models([MODELS]):
        groups.setdefault(model.description.title.rpartition(", ")[0] or model.description.title, []).append(model)
    parts = [INTRODUCTION]
    for title, models in groups.items():
        rows = [_row(model, timings["seconds"].get(model.description.id)) for model in models]
        header = ("model", "network", "Dice", "HD95 mm", "surface Dice", "weights", "GFLOP", "s a case")
        header += ("steps", "training min", "file MB")
        parts.append(f"## {title}\n\n{_about(models[0])}\n\n{table(header, rows, right=range(2, len(header)))}\n")
    parts.append(f"Seconds a case: median of {timings['repeats']} on {timings['machine']}, {timings['what']}.\n")
    return "\n".join(parts)


def _about(model: InstalledModel) -> str:
    training = model.description.training
    held_back, subjects = len(training.get("held_back_cases", ())), training.get("held_back_subjects")
    return (
        f"Measured on {held_back} case(s) of {subjects} subject(s); trained on {training.get('cases')} case(s) of "
        f"{training.get('subjects')} subject(s)."
    )


def _row(model: InstalledModel, seconds: float | None) -> list[str]:
    description = model.description
    plan, has_distances = description.plan, not description.plan.longest_side
    size = plan.patch_size[3 - plan.dimensions :]
    summary = summarise_network(description.network, description.network_config, size)
    labels = description.figures["labels"]
    return [
        f"`{description.id}`",
        f"`{description.network}`",
        _mean(labels, "dice", 3),
        _mean(labels, "hd95_mm", 2) if has_distances else "–",
        _mean(labels, "surface_dice", 3) if has_distances else "–",
        f"{summary.weights / 1e6:.2f}",
        f"{summary.flops / 1e9:.1f}",
        "–" if seconds is None else f"{seconds:.2f}",
        str(total_steps(description.training)),
        f"{description.training['minutes']:.0f}",
        f"{(model.folder / WEIGHTS_FILE).stat().st_size / 1e6:.1f}",
    ]


def _mean(labels: Mapping[str, Mapping[str, Any]], metric: str, decimals: int) -> str:
    values = [figures[metric] for figures in labels.values() if metric in figures]
    return f"{fmean(values):.{decimals}f}" if values else "–"
