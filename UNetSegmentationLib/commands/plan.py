"""`unetseg plan`: a data set in, a plan with explanations out."""

from __future__ import annotations

import json
from argparse import ArgumentParser, Namespace
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, TextIO

from ..core.files import write_text
from ..core.task import Task
from ..planning.explanation import explain
from ..planning.planner import RESOLUTIONS, network_shape_for
from .contract import COMMANDS, DONE, Command, add_channels_argument, add_device_argument, add_quiet_argument
from .parts.terminal import ProgressBar, write_json


def _add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "dataset", metavar="DATASET", help="nnU-Net raw dataset folder, or a folder with images/ and labels/"
    )
    parser.add_argument("-o", "--output", metavar="PLAN.json", required=True, type=Path, help="output file")
    parser.add_argument("--variant", metavar="V", default="unet", help="network to train (default: unet)")
    parser.add_argument("--preset", metavar="P", default="mri", help="modality, as for train (default: mri)")
    parser.add_argument(
        "--labels", metavar="FILE", type=Path, help="JSON list of labels with names, colours and terminology"
    )
    add_channels_argument(parser)
    parser.add_argument(
        "--resolution",
        choices=RESOLUTIONS,
        default="full",
        help="low: coarser, so that a patch covers enough of the image (default: full)",
    )
    parser.add_argument(
        "--dimensions",
        type=int,
        choices=(2, 3),
        help="2: axial slices; 3: volumes (default: depends on the number of slices)",
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of sentences")
    add_quiet_argument(parser)
    add_device_argument(parser)


def _run(arguments: Namespace, out: TextIO) -> int:
    document = _document(arguments)
    write_text(arguments.output, json.dumps(document, indent=1, allow_nan=False) + "\n")
    if arguments.json:
        write_json(out, document)
        return DONE
    for sentence in document["explanation"]:
        out.write(sentence + "\n")
    out.write(
        f"The plan was saved in {arguments.output}: use it with 'unetseg train --plan', edited by hand if you like.\n"
    )
    return DONE


def _document(arguments: Namespace) -> dict[str, Any]:
    import torch

    from ..backends.parts.devices import choose_device
    from ..cases.dataset import find_cases, name_channels, read_fingerprint, read_labels_of
    from ..networks import NETWORKS, build_network
    from ..networks.parts.planned_config import planned_config
    from ..presets import PRESETS
    from ..training.budget import budget_of, plan_for
    from ..training.setup import leave_raw

    title = NETWORKS.title(arguments.variant)
    budget = budget_of(choose_device(arguments.device))
    orientation = "stored" if PRESETS[arguments.preset].dimensions == (2,) else "RAS"
    cases = find_cases(arguments.dataset)
    names = name_channels(arguments.dataset, cases, arguments.channels)
    with ProgressBar(is_quiet=arguments.quiet) as bar:
        task = Task(bar.show_case)
        fingerprint = read_fingerprint(cases, orientation=orientation, channel_names=names, task=task)
    labels = read_labels_of(arguments.labels or arguments.dataset, sorted(fingerprint.class_shares or ()))
    fingerprint = replace(fingerprint, label_names=tuple(label.name for label in labels))
    plan = plan_for(
        arguments.variant,
        fingerprint,
        arguments.preset,
        budget=budget,
        num_classes=len(labels) + 1,
        resolution=arguments.resolution,
        dimensions=arguments.dimensions,
    )
    config = planned_config(arguments.variant, plan, channels=fingerprint.channels, num_classes=len(labels) + 1)
    with torch.device("meta"):
        plan = leave_raw(plan, build_network(arguments.variant, config).raw_channels)
    shape = {name: config[name] for name in network_shape_for(plan)}
    return {
        "network": arguments.variant,
        "preset": arguments.preset,
        "plan": plan.to_dict(),
        "network_shape": shape,
        "explanation": explain(fingerprint, plan, network=title, shape=shape),
        "budget": {**asdict(budget), "patch_voxels": budget.patch_voxels[plan.dimensions]},
        "fingerprint": fingerprint.to_dict(),
    }


COMMANDS.register("plan", title="plan the training for a data set and explain the plan")(
    Command(
        add_arguments=_add_arguments,
        run=_run,
        description="Read a data set and write the plan for training a network on it: spacing, patch size, batch "
        "size, stages and intensity normalization, with one sentence per decision.",
    )
)
