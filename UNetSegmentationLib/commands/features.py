"""`unetseg features`: a model's skip connections and attention gates for an image, one volume per map."""

from __future__ import annotations

import re
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from ..core.errors import InputError
from ..core.task import Task
from .contract import COMMANDS, DONE, Command, add_device_argument
from .parts.loading import without_collection
from .parts.terminal import ProgressBar, warn, write_json, write_table

if TYPE_CHECKING:
    from ..inference.feature_maps import FeatureMap
    from ..inference.predictor import Predictor
    from .parts.image_arguments import ImageFiles

FORMATS = ("nii.gz", "nrrd")


def _add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("image", metavar="IMAGE", nargs="?", help="image, as for 'unetseg segment'")
    parser.add_argument("-o", "--output", metavar="FOLDER", type=Path, help="output folder; one file per map")
    parser.add_argument("--model", metavar="ID_OR_FOLDER", help="required if several installed models accept the image")
    parser.add_argument(
        "--names", metavar="MAP", nargs="+", default=(), help="only these maps, such as 'skip 0' 'gate 1'"
    )
    parser.add_argument(
        "--channel",
        type=int,
        metavar="N",
        help="channel of each skip connection, counted from 0 (default: the root mean square of all channels)",
    )
    parser.add_argument("--list", action="store_true", help="only list the model's maps; no image is needed")
    parser.add_argument("--format", choices=FORMATS, default=FORMATS[0], help=f"file format (default: {FORMATS[0]})")
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of a table")
    add_device_argument(parser)


def _run(arguments: Namespace, out: TextIO) -> int:
    from .parts.image_arguments import check_writable, choose_model, find_image

    if arguments.list:
        return _list(arguments, out)
    if arguments.image is None or arguments.output is None:
        raise InputError("an image and an output folder are required: give IMAGE -o FOLDER, or --list to see the maps")
    model = choose_model(arguments.model, [arguments.image])
    image = find_image(arguments.image, model.description)
    if arguments.output.exists() and not arguments.output.is_dir():
        raise InputError(f"{arguments.output} is a file: choose a folder")
    check_writable(arguments.output)

    with without_collection():
        from ..inference.predictor import Predictor
    predictor = Predictor(model.folder, device=arguments.device)
    entries = _read_out(predictor, image, arguments)
    if arguments.json:
        write_json(out, {"model": model.description.id, "images": image.names, "maps": entries})
    else:
        _write_list(out, entries)
    return DONE


def _read_out(predictor: Predictor, image: ImageFiles, arguments: Namespace) -> list[dict[str, Any]]:
    """Write the maps and return an entry for each."""
    from ..image.volume_io import write_volume
    from ..inference.feature_maps import list_feature_maps, view_features
    from .parts.image_arguments import check_is_no_input, read_image

    maps = list_feature_maps(predictor.network)
    targets = {entry.name: _target(entry, image, arguments) for entry in maps}
    for target in targets.values():
        check_is_no_input(target, [image])
    volume = read_image(image, predictor.description)
    for warning in predictor.check(volume)[1]:
        warn(f"{image.files[0]}: {warning}")
    bar = ProgressBar()
    try:
        volumes = view_features(
            predictor,
            volume,
            names=arguments.names,
            channel=arguments.channel,
            task=Task(bar.show_progress).part(0, 1, stage="Reading features"),
        )
    finally:
        bar.clear()
    arguments.output.mkdir(parents=True, exist_ok=True)
    for name, view in volumes.items():
        write_volume(targets[name], view)
    return [{**_entry_of(entry), "file": str(targets[entry.name])} for entry in maps if entry.name in volumes]


def _list(arguments: Namespace, out: TextIO) -> int:
    from ..models.installed import find_model
    from .parts.image_arguments import choose_model

    if arguments.model is None and arguments.image is None:
        raise InputError("no model is given: choose one with --model")
    model = find_model(arguments.model) if arguments.image is None else choose_model(arguments.model, [arguments.image])

    from ..inference.feature_maps import list_feature_maps
    from ..networks.parts.weights import load_network

    entries = [_entry_of(entry) for entry in list_feature_maps(load_network(model.folder)[0])]
    if arguments.json:
        write_json(out, {"model": model.description.id, "maps": entries})
    else:
        _write_list(out, entries)
    return DONE


def _target(entry: FeatureMap, image: ImageFiles, arguments: Namespace) -> Path:
    name = re.sub(r"\W+", "-", entry.name).strip("-")
    folder: Path = arguments.output
    return folder / f"{image.stem}_{name}.{arguments.format}"


def _entry_of(entry: FeatureMap) -> dict[str, Any]:
    return {"name": entry.name, "kind": entry.kind, "level": entry.level, "stride": list(entry.stride)}


def _write_list(out: TextIO, entries: list[dict[str, Any]]) -> None:
    header = ("map", "stride", *(("file",) if any("file" in entry for entry in entries) else ()))
    rows = [
        (entry["name"], " x ".join(map(str, entry["stride"])), *([entry["file"]] if "file" in entry else []))
        for entry in entries
    ]
    write_table(out, header, rows)


COMMANDS.register("features", title="write a network's skip connections and attention gates as volumes")(
    Command(
        add_arguments=_add_arguments,
        run=_run,
        description="Write the feature maps of a model's skip connections and attention gates for an image: one "
        "volume per map, with the geometry of the image. A skip connection shows the root mean square "
        "of its channels, or one channel; a gate shows its weight from 0 to 1.",
    )
)
