"""`unetseg models`: the installed models and their accuracy."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, TextIO

from ..core.errors import InputError
from ..models.description import weights_size
from ..models.installed import MODELS_VARIABLE, InstalledModel, list_models
from .contract import COMMANDS, DONE, Command
from .parts.terminal import figure, rounded, write_json, write_table

if TYPE_CHECKING:
    from ..networks.parts.cost import NetworkSummary

# Channels and size of the image that networks are compared on: the first that a network accepts.
NETWORK_INPUTS = ((1, (96, 96, 96)), (4, (96, 96, 96)), (1, (256, 256)))


def _add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument(
        "--networks", action="store_true", help="list the network variants with weights, operations and memory instead"
    )


def _run(arguments: Namespace, out: TextIO) -> int:
    if arguments.networks:
        return _list_networks(out, as_json=arguments.json)
    models = [_entry_of(model) for model in list_models()]
    if arguments.json:
        write_json(out, {"models": models})
    elif models:
        header = ("id", "title", "network", "preset", "labels", "mean Dice", "MB", "folder")
        write_table(out, header, [_row_of(entry) for entry in models], right=(5, 6))
    else:
        out.write(f"no model is installed: train one, or set {MODELS_VARIABLE} to a folder of models\n")
    return DONE


def _entry_of(model: InstalledModel) -> dict[str, Any]:
    description = model.description
    size = weights_size(model.folder)
    return {
        "id": description.id,
        "title": description.title,
        "network": description.network,
        "preset": description.preset,
        "channels": [channel.name for channel in description.channels],
        "labels": [label.name for label in description.labels],
        "mean_dice": rounded(description.mean_dice),
        "figures": rounded(description.figures),
        "licence": description.licence,
        "size_mb": None if size is None else round(size / 1e6, 2),
        "folder": str(model.folder),
    }


def _row_of(entry: dict[str, Any]) -> tuple[str, ...]:
    names = [str(entry[key]) for key in ("id", "title", "network", "preset")]
    sizes = (figure(entry["mean_dice"]), figure(entry["size_mb"], 1))
    return (*names, ", ".join(entry["labels"]), *sizes, entry["folder"])


def _list_networks(out: TextIO, *, as_json: bool) -> int:
    from ..networks import NETWORKS
    from ..networks.parts.cost import format_summaries

    summaries = [_summary_of(name) for name in NETWORKS]
    if as_json:
        write_json(out, {"networks": [asdict(summary) for summary in summaries]})
    else:
        out.write(format_summaries(summaries) + "\n")
    return DONE


def _summary_of(name: str) -> NetworkSummary:
    from ..networks.parts.cost import summarise_network

    reason: InputError | None = None
    for channels, size in NETWORK_INPUTS:
        config = {"in_channels": channels, "num_classes": 2, "dimensions": len(size)}
        try:
            return summarise_network(name, config, size)
        except InputError as error:
            reason = reason or error
    raise reason or InputError(f"network '{name}' accepts none of the inputs")


COMMANDS.register("models", title="list the installed models with their metrics")(
    Command(
        add_arguments=_add_arguments,
        run=_run,
        description="List the installed models with their metrics on cases not used for training.",
    )
)
