"""`unetseg import`: a model from another tool in, a model folder out."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TextIO

from .contract import COMMANDS, DONE, Command
from .parts.terminal import warn, write_json


def _add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "path",
        metavar="PATH",
        type=Path,
        help="nnU-Net v2 results folder or MONAI bundle, a parent folder of one, or a zip archive with one",
    )
    parser.add_argument(
        "-o", "--output", metavar="MODEL_FOLDER", type=Path, required=True, help="model folder to create"
    )
    parser.add_argument("--configuration", metavar="NAME", help="required if there are several, such as 3d_fullres")
    parser.add_argument(
        "--folds", nargs="+", metavar="FOLD", default=[], help="folds, such as 0 1 or all (default: all folds found)"
    )
    parser.add_argument(
        "--allow-code",
        action="store_true",
        help="load TorchScript, which contains code, if a bundle provides its weights in no other form; only if "
        "you trust it",
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of a summary")


def _run(arguments: Namespace, out: TextIO) -> int:
    from ..importers import ImportOptions, import_model

    options = ImportOptions(
        configuration=arguments.configuration, folds=tuple(arguments.folds), allow_code=arguments.allow_code
    )
    model = import_model(arguments.path, arguments.output, options=options)
    description = model.description
    for sentence in model.warnings:
        warn(sentence)
    if arguments.json:
        write_json(
            out,
            {"folder": str(arguments.output), "model": description.to_dict(), "warnings": list(model.warnings)},
        )
        return DONE
    out.write(
        f"Model '{description.id}' was saved in {arguments.output}: {description.title}, {description.network}, "
        f"{description.members} network(s), segments {', '.join(label.name for label in description.labels)}\n"
    )
    return DONE


COMMANDS.register("import", title="import a model of another tool")(
    Command(
        add_arguments=_add_arguments,
        run=_run,
        description="Convert a trained nnU-Net v2 model or a MONAI bundle into a model folder that gives the same "
        "segmentations. Nothing in its files is executed. What cannot be imported is refused with the "
        "reason.",
    )
)
