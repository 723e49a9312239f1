"""`unetseg finetune`: a model and a few local cases in, a model folder out, compared with the parent."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from ..core.errors import InputError
from ..core.task import Event, Task
from ..models.description import ModelDescription
from .contract import COMMANDS, DONE, Command, add_device_argument, add_quiet_argument
from .parts.interrupt import gentle_interrupt
from .parts.loading import without_collection
from .parts.terminal import CASE_EVENTS, ProgressBar, figure, write_json, write_table

if TYPE_CHECKING:
    from ..finetuning.job import FinetuningJob


def _add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", nargs="?", help="ID or folder of the model to fine-tune")
    parser.add_argument(
        "dataset",
        metavar="DATASET",
        nargs="?",
        help="local cases with the model's label values; 255 marks unlabelled voxels",
    )
    parser.add_argument(
        "-o", "--output", metavar="MODEL_FOLDER", required=True, type=Path, help="model folder to create"
    )
    parser.add_argument("--minutes", type=float, metavar="M", help="time budget; the learning rate decays over it")
    parser.add_argument("--steps", type=int, metavar="N", help="optimiser steps (default: 120 plus 40 per case)")
    parser.add_argument("--seed", type=int, metavar="N", help="random seed of patches and augmentation (default: 0)")
    parser.add_argument(
        "--resume", action="store_true", help="resume from the checkpoint in the folder, with its options"
    )
    parser.add_argument("--no-replay", action="store_true", help="do not train on the crops stored with the model")
    parser.add_argument("--id", help="model ID (default: the name of the folder)")
    parser.add_argument("--title", help="title shown to users")
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of the progress")
    add_quiet_argument(parser)
    add_device_argument(parser)
    parser.set_defaults(device=None)


def _run(arguments: Namespace, out: TextIO) -> int:
    with without_collection():
        from ..finetuning.run import run_finetuning
    from ..training.processes.processes import refuse_several_processes

    refuse_several_processes("unetseg finetune")
    job = _job_of(arguments)
    with gentle_interrupt() as interrupt, ProgressBar(is_quiet=arguments.quiet) as bar:

        def show(event: Event) -> None:
            interrupt.is_gentle = event["event"] in (*CASE_EVENTS, "start", "step")
            if event["event"] == "step":
                bar(1 - event["share_left"], f"step {event['step']}, loss {event['loss']:.3f}")
                return
            if event["event"] in CASE_EVENTS:
                bar.show_case(event)
                return
            bar.clear()
            if event["event"] == "done":
                _write_end(out, job, ModelDescription.from_dict(event["description"]), as_json=arguments.json)
            elif event["event"] == "stage":
                if not arguments.json:
                    out.write(event["message"] + "\n")
                    out.flush()
                bar(0.0, event["message"])

        run_finetuning(job, is_resumed=arguments.resume, task=Task(show, interrupt.is_asked))
    return DONE


def _job_of(arguments: Namespace) -> FinetuningJob:
    """Return the job; one that is resumed has the options that it began with, unless they are given again."""
    from ..finetuning.job import FinetuningJob, unfinished_job

    fields: dict[str, Any] = {name: getattr(arguments, name) for name in FIELDS if getattr(arguments, name) is not None}
    if arguments.dataset is not None:
        fields["dataset"] = Path(arguments.dataset)
    if arguments.no_replay:
        fields["uses_replay"] = False
    if arguments.resume:
        return replace(unfinished_job(arguments.output), **fields)
    if "dataset" not in fields:
        raise InputError("a model and a data set are required: give MODEL DATASET before -o")
    return FinetuningJob(folder=arguments.output, **fields)


# Options of the command that have the same name as the job's field.
FIELDS = ("model", "minutes", "steps", "seed", "device", "id", "title")


def _write_end(out: TextIO, job: FinetuningJob, description: ModelDescription, *, as_json: bool) -> None:
    gate = description.figures["gate"]
    if as_json:
        write_json(out, {"folder": str(job.folder), "model": description.to_dict()})
        return
    rows = [
        (title, str(entry["cases"]), figure(entry["old"]), figure(entry["new"]), figure(entry["worst_change"]))
        for title, name in (("parent's training crops", "sentinel"), ("local cases, held back", "local"))
        if (entry := gate[name])
    ]
    if rows:
        write_table(out, ("Dice on", "cases", "parent", "new", "worst change"), rows, right=(1, 2, 3, 4))
    out.write(f"Gate: {gate['verdict']}\n")
    for reason in gate["reasons"]:
        out.write(f"  {reason}\n")
    out.write(f"Model '{description.id}' was saved in {job.folder}; '{description.parent}' is unchanged.\n")


COMMANDS.register("finetune", title="fine-tune a model on a few local cases")(
    Command(
        add_arguments=_add_arguments,
        run=_run,
        description="Fine-tune a model on a few local cases without forgetting what it has learned, and compare "
        "the two models. The new model is kept whatever the comparison shows; the old one is not "
        "changed. Ctrl-C saves a checkpoint from which --resume continues.",
    )
)
