"""`unetseg train`: a data set in, a model folder out."""

from __future__ import annotations

import json
import os
import re
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from ..core.errors import InputError
from ..core.registry import Registry
from ..core.task import Event, Task
from ..models.description import ModelDescription
from ..planning.configurations import CONFIGURATION_LINES
from ..presets import PRESETS
from .contract import (
    COMMANDS,
    DONE,
    FAULT,
    Command,
    add_channels_argument,
    add_device_argument,
    add_quiet_argument,
    add_tables,
)
from .parts.interrupt import Interrupt, gentle_interrupt
from .parts.loading import without_collection
from .parts.terminal import CASE_EVENTS, ProgressBar, figure, write_table

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..training.curve import LiveCurve
    from ..training.job import TrainingJob
    from ..training.processes.processes import Processes

    Work = Callable[[Task], ModelDescription]

STEPS_PER_EPOCH = 250  # as nnU-Net counts
CURVE_FILE = "training.png"
AUTO = "auto"
ALL_FOLDS = -1
# Read without importing them: they would load torch.
NETWORK_LINES = Registry("network", "UNetSegmentationLib.networks").summaries
LOSS_LINES = Registry("loss", "UNetSegmentationLib.losses").summaries


def _add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "dataset",
        metavar="DATASET",
        nargs="?",
        help="nnU-Net raw dataset folder, or a folder with images/ and labels/ whose file names match",
    )
    parser.add_argument(
        "-o", "--output", metavar="MODEL_FOLDER", required=True, type=Path, help="model folder to create"
    )
    parser.add_argument(
        "--variant", metavar="V", choices=sorted(NETWORK_LINES), help="network (listed below; default: unet)"
    )
    parser.add_argument(
        "--network-option",
        dest="network_options",
        action="append",
        metavar="KEY=VALUE",
        type=_option,
        help="option of the network that overrides the plan, with its value as JSON: dropout=0.2, "
        "features_per_stage=[8,16,32], norm=batch; can be repeated",
    )
    parser.add_argument(
        "--loss", metavar="NAME", choices=sorted(LOSS_LINES), help="loss (listed below; default: dice_cross_entropy)"
    )
    parser.add_argument(
        "--loss-option",
        dest="loss_options",
        action="append",
        metavar="KEY=VALUE",
        type=_option,
        help="option of the loss, such as class_weights=[1,2]; can be repeated",
    )
    parser.add_argument(
        "--preset", metavar="P", choices=sorted(PRESETS), help=f"modality: {', '.join(PRESETS)} (default: mri)"
    )
    add_channels_argument(parser)
    parser.add_argument("--plan", metavar="FILE", type=Path, help="use this plan instead of creating one")
    parser.add_argument(
        "--labels", metavar="FILE", type=Path, help="JSON list of labels with names, colours and terminology"
    )
    parser.add_argument(
        "--fold",
        metavar="K/N",
        type=_fold,
        help="hold back part K of N of the subjects (default: 0/5); all/N trains one network per part and "
        "combines them into an ensemble",
    )
    parser.add_argument(
        "--configurations",
        metavar="C",
        nargs="+",
        choices=(AUTO, *CONFIGURATION_LINES),
        help="train each of these configurations (listed below) and keep the best on the held-back cases; auto: "
        "those that suit the data set",
    )
    parser.add_argument(
        "--no-postprocess-choice",
        dest="chooses_postprocess",
        action="store_const",
        const=False,
        help="do not try post-processing on the held-back cases; by default, steps that improve the results "
        "become part of the model",
    )
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--steps", type=int, metavar="N", help="optimiser steps (default: 1250 without a time budget)")
    length.add_argument("--epochs", type=int, metavar="N", help=f"length in epochs of {STEPS_PER_EPOCH} steps")
    parser.add_argument(
        "--minutes",
        type=float,
        metavar="M",
        help="time budget; the learning rate decays over it. Several trainings share it equally",
    )
    parser.add_argument(
        "--validate-every",
        type=int,
        metavar="N",
        help="steps between validations on held-back cases (default: 250; 0: only at the end)",
    )
    parser.add_argument(
        "--learning-rate",
        type=float,
        metavar="R",
        help="initial learning rate of AdamW, which decays to 0 (default: 0.005); transformers need a lower one",
    )
    parser.add_argument(
        "--seed", type=int, metavar="N", help="random seed of weights, patches and augmentation (default: 0)"
    )
    parser.add_argument(
        "--resume", action="store_true", help="resume from the checkpoint in the folder, with its options"
    )
    parser.add_argument(
        "--replay",
        dest="has_replay",
        action="store_const",
        const=True,
        help="store small crops of the training images with the model, so that fine-tuning forgets less; anyone "
        "who receives the model receives them too",
    )
    parser.add_argument(
        "--demonstration",
        dest="is_demonstration",
        action="store_const",
        const=True,
        help="mark the model as a demonstration: its card says so, and it is used only if named",
    )
    parser.add_argument(
        "--init",
        metavar="MODEL",
        help="start from the weights (except the heads) of a model with the same network: its ID or folder",
    )
    parser.add_argument("--id", help="model ID (default: the name of the folder)")
    parser.add_argument("--title", help="title shown to users")
    parser.add_argument("--data-licence", metavar="TEXT", help="licence of the data, for the model card")
    parser.add_argument("--data-source", metavar="TEXT", help="source of the data and whom to credit")
    add_quiet_argument(parser)
    add_device_argument(parser)
    parser.set_defaults(device=None, channels=None)
    tables = {"networks of --variant:": NETWORK_LINES, "losses of --loss:": LOSS_LINES}
    add_tables(parser, {**tables, "configurations:": CONFIGURATION_LINES})


def _option(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not (key.isidentifier() and equals):
        raise ArgumentTypeError(f"'{text}' is not a valid option: give KEY=VALUE, such as dropout=0.2")
    if re.fullmatch(r"[a-z]\w*", value) and value not in ("true", "false", "null"):
        return key, value  # a bare word is a string: quotes seldom survive a shell
    try:
        return key, json.loads(value, parse_constant=_refuse)
    except ValueError as error:
        raise ArgumentTypeError(
            f"'{value}' is not a JSON value for {key}: give a number, true, false, a word or a [list]"
        ) from error


def _refuse(constant: str) -> None:
    raise ValueError(constant)


def _fold(text: str) -> tuple[int, int]:
    part, _, parts = text.partition("/")
    if not ((part.isdigit() or part == "all") and parts.isdigit()):
        raise ArgumentTypeError(f"'{text}' is not a fold: give K/N, such as 0/5, or all/5")
    return ALL_FOLDS if part == "all" else int(part), int(parts)


def _run(arguments: Namespace, out: TextIO) -> int:
    with without_collection():
        from ..training.processes.processes import OtherProcessError, join_processes

    if _is_study(arguments) and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise InputError(
            "several trainings must run in one process: start without torchrun, or train each one separately"
        )
    try:
        with join_processes() as processes:
            _train(arguments, out if processes.is_first else StringIO(), processes)
    except OtherProcessError:  # the other process has reported the error
        return FAULT
    return DONE


def _train(arguments: Namespace, out: TextIO, processes: Processes) -> None:
    job, work = _work_of(arguments, processes)
    is_quiet = arguments.quiet or not processes.is_first
    with gentle_interrupt(is_patient=processes.count > 1) as interrupt, ProgressBar(is_quiet=is_quiet) as bar:
        display = _Display(job, out, bar, interrupt, draws_curve=processes.is_first)
        work(Task(display.show, interrupt.is_asked))


class _Display:
    """Shows the events of a training: on a progress bar, in lines, and as a plot of the loss in the model folder.

    Args:
        job: The training.
        out: Receives the lines.
        bar: Shows the events without a line.
        interrupt: Set by the events while Ctrl-C may end the training gently.
        draws_curve: Save the plot.
    """

    def __init__(
        self, job: TrainingJob, out: TextIO, bar: ProgressBar, interrupt: Interrupt, *, draws_curve: bool
    ) -> None:
        self._job = job
        self._out = out
        self._bar = bar
        self._interrupt = interrupt
        self._draws_curve = draws_curve
        self._curve: LiveCurve | None = None

    def show(self, event: Event) -> None:
        """Show one event."""
        from ..training.run import is_recorded

        kind = event["event"]
        self._interrupt.is_gentle = kind in (*CASE_EVENTS, "start", "step", "validation")
        if self._curve is not None and kind in ("step", "validation") and is_recorded(event):
            self._curve.update(is_last=kind == "validation")
        if kind == "step":
            self._bar(1 - event["share_left"], f"step {event['step']}, loss {event['loss']:.3f}")
            return
        if kind in CASE_EVENTS:
            self._bar.show_case(event)
            return
        self._bar.clear()
        if kind == "start" and self._draws_curve:
            self._curve = _curve_of(Path(event.get("folder", self._job.folder)), event["labels"])
        if kind == "done":
            self._show_end(ModelDescription.from_dict(event["description"]))
        elif line := _line_of(event):
            self._out.write(line + "\n")
            self._out.flush()
        if kind == "stage":
            self._bar(0.0, event["message"])

    def _show_end(self, description: ModelDescription) -> None:
        if "configuration" in description.training and description.members == 1:
            self._curve = _curve_of(self._job.folder, [label.name for label in description.labels])
            _ = self._curve and self._curve.update(is_last=True)
        _write_end(self._out, self._job, description)


def _is_study(arguments: Namespace) -> bool:
    """Return whether several trainings are requested, or were started before."""
    from ..training.job import STUDY_FILE

    has_all_folds = arguments.fold is not None and arguments.fold[0] == ALL_FOLDS
    is_begun = arguments.resume and (arguments.output / STUDY_FILE).is_file()
    return bool(has_all_folds or arguments.configurations or is_begun)


def _work_of(arguments: Namespace, processes: Processes) -> tuple[TrainingJob, Work]:
    """Return the job and the function that runs it: one training, or a study of several."""
    from ..training.job import STUDY_FILE, TrainingJob
    from ..training.run import run_training
    from ..training.search.search import Study, run_study, unfinished_study

    if not _is_study(arguments):
        values = processes.share(lambda: _job_of(arguments).to_dict())
        job = TrainingJob.from_dict(values, folder=arguments.output)
        return job, lambda task: run_training(job, is_resumed=arguments.resume, processes=processes, task=task)
    has_all_folds = arguments.fold is not None and arguments.fold[0] == ALL_FOLDS
    if has_all_folds:
        arguments.fold = (0, arguments.fold[1])
    is_begun = arguments.resume and (arguments.output / STUDY_FILE).is_file()
    names = _names_of(arguments.configurations)
    if is_begun:
        begun = unfinished_study(arguments.output)
        job = _job_of(arguments, begun.job)
        study = replace(begun, job=job, configurations=begun.configurations if names is None else names)
        if arguments.fold is not None:
            study = replace(study, has_all_folds=has_all_folds)
    else:
        job = _job_of(arguments)
        is_budget_given = any(value is not None for value in (arguments.steps, arguments.epochs, arguments.minutes))
        study = Study(
            job=job,
            configurations=("full",) if names is None else names,
            has_all_folds=has_all_folds,
            shares_budget=is_budget_given,
        )
    return job, lambda task: run_study(study, is_resumed=arguments.resume, task=task)


def _names_of(configurations: Sequence[str] | None) -> tuple[str, ...] | None:
    """Return the names of the configurations, () for "auto", or None if not given."""
    if configurations is None or AUTO not in configurations:
        return None if configurations is None else tuple(configurations)
    if len(configurations) > 1:
        raise InputError("--configurations auto cannot be combined with others: give auto alone, or only names")
    return ()


def _job_of(arguments: Namespace, begun: TrainingJob | None = None) -> TrainingJob:
    """Return the job; a resumed one keeps the options that it started with, unless they are given again."""
    from ..training.job import TrainingJob, unfinished_job
    from ..training.options import UNLIMITED_STEPS, TrainingOptions

    fields = {name: getattr(arguments, name) for name in FIELDS if getattr(arguments, name) is not None}
    if arguments.network_options is not None:
        fields["network_options"] = dict(arguments.network_options)
    options = {name: getattr(arguments, name) for name in OPTIONS if getattr(arguments, name) is not None}
    if arguments.epochs is not None:
        options["steps"] = arguments.epochs * STEPS_PER_EPOCH
    elif arguments.steps is not None:
        options["steps"] = arguments.steps
    elif arguments.minutes is not None:
        options["steps"] = UNLIMITED_STEPS
    if arguments.loss_options is not None:
        options["loss_options"] = dict(arguments.loss_options)
    if arguments.variant is not None:
        fields["network"] = arguments.variant
    if arguments.dataset is not None:
        fields["dataset"] = Path(arguments.dataset)
    if arguments.resume:
        begun = begun or unfinished_job(arguments.output)
        return replace(begun, **fields, options=replace(begun.options, **options))
    if "dataset" not in fields:
        raise InputError("no data set is given: put its folder before -o")
    return TrainingJob(folder=arguments.output, options=TrainingOptions(**options), **fields)


# Options of the command that have the same name as a field of the job, or of its options.
FIELDS = (
    "preset",
    "channels",
    "plan",
    "labels",
    "fold",
    "device",
    "id",
    "title",
    "data_licence",
    "data_source",
    "has_replay",
    "is_demonstration",
    "chooses_postprocess",
    "init",
)
OPTIONS = ("minutes", "learning_rate", "seed", "loss", "validate_every")


def _curve_of(folder: Path, labels: Sequence[str]) -> LiveCurve | None:
    """Return the plot of the loss that is saved in a model folder, or None if matplotlib is not installed."""
    if find_spec("matplotlib") is None:
        return None
    from ..training.curve import LiveCurve
    from ..training.job import RECORD_FILE

    names = dict(enumerate(labels, start=1))
    return LiveCurve(folder / RECORD_FILE, folder / CURVE_FILE, label_names=names)


def _line_of(event: Mapping[str, Any]) -> str:
    if event["event"] == "stage":
        return str(event["message"])
    if event["event"] == "start":
        return f"{'Resuming' if event['is_resumed'] else 'Training'} at step {event['step']} in {event['precision']}"
    if event["event"] == "validation":
        dice = "  ".join(figure(entry.get("dice")) for entry in event["labels"].values())
        return f"step {event['step']:>6}  {event['elapsed_s'] / 60:6.1f} min  Dice {dice}"
    return ""


def _write_end(out: TextIO, job: TrainingJob, description: ModelDescription) -> None:
    if choice := description.figures.get("configurations"):
        rows = [(row["name"], figure(row["mean_dice"]), "kept" if row["is_chosen"] else "") for row in choice["rows"]]
        write_table(out, ("configuration", "mean Dice", ""), rows, right=(1,))
    out.write(f"Model '{description.id}' was saved in {job.folder}; on {description.figures['cases']} unseen cases:\n")
    rows = [
        (name, figure(entry.get("dice")), figure(entry.get("hd95_mm"), 2))
        for name, entry in description.figures["labels"].items()
    ]
    write_table(out, ("label", "Dice", "HD95 mm"), rows, right=(1, 2))
    if choice := description.figures.get("postprocess"):
        reason = choice.get("reason", "no step helps")
        out.write(f"Post-processing: {', '.join(description.postprocess) or f'none, {reason}'}\n")
    if replay := description.training.get("replay"):
        crops = replay["rehearsal"] + replay["sentinels"]
        out.write(
            f"replay.safetensors contains {crops} crops of the training images with their labels: anyone who gets the "
            "model gets them too\n"
        )


COMMANDS.register("train", title="train a model on a data set")(
    Command(
        add_arguments=_add_arguments,
        run=_run,
        description="Train a network and save it as a model folder. Some of the subjects are held back and used "
        "for evaluation at the end. Ctrl-C saves a checkpoint; --resume continues from it and reaches "
        "the same weights as an uninterrupted training. With several GPUs or hosts: torchrun "
        "--nproc-per-node N -m UNetSegmentationLib train ...; the batch size of the plan is then per "
        "process, and the result is that of one process with N times the batch size.",
    )
)
