"""Images named on the command line: which files make one, which model takes it, where its result goes."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError
from ..geometry import Volume
from ..model_folder import InstalledModel, check_image_fits, find_model, list_models
from ..volume_io import check_labelmap_name, read_channels, stem_of

_CHANNEL = re.compile(r"^(?P<case>.+)_\d{4}$")


@dataclass(frozen=True, kw_only=True)
class ImageFiles:
    """An image: one file or DICOM folder a channel, and the name that its result gets."""

    paths: tuple[Path, ...]
    stem: str


def find_image(argument: str, *, channels: int) -> ImageFiles:
    """Return the files that an argument stands for.

    Args:
        argument: A file, a folder with a DICOM series, one of "a_0000.nii.gz", "a_0001.nii.gz", ... whose siblings
            are the other channels, or files joined by commas.
        channels: How many the model takes.

    Raises:
        InputError: A file is missing.
    """
    path = Path(argument)
    if argument and path.exists():
        return _with_siblings(path, channels)
    parts = [Path(part) for part in argument.split(",") if part]
    missing = [str(part) for part in parts if not part.exists()] or ([] if parts else ["an empty name"])
    if missing:
        raise InputError(f"{', '.join(missing)} does not exist: give an image file or a folder with a DICOM series")
    return ImageFiles(paths=tuple(parts), stem=_stem(parts[0]))


def choose_model(name: str | None, images: Sequence[str]) -> InstalledModel:
    """Return the model of a name; without one, the only installed model that takes the first readable image.

    Raises:
        InputError: There is none, or several, or no image can be read.
    """
    if name is not None:
        return find_model(name)
    models = list_models()
    if not models:
        raise InputError("no model is installed: train one with 'unetseg train', or name a model folder with --model")
    if len(models) == 1:
        return models[0]
    image, fitting = _first_fit(models, images)
    if len(fitting) == 1:
        return fitting[0]
    ids = ", ".join(model.description.id for model in fitting or models)
    if fitting:
        raise InputError(f"{len(fitting)} models take {image}: name one of them with --model: {ids}")
    raise InputError(f"no installed model takes {image} (there are {ids}): name a model folder with --model")


def choose_outputs(images: Sequence[ImageFiles], output: str) -> list[Path]:
    """Return the file that each image's result goes to.

    Args:
        images: One image, or several for a folder.
        output: For one image a file or a folder; a name without suffix is a folder.

    Raises:
        InputError: No format has that name, it cannot be written, two results would have one name, or a result would
            replace an image.
    """
    path = Path(output)
    is_folder = path.is_dir() or output.endswith(("/", os.sep)) or not path.suffix
    if is_folder and path.exists() and not path.is_dir():
        raise InputError(f"{path} is a file without suffix: give a folder, or a name that ends in .seg.nrrd")
    if len(images) > 1 and not is_folder:
        raise InputError(f"{path} is one file for {len(images)} images: give a folder")
    if not is_folder:
        check_labelmap_name(path)
    _check_writable(path if is_folder else path.parent)
    targets = [path / f"{image.stem}.seg.nrrd" if is_folder else path for image in images]
    _check_distinct(images, targets)
    for target in targets:
        check_is_no_input(target, images)
    return targets


def check_is_no_input(target: Path, images: Sequence[ImageFiles]) -> None:
    """Raise InputError where a result would replace an image."""
    if target.exists() and any(source.samefile(target) for image in images for source in image.paths):
        raise InputError(f"the result would replace the image {target}: give another name with -o")


def _first_fit(models: Sequence[InstalledModel], images: Sequence[str]) -> tuple[str, list[InstalledModel]]:
    """Return the first image that can be read and the models that take it."""
    reason = InputError("no image is given")
    for image in images:
        volumes: dict[tuple[Path, ...], Volume] = {}
        try:
            return image, [model for model in models if _takes(model, image, volumes)]
        except InputError as error:
            reason = error
    raise reason


def _takes(model: InstalledModel, argument: str, volumes: dict[tuple[Path, ...], Volume]) -> bool:
    """Tell whether a model takes an image; what is read is kept in `volumes`."""
    paths = find_image(argument, channels=len(model.description.channels)).paths
    if paths not in volumes:
        volumes[paths] = read_channels(paths)
    try:
        check_image_fits(model.description, channels=volumes[paths].channels, shape=volumes[paths].shape)
    except InputError:
        return False
    return True


def _with_siblings(path: Path, channels: int) -> ImageFiles:
    match = _CHANNEL.match(stem_of(path))
    if channels == 1 or path.is_dir() or match is None:
        return ImageFiles(paths=(path,), stem=_stem(path))
    suffix = path.name[len(match[0]) :]
    siblings = [path.with_name(f"{match['case']}_{number:04d}{suffix}") for number in range(channels)]
    missing = [sibling.name for sibling in siblings if not sibling.exists()]
    if missing and len(missing) >= channels - 1:
        return ImageFiles(paths=(path,), stem=_stem(path))
    if missing:
        raise InputError(f"{path} is one of {channels} channels, but {', '.join(missing)} is missing: put it beside it")
    return ImageFiles(paths=tuple(siblings), stem=match["case"])


def _stem(path: Path) -> str:
    return path.resolve().name if path.is_dir() else stem_of(path)


def _check_distinct(images: Sequence[ImageFiles], targets: Sequence[Path]) -> None:
    taken: dict[str, ImageFiles] = {}
    for image, target in zip(images, targets, strict=True):
        other = taken.setdefault(target.name.casefold(), image)
        if other is not image:
            raise InputError(
                f"the results of {other.paths[0]} and {image.paths[0]} would both be {target}: segment them one by one"
            )


def _check_writable(folder: Path) -> None:
    """Raise InputError where the folder, or the nearest one above it that exists, takes no files."""
    nearest = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())
    if not nearest.is_dir():
        raise InputError(f"cannot write to {folder}: {nearest} is a file; give another folder")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise InputError(f"cannot write to {folder}: {nearest} is read-only; give another folder")
