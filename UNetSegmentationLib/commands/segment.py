"""`unetseg segment`: images in, segmentations on the same grids out."""

from __future__ import annotations

from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from ..core.errors import InputError
from ..core.registry import Registry
from ..core.task import Task
from .contract import COMMANDS, Command, add_backend_argument, add_device_argument, add_quiet_argument, add_tables
from .parts.loading import without_collection
from .parts.terminal import Failures, ProgressBar, warn, write_json

if TYPE_CHECKING:
    from ..inference.predictor import Predictor
    from ..models.description import ModelDescription
    from ..models.installed import InstalledModel
    from .parts.cohort import Case, Outcome, Record, Settings
    from .parts.image_arguments import ImageFiles, Read

PROBABILITY_SUFFIXES = (".nii.gz", ".nii", ".nrrd", ".mha")


def _add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "images",
        metavar="IMAGE",
        nargs="+",
        help="NIfTI, NRRD, MHA, PNG, JPEG or TIFF file, or a folder with a DICOM series. For multi-channel "
        "models, 'a_0000.nii.gz' stands for all channels a_0000, a_0001, ..., and 'T1.nii,T2.nii' lists "
        "them; '-' instead of a name, or a number without a file, is a missing channel, which some networks "
        "accept",
    )
    parser.add_argument(
        "-o", "--output", metavar="OUT", required=True, help="output file (.seg.nrrd, .nii.gz, ...) or folder"
    )
    parser.add_argument("--model", metavar="ID_OR_FOLDER", help="required if several installed models accept the image")
    parser.add_argument(
        "--tta", action="store_true", help="average over mirrored copies: slower, slightly more accurate"
    )
    parser.add_argument(
        "--overlap",
        type=float,
        metavar="SHARE",
        help="overlap of neighbouring tiles (default: 0.5, or as set by the model); 0.25 needs fewer tiles for a "
        "large image",
    )
    parser.add_argument(
        "--roi",
        type=_region,
        metavar="R,A,S,r,a,s",
        help="segment only this box: its centre and half its side lengths, in mm (RAS)",
    )
    parser.add_argument("--probabilities", metavar="FILE", help="also write the probability map of each class")
    parser.add_argument(
        "--postprocess",
        nargs="*",
        metavar="STEP",
        help="post-processing steps (below) instead of the model's own, such as remove_small:min_volume_mm3=50; "
        "without a step, no post-processing",
    )
    parser.add_argument(
        "--resume",
        action="store_true",
        help="skip images that are recorded as done with the same model and options in segmented.jsonl in the "
        "folder OUT",
    )
    parser.add_argument(
        "--dask",
        metavar="ADDRESS",
        help="run on the workers of this Dask scheduler, such as tcp://host:8786; they must have access to the "
        "same paths",
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of a summary")
    add_quiet_argument(parser)
    add_device_argument(parser)
    add_backend_argument(parser)
    # Not imported: the first package would load scipy, the second torch.
    packages = ("UNetSegmentationLib.postprocess", "UNetSegmentationLib.postprocess.probabilities")
    steps = {name: line for package in packages for name, line in Registry("step", package).summaries.items()}
    add_tables(parser, {"steps of --postprocess:": steps})


def _region(text: str) -> tuple[float, ...]:
    try:
        numbers = tuple(float(part) for part in text.split(","))
    except ValueError:
        numbers = ()
    if len(numbers) != 6:
        raise ArgumentTypeError(f"'{text}' is not a valid box: give six numbers R,A,S,r,a,s in mm")
    return numbers


def _run(arguments: Namespace, out: TextIO) -> int:
    from .parts.cohort import Case, Record, Settings
    from .parts.image_arguments import choose_model, choose_outputs

    read: Read = {}
    model = choose_model(arguments.model, arguments.images, read=read)
    failures = Failures(is_debug=arguments.debug)
    images = _find_images(arguments, failures, model.description)
    targets = choose_outputs(images, arguments.output)
    _check_options(arguments, images, targets)

    settings = Settings(
        tta=arguments.tta,
        overlap=arguments.overlap,
        roi=arguments.roi,
        postprocess=None if arguments.postprocess is None else tuple(arguments.postprocess),
        probabilities=arguments.probabilities,
        is_model_chosen=arguments.model is not None,
    )
    cases = [Case(image=image, target=target) for image, target in zip(images, targets, strict=True)]
    record = Record(targets[0].parent, model, settings) if cases and (len(cases) > 1 or arguments.resume) else None
    done, left = record.split_done(cases) if record and arguments.resume else ([], cases)
    if done and not arguments.json:
        out.write(f"{len(done)} of {len(cases)} images were already done\n")
    reports = []
    for outcome in _outcomes(left, settings, arguments, model=model, record=record, read=read):
        if outcome.report is None:
            assert outcome.error is not None
            if len(arguments.images) == 1 and not arguments.json:
                raise outcome.error
            failures.note(str(outcome.case.image.files[0]), outcome.error)
            continue
        for warning in outcome.report["warnings"]:
            warn(f"{outcome.case.image.files[0]}: {warning}")
        reports.append(outcome.report)
        if not arguments.json:
            _summarise(out, outcome.report)
    if arguments.json:
        before = {"done_before": [str(case.target) for case in done]} if arguments.resume else {}
        write_json(out, {"model": model.description.id, "results": reports, **before, "errors": failures.errors})
    return failures.status


def _outcomes(
    cases: list[Case],
    settings: Settings,
    arguments: Namespace,
    *,
    model: InstalledModel,
    record: Record | None,
    read: Read,
) -> Iterator[Outcome]:
    """Segment the cases here or on Dask's workers."""
    if not cases:
        return
    from .parts.cohort import segment_all, segment_with_dask

    with ProgressBar(is_quiet=arguments.quiet) as bar:
        task = Task(bar.show_progress)
        if arguments.dask:
            yield from segment_with_dask(
                cases, settings, model=model, device=arguments.device, scheduler=arguments.dask, record=record,
                task=task,
            )  # fmt: skip
            return

        def load() -> Predictor:
            with without_collection():
                from ..inference.predictor import Predictor
            return Predictor(model.folder, device=arguments.device, backend=arguments.backend)

        for outcome in segment_all(load, cases, settings, model=model, record=record, read_before=read, task=task):
            bar.clear()
            yield outcome


def _find_images(arguments: Namespace, failures: Failures, description: ModelDescription) -> list[ImageFiles]:
    """Return the images that exist; "a_0000" and "a_0001" are one image."""
    from .parts.image_arguments import find_image

    found: dict[tuple[Path | None, ...], ImageFiles] = {}
    for name in arguments.images:
        try:
            image = find_image(name, description)
            found.setdefault(image.paths, image)
        except InputError as error:
            if len(arguments.images) == 1 and not arguments.json:
                raise
            failures.note(name, error)
    return list(found.values())


def _check_options(arguments: Namespace, images: list[ImageFiles], targets: list[Path]) -> None:
    """Raise InputError for invalid options before the computation, not after it."""
    from .parts.image_arguments import check_is_no_input, check_writable

    if arguments.postprocess:
        from ..postprocess.parts.steps import sort_steps

        sort_steps(arguments.postprocess)
    if arguments.overlap is not None and not 0 <= arguments.overlap < 1:
        raise InputError(f"--overlap is {arguments.overlap}: give a number from 0 to below 1")
    if arguments.resume and (len(images) == 1 and not Path(arguments.output).is_dir()):
        raise InputError(f"--resume needs a folder of results, but {arguments.output} is not one: leave out --resume")
    if arguments.backend and arguments.dask:
        raise InputError(
            "--backend applies to this machine only: with --dask, set UNETSEG_BACKEND for the workers instead"
        )
    if arguments.probabilities is None:
        return
    if len(images) > 1:
        raise InputError(
            f"--probabilities takes one file, but there are {len(images)} images: segment them one at a time"
        )
    if not arguments.probabilities.lower().endswith(PROBABILITY_SUFFIXES):
        allowed = ", ".join(PROBABILITY_SUFFIXES)
        raise InputError(f"cannot write probabilities to {arguments.probabilities}: use a name ending in {allowed}")
    path = Path(arguments.probabilities)
    check_is_no_input(path, images)
    check_writable(path.parent)
    if path.resolve() in [target.resolve() for target in targets]:
        raise InputError(f"--probabilities and -o are the same file {path}: give two different names")


def _summarise(out: TextIO, report: dict[str, Any]) -> None:
    out.write(f"{', '.join(report['images'])} -> {report['output']} ({report['duration_s']['total']:.1f} s)\n")
    width = max(len(label["name"]) for label in report["labels"])
    for label in report["labels"]:
        out.write(f"  {label['name']:{width}}  {label['voxels']:>9} voxels  {label['ml']:>9.2f} ml\n")
    out.flush()


COMMANDS.register("segment", title="segment images")(
    Command(
        add_arguments=_add_arguments,
        run=_run,
        description="Segment images. Each result has exactly the geometry of its image. A .seg.nrrd file opens in "
        "3D Slicer as a segmentation with names and colours.",
    )
)
