"""docs/NETWORKS.md: all networks, losses and post-processing steps, with figures computed from the code."""

from __future__ import annotations

from collections.abc import Mapping

from markdown_table import table
from paper_configurations import PAPER_CONFIGURATIONS

from UNetSegmentationLib.core.errors import InputError
from UNetSegmentationLib.losses import LOSSES
from UNetSegmentationLib.networks import NETWORKS
from UNetSegmentationLib.networks.parts.cost import NetworkSummary, summarise_network
from UNetSegmentationLib.postprocess import STEPS
from UNetSegmentationLib.postprocess.probabilities import PROBABILITY_STEPS

SIZES = ((96, 96, 96), (256, 256))
# One channel, or four for networks that require four.
CHANNELS = (1, 4)
CLASSES = 2

INTRODUCTION = """\
# Networks, losses and post-processing steps

This file is generated from the code by `python Testing/Docs/make_tables.py`; a test fails if it is out of date.

## Networks

Choose one with `unetseg train --variant NAME`; `unetseg models --networks` also prints this table. All networks
accept 2D and 3D images of any size with any number of channels (`brain_tumour`: four) and classes. Figures are for
one image with one channel (`brain_tumour`: four) and {classes} classes, with each network's default configuration;
in training, the dataset's plan sets depth, width, strides and kernels. Weights are in millions, operations of the
forward pass in GFLOP (a multiplication and an addition count as two), and peak memory of prediction in MB (float32,
without the scratch space of the convolutions)."""

PAPERS = """\
## Configurations from papers

Defined in `Testing/Docs/paper_configurations.py`, with the published number of weights or that of the widely used
version."""

LOSS_TEXT = """\
## Losses

Choose one with `unetseg train --loss NAME` and set its options with `--loss-option`. Each supports any number of
classes, class weights, regions and an ignored label, and is applied to every level of a network with deep
supervision. `boundary` alone is too weak for training from scratch: combine it with another loss using
`weighted_sum`."""

STEP_TEXT = """\
## Post-processing steps

Choose them with `unetseg segment --postprocess STEP:option=value ...` or in `model.json`. `dense_crf` works on the
probabilities, the others on the labelmap."""


def document() -> str:
    """Return the text of the file."""
    parts = [
        INTRODUCTION.format(classes=CLASSES),
        _network_table(),
        PAPERS,
        _paper_table(),
        LOSS_TEXT,
        _lines(LOSSES.summaries),
        STEP_TEXT,
        _lines({**STEPS.summaries, **PROBABILITY_STEPS.summaries}),
    ]
    return "\n\n".join(parts) + "\n"


def _network_table() -> str:
    header = ["name", "description"]
    for size in SIZES:
        header += [f"{' x '.join(map(str, size))}: weights", "GFLOP", "MB"]
    rows = []
    for name in NETWORKS:
        row = [f"`{name}`", NETWORKS.summaries[name].rstrip(".")]
        for size in SIZES:
            summary = _summary(name, size)
            row += [
                f"{summary.weights / 1e6:.2f}",
                f"{summary.flops / 1e9:.1f}",
                f"{summary.memory_bytes / 1e6:.0f}",
            ]
        rows.append(row)
    return table(header, rows, right=range(2, len(header)))


def _summary(name: str, size: tuple[int, ...]) -> NetworkSummary:
    reason: InputError | None = None
    for channels in CHANNELS:
        try:
            return summarise_network(
                name, {"in_channels": channels, "num_classes": CLASSES, "dimensions": len(size)}, size
            )
        except InputError as error:
            reason = error
    raise reason or InputError("no number of channels is given")


def _paper_table() -> str:
    rows = [
        [
            entry.title,
            f"`{entry.network}`",
            f"{entry.weights:,}",
            f"{entry.published:,}",
            entry.source,
            entry.difference or "none",
        ]
        for entry in PAPER_CONFIGURATIONS.values()
    ]
    header = ["configuration", "network", "weights here", "published", "source of the published number"]
    header.append("reason for the difference")
    return table(header, rows, right=(2, 3))


def _lines(summaries: Mapping[str, str]) -> str:
    rows = [[f"`{name}`", summaries[name].rstrip(".")] for name in sorted(summaries)]
    return table(["name", "description"], rows)
