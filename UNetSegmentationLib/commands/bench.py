"""`unetseg bench`: inference speed on this machine, compared with other engines if installed."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, TextIO

from ..core.task import Task
from ..models.installed import bundled_resources_folder
from .contract import COMMANDS, DONE, Command, add_quiet_argument
from .parts.terminal import ProgressBar, figure, rounded, warn, write_json, write_table

if TYPE_CHECKING:
    from ..benchmark.inference import Comparison

_MODEL = "mri-hippocampus-unet"
_SAMPLE = "mri_hippocampus.nii.gz"


def _add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("what", choices=("inference",), help="what to measure: from a volume to its labelmap")
    parser.add_argument(
        "--model",
        metavar="ID_OR_FOLDER",
        default=_MODEL,
        help="an installed model, a model folder, or an nnU-Net results folder (default: the hippocampus U-Net)",
    )
    parser.add_argument("--image", metavar="IMAGE", help="image to segment (default: the hippocampus sample)")
    parser.add_argument(
        "--against",
        metavar="PEER",
        nargs="+",
        default=(),
        help="other engines to run with the same weights: nnunetv2, monai",
    )
    parser.add_argument(
        "--peer-python",
        metavar="PATH",
        action="append",
        default=[],
        help="Python interpreter with the package of another engine, if it is not installed here; can be repeated",
    )
    parser.add_argument(
        "--runs", type=int, default=5, metavar="N", help="runs of each engine; the median is reported (default: 5)"
    )
    parser.add_argument("--measure", action="store_true", help="find the fastest backend for this model first")
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of a table")
    add_quiet_argument(parser)


def _run(arguments: Namespace, out: TextIO) -> int:
    from ..benchmark.inference import compare
    from ..image.volume_io import read_volume

    volume = read_volume(arguments.image or bundled_resources_folder() / "Samples" / _SAMPLE)
    with ProgressBar(is_quiet=arguments.quiet) as bar:
        found = compare(
            arguments.model,
            volume,
            against=arguments.against,
            pythons=arguments.peer_python,
            runs=arguments.runs,
            is_measured=arguments.measure,
            task=Task(bar.show_progress),
        )
    for name, reason in found.missing.items():
        warn(f"{name}: {reason}")
    if arguments.json:
        write_json(out, rounded(asdict(found)))
    else:
        _write_figures(out, found)
    return DONE


def _write_figures(out: TextIO, found: Comparison) -> None:
    machine = found.machine
    out.write(
        f"{machine['cpu']} ({machine['capability']}), {machine['threads']} threads, torch {machine['torch']}\n"
        f"convolutions reach {found.peak_gflops:.0f} GFLOP/s in float32; a tile takes {found.tile_gflop:.1f} GFLOP; "
        f"medians of {found.runs}\n"
    )
    for backend, verdict in found.backends.items():
        out.write(f"backend {backend}: {verdict}\n")
    header = ("engine", "s", "x ours", "extra MiB", "load s", "tiles", "of peak", "equal labels", "lowest Dice", "")
    ours = found.engines[0]
    rows: list[Any] = [
        (
            entry.engine,
            figure(entry.seconds, 2),
            figure(entry.seconds / ours.seconds, 2),
            figure(entry.extra_mb, 0),
            figure(entry.load_s, 1),
            str(entry.tiles),
            f"{entry.peak_share:.0%}",
            f"{entry.equal_labels:.4%}",
            figure(min(entry.dice.values(), default=None), 4),
            entry.details,
        )
        for entry in found.engines
    ]
    write_table(out, header, rows, right=range(1, 9))


COMMANDS.register("bench", title="benchmark this machine")(
    Command(
        add_arguments=_add_arguments,
        run=_run,
        description="Time a model from volume to labelmap, next to other engines with the same weights, and "
        "report the share of this machine's peak convolution rate that is reached. Engines that are "
        "not installed are listed.",
    )
)
