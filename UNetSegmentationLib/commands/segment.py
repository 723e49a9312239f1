"""`unetseg segment`: images in, segmentations on their grids out."""

from __future__ import annotations

from argparse import ArgumentParser, ArgumentTypeError, Namespace
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import numpy as np

from ..errors import InputError
from ..geometry import Volume, crop_to_box
from ..model_folder import InstalledModel, ModelDescription, check_image_fits
from ..postprocess import STEPS
from ..registry import Registry
from ..volume_io import write_labelmap, write_volume
from .contract import COMMANDS, Command, add_device_argument, add_quiet_argument, add_tables
from .images import ImageFiles, check_is_no_input, check_modality, choose_model, choose_outputs, find_image, read_image
from .terminal import Failures, ProgressBar, rounded, warn, write_json

if TYPE_CHECKING:
    from ..prediction import Predictor, Segmentation

PROBABILITY_SUFFIXES = (".nii.gz", ".nii", ".nrrd", ".mha")


def _add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "images",
        metavar="IMAGE",
        nargs="+",
        help="NIfTI, NRRD, MHA, PNG, JPEG or TIFF file, or a folder with a DICOM series; for a model of several "
        "channels 'a_0000.nii.gz' stands for all of its channels, and 'T1.nii,T2.nii' names them; '-' in place of a "
        "name, or a number without a file, is a missing channel, which some networks do without",
    )
    parser.add_argument(
        "-o", "--output", metavar="OUT", required=True, help=".seg.nrrd, .nii.gz, ... file, or a folder"
    )
    parser.add_argument("--model", metavar="ID_OR_FOLDER", help="needed where several installed models take the image")
    parser.add_argument("--tta", action="store_true", help="average over mirrored copies: slower, a little better")
    parser.add_argument(
        "--overlap", type=float, metavar="SHARE", help="of neighbouring tiles (0.5, or the model's own)"
    )
    parser.add_argument(
        "--roi", type=_region, metavar="R,A,S,r,a,s", help="only a box: its centre and half its lengths, RAS in mm"
    )
    parser.add_argument("--probabilities", metavar="FILE", help="also write the probability of every class")
    parser.add_argument(
        "--postprocess",
        nargs="*",
        metavar="STEP",
        help="steps (below) instead of the model's own, such as remove_small:min_volume_mm3=50; none where none is "
        "named",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of a summary")
    add_quiet_argument(parser)
    add_device_argument(parser)
    # The second kind is not imported: it would load torch.
    on_probabilities = Registry("probability step", "UNetSegmentationLib.probability_steps").summaries
    add_tables(parser, {"steps of --postprocess:": {**STEPS.summaries, **on_probabilities}})


def _region(text: str) -> tuple[float, ...]:
    try:
        numbers = tuple(float(part) for part in text.split(","))
    except ValueError:
        numbers = ()
    if len(numbers) != 6:
        raise ArgumentTypeError(f"'{text}' is no region: give six numbers R,A,S,r,a,s in mm")
    return numbers


def _run(arguments: Namespace, out: TextIO) -> int:
    model = choose_model(arguments.model, arguments.images)
    failures = Failures(is_debug=arguments.debug)
    images = _find_images(arguments, failures, model.description)
    targets = choose_outputs(images, arguments.output)
    _check_options(arguments, images)

    from ..prediction import Predictor

    predictor = Predictor(model.folder, device=arguments.device)
    reports = []
    for image, target in zip(images, targets, strict=True):
        try:
            report = _segment(predictor, image, target, arguments, model=model)
        except Exception as error:
            if len(arguments.images) == 1 and not arguments.json:
                raise
            failures.note(str(image.files[0]), error)
            continue
        reports.append(report)
        if not arguments.json:
            _summarise(out, report)
    if arguments.json:
        write_json(out, {"model": model.description.id, "results": reports, "errors": failures.errors})
    return failures.status


def _find_images(arguments: Namespace, failures: Failures, description: ModelDescription) -> list[ImageFiles]:
    """Return the images that are there; "a_0000" and "a_0001" are one."""
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


def _check_options(arguments: Namespace, images: list[ImageFiles]) -> None:
    """Find what is wrong before the computation, not after it."""
    if arguments.postprocess:
        from ..finishing import sort_steps

        sort_steps(arguments.postprocess)
    if arguments.overlap is not None and not 0 <= arguments.overlap < 1:
        raise InputError(f"--overlap is {arguments.overlap}: give 0 to below 1")
    if arguments.probabilities is None:
        return
    if len(images) > 1:
        raise InputError(f"--probabilities takes one file, there are {len(images)} images: segment them one by one")
    if not arguments.probabilities.lower().endswith(PROBABILITY_SUFFIXES):
        allowed = ", ".join(PROBABILITY_SUFFIXES)
        raise InputError(f"cannot write probabilities to {arguments.probabilities}: end the name in {allowed}")
    check_is_no_input(Path(arguments.probabilities), images)


def _segment(
    predictor: Predictor, image: ImageFiles, target: Path, arguments: Namespace, *, model: InstalledModel
) -> dict[str, Any]:
    """Segment one image, write the result and return what there is to say of it."""
    volume = read_image(image, predictor.description)
    check_image_fits(predictor.description, channels=volume.channels, shape=volume.shape, name=",".join(image.names))
    doubt = check_modality(image, volume, model, is_chosen=arguments.model is not None)
    with ProgressBar(is_quiet=arguments.quiet) as bar:
        found = _predict(predictor, volume, arguments, bar)
    warnings = (*([doubt] if doubt else []), *found.warnings)
    for warning in warnings:
        warn(f"{image.files[0]}: {warning}")
    write_labelmap(target, found.labelmap, affine_ras=volume.affine_ras, labels=found.labels)
    if found.probabilities is not None:
        write_volume(arguments.probabilities, Volume(found.probabilities, volume.affine_ras))
    return {
        "images": image.names,
        "output": str(target),
        "labels": _sizes(found, volume),
        "duration_s": rounded(found.duration_s),
        "warnings": warnings,
        "provenance": {**found.provenance, "roi": arguments.roi},
    }


def _predict(predictor: Predictor, volume: Volume, arguments: Namespace, bar: ProgressBar) -> Segmentation:
    """Return the segmentation on the volume's grid; outside the region it is background."""
    whole = (slice(None),) * 3
    part, where = crop_to_box(volume, arguments.roi[:3], arguments.roi[3:]) if arguments.roi else (volume, whole)
    found = predictor.segment(
        part,
        tta=arguments.tta,
        overlap=arguments.overlap,
        postprocess=None if arguments.postprocess is None else tuple(arguments.postprocess),
        with_probabilities=arguments.probabilities is not None,
        on_progress=bar,
    )
    labelmap = np.zeros(volume.shape, dtype=found.labelmap.dtype)
    labelmap[where] = found.labelmap
    probabilities = None
    if found.probabilities is not None:
        probabilities = np.zeros((len(found.probabilities), *volume.shape), dtype=found.probabilities.dtype)
        probabilities[0] = 1
        probabilities[(slice(None), *where)] = found.probabilities
    return replace(found, labelmap=labelmap, probabilities=probabilities)


def _sizes(found: Segmentation, volume: Volume) -> list[dict[str, Any]]:
    voxel_ml = abs(float(np.linalg.det(volume.affine_ras[:3, :3]))) / 1000
    voxels = {label.value: int(np.count_nonzero(found.labelmap == label.value)) for label in found.labels}
    return [
        {
            "name": label.name,
            "value": label.value,
            "voxels": voxels[label.value],
            "ml": round(voxels[label.value] * voxel_ml, 4),
        }
        for label in found.labels
    ]


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
        description="Segment images; each result lies on exactly its image's grid. A .seg.nrrd opens in 3D Slicer as a "
        "segmentation with names and colours.",
    )
)
