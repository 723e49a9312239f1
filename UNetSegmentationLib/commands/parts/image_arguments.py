"""Images on the command line: which files make up an image, which model to use, and where to write the result."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...cases.dataset import CHANNEL_NAME
from ...core.errors import InputError
from ...image.dicom_series import modality_of
from ...image.geometry import Volume
from ...image.volume_io import check_labelmap_name, read_channels, stem_of
from ...models.description import Channel, ModelDescription
from ...models.fit import check_image_fits, lowest_value, value_warning, why_unsuited
from ...models.installed import InstalledModel, find_model, list_models
from ...presets import PRESETS

MISSING = "-"
# Volumes already read, by their files.
Read = dict[tuple[Path | None, ...], Volume]


@dataclass(frozen=True, kw_only=True)
class ImageFiles:
    """An image and the name for its result.

    Attributes:
        paths: One file or DICOM folder per channel, None for a missing channel.
        stem: Name of the result without suffix.
    """

    paths: tuple[Path | None, ...]
    stem: str

    @property
    def files(self) -> tuple[Path, ...]:
        """The existing files."""
        return tuple(path for path in self.paths if path is not None)

    @property
    def names(self) -> list[str]:
        """One name per channel, a dash for a missing one."""
        return [MISSING if path is None else str(path) for path in self.paths]


def find_image(argument: str, description: ModelDescription) -> ImageFiles:
    """Return the files of an image argument.

    Args:
        argument: A file, a folder with a DICOM series, one of "a_0000.nii.gz", "a_0001.nii.gz", ... whose siblings
            are the other channels, or files joined by commas with a dash for a missing one.
        description: The model to use.

    Raises:
        InputError: A file does not exist, or a channel is missing that the model needs.
    """
    image = _find(argument, len(description.channels))
    _check_missing(image, description)
    return image


def read_image(image: ImageFiles, description: ModelDescription, *, read: Read | None = None) -> Volume:
    """Read an image; a channel that is missing becomes NaN.

    Args:
        image: Its files.
        description: The model to use.
        read: Volumes that `choose_model` has read; cleared here, to free the memory.

    Raises:
        InputError: A file cannot be read.
    """
    volume, paths = (read or {}).get(image.files) or read_channels(image.files), image.paths
    if read:
        read.clear()
    if len(paths) == volume.channels == 1:
        paths = _placed_by_number(image.files[0], description.channels)
    if None not in paths:
        return volume
    if volume.channels != len(image.files):
        names = ",".join(image.names)
        raise InputError(
            f"{names} has {volume.channels} channels: with '-', give one single-channel file for each of the others"
        )
    array = np.full((len(paths), *volume.shape), np.nan, dtype=np.float32)
    array[[index for index, path in enumerate(paths) if path is not None]] = volume.array
    return Volume(array, volume.affine_ras)


def choose_model(name: str | None, images: Sequence[str], *, read: Read | None = None) -> InstalledModel:
    """Return the named model; without a name, the installed model that suits the first readable image.

    If several segment the same labels, the one with the highest Dice on unseen cases is used. Demonstration models are
    only used by name.

    Args:
        name: Id or folder of a model.
        images: As given on the command line.
        read: Receives the volume that was read to make the choice.

    Raises:
        InputError: No model fits, several that segment different structures fit, or no image can be read.
    """
    if name is not None:
        return find_model(name)
    installed = list_models()
    models = [model for model in installed if not model.description.is_demonstration]
    if not models:
        raise InputError(
            "no model is installed: train one with 'unetseg train', or give a model folder with --model"
            + _demonstrations_among(installed)
        )
    if len(models) == 1:
        return models[0]
    image, fitting = _first_fit(models, images, {} if read is None else read)
    suited = [model for model, reason in fitting if not reason] or [model for model, _ in fitting][:1]
    if len({_found_by(model) for model in suited}) == 1:
        # A model for another modality is rejected image by image, see check_modality.
        return max(suited, key=lambda model: model.description.mean_dice or 0.0)
    ids = ", ".join(model.description.id for model in suited or models)
    if suited:
        raise InputError(
            f"{len(suited)} models that segment different structures accept {image}: choose one with --model: {ids}"
        )
    raise InputError(
        f"no installed model accepts {image} (installed: {ids}): give a model folder with --model"
        + _demonstrations_among(installed)
    )


def _demonstrations_among(models: Sequence[InstalledModel]) -> str:
    ids = ", ".join(model.description.id for model in models if model.description.is_demonstration)
    return f"; for demonstration only, if named explicitly: {ids}" if ids else ""


def _found_by(model: InstalledModel) -> frozenset[str]:
    return frozenset(label.name for label in model.description.labels)


def check_modality(image: ImageFiles, volume: Volume, model: InstalledModel, *, is_chosen: bool) -> str:
    """Return a warning if a model is for another modality than the image, unless the values alone give it away.

    Args:
        image: The image's files.
        volume: Its voxels.
        model: The model to use.
        is_chosen: Whether the user named the model.

    Raises:
        InputError: The user did not name the model, and the image is of another modality.
    """
    reason = _why_unsuited(image, volume, model)
    if not reason:
        return ""
    title, own_id = PRESETS[model.description.preset].title, model.description.id
    if is_chosen:
        is_value_warned = value_warning(model.description.preset, lowest=lowest_value(volume.array))
        return "" if is_value_warned else f"the image {reason}, but the model is for {title}: do not rely on the result"
    others = [
        other for other in list_models() if _is_of_shape(other, volume) and not _why_unsuited(image, volume, other)
    ]
    ids = ", ".join(other.description.id for other in others)
    raise InputError(
        f"{image.files[0]} {reason}, but model '{own_id}' is for {title}: "
        + (f"choose a suitable model with --model: {ids}" if ids else "no installed model is suitable")
        + f"; '--model {own_id}' uses this one anyway"
    )


def _why_unsuited(image: ImageFiles, volume: Volume, model: InstalledModel) -> str:
    return why_unsuited(
        model.description.preset,
        lowest=lowest_value(volume.array),
        is_flat=volume.shape[0] == 1,
        modality=next((code for code in map(modality_of, image.files) if code), ""),
    )


def _is_of_shape(model: InstalledModel, volume: Volume) -> bool:
    try:
        check_image_fits(model.description, channels=volume.channels, shape=volume.shape)
    except InputError:
        return False
    return True


def choose_outputs(images: Sequence[ImageFiles], output: str) -> list[Path]:
    """Return the output file for each image's result.

    Args:
        images: One image, or several if the output is a folder.
        output: A file or a folder; a name without suffix is a folder.

    Raises:
        InputError: The format is unknown, the output cannot be written, two results would have the same name, or a
            result would overwrite an image.
    """
    path = Path(output)
    is_folder = path.is_dir() or output.endswith(("/", os.sep)) or not path.suffix
    if is_folder and path.exists() and not path.is_dir():
        raise InputError(f"{path} is a file without a suffix: choose a folder, or a name ending in .seg.nrrd")
    if len(images) > 1 and not is_folder:
        raise InputError(f"{path} is a single file, but there are {len(images)} images: choose a folder")
    if not is_folder:
        check_labelmap_name(path)
    check_writable(path if is_folder else path.parent)
    targets = [path / f"{image.stem}.seg.nrrd" if is_folder else path for image in images]
    _check_distinct(images, targets)
    for target in targets:
        check_is_no_input(target, images)
    return targets


def check_is_no_input(target: Path, images: Sequence[ImageFiles]) -> None:
    """Raise InputError if a result would overwrite an image."""
    if target.exists() and any(source.samefile(target) for image in images for source in image.files):
        raise InputError(f"the result would overwrite the image {target}: choose another name with -o")


def check_writable(folder: Path) -> None:
    """Raise InputError if files cannot be written to the folder, or to its nearest existing parent."""
    nearest = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())
    if not nearest.is_dir():
        raise InputError(f"cannot write to {folder}: {nearest} is a file; choose another folder")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise InputError(f"cannot write to {folder}: {nearest} is read-only; choose another folder")


def _first_fit(
    models: Sequence[InstalledModel], images: Sequence[str], volumes: Read
) -> tuple[str, list[tuple[InstalledModel, str]]]:
    """Return the first readable image and the models that accept it, each with the reason if it is unsuitable."""
    reason = InputError("no image is given")
    for image in images:
        volumes.clear()
        try:
            fitting = [model for model in models if _takes(model, image, volumes)]
            files = [_find(image, len(model.description.channels)) for model in fitting]
            reasons = [
                _why_unsuited(found, volumes[found.files], model) for found, model in zip(files, fitting, strict=True)
            ]
            return image, list(zip(fitting, reasons, strict=True))
        except InputError as error:
            reason = error
    raise reason


def _takes(model: InstalledModel, argument: str, volumes: Read) -> bool:
    """Return whether a model accepts an image; volumes that are read are kept in `volumes`."""
    image = _find(argument, len(model.description.channels))
    if image.files not in volumes:
        volumes[image.files] = read_channels(image.files)
    volume = volumes[image.files]
    paths = image.paths
    if len(paths) == volume.channels == 1:
        paths = _placed_by_number(image.files[0], model.description.channels)
    channels = len(paths) if None in paths else volume.channels
    try:
        _check_missing(image, model.description)
        check_image_fits(model.description, channels=channels, shape=volume.shape)
    except InputError:
        return False
    return True


def _find(argument: str, channels: int) -> ImageFiles:
    path = Path(argument)
    if argument and path.exists():
        return _with_siblings(path, channels)
    names = [part.strip() for part in argument.split(",") if part.strip()]
    parts = [None if name == MISSING else Path(name) for name in names]
    files = [part for part in parts if part is not None]
    unknown = [str(part) for part in files if not part.exists()] or ([] if files else ["an image without files"])
    if unknown:
        raise InputError(f"{', '.join(unknown)} does not exist: give an image file or a folder with a DICOM series")
    return ImageFiles(paths=tuple(parts), stem=_stem(files[0]))


def _with_siblings(path: Path, channels: int) -> ImageFiles:
    match = CHANNEL_NAME.match(stem_of(path))
    if channels == 1 or path.is_dir() or match is None:
        return ImageFiles(paths=(path,), stem=_stem(path))
    suffix = path.name[len(match[0]) :]
    siblings = [path.with_name(f"{match['case']}_{number:04d}{suffix}") for number in range(channels)]
    found = tuple(sibling if sibling.exists() else None for sibling in siblings)
    # A lone file may contain all channels, and a file with another number is not a channel.
    if path not in found or sum(sibling is not None for sibling in found) == 1:
        return ImageFiles(paths=(path,), stem=_stem(path))
    return ImageFiles(paths=found, stem=match["case"])


def _placed_by_number(path: Path, channels: Sequence[Channel]) -> tuple[Path | None, ...]:
    """Return one path per channel for a lone channel file "a_0002"; (path,) if its name does not say which it is."""
    match = CHANNEL_NAME.match(stem_of(path))
    number = -1 if match is None or path.is_dir() else int(match["channel"])
    others = [channel for index, channel in enumerate(channels) if index != number]
    if not 0 <= number < len(channels) or not all(channel.is_optional for channel in others):
        return (path,)
    return tuple(path if index == number else None for index in range(len(channels)))


def _check_missing(image: ImageFiles, description: ModelDescription) -> None:
    """Raise InputError if a required channel is missing."""
    if None not in image.paths:
        return
    names = ", ".join(channel.name for channel in description.channels)
    if len(image.paths) != len(description.channels):
        raise InputError(
            f"{','.join(image.names)} lists {len(image.paths)} channels, but model '{description.id}' needs "
            f"{len(description.channels)} ({names}): list each one, with '-' for a missing one"
        )
    needed = [
        channel.name
        for channel, path in zip(description.channels, image.paths, strict=True)
        if path is None and not channel.is_optional
    ]
    if needed:
        raise InputError(
            f"{', '.join(needed)} is missing for {image.files[0]}: model '{description.id}' needs all of {names}"
        )


def _stem(path: Path) -> str:
    return path.resolve().name if path.is_dir() else stem_of(path)


def _check_distinct(images: Sequence[ImageFiles], targets: Sequence[Path]) -> None:
    taken: dict[str, ImageFiles] = {}
    for image, target in zip(images, targets, strict=True):
        other = taken.setdefault(target.name.casefold(), image)
        if other is not image:
            raise InputError(
                f"the results of {other.files[0]} and {image.files[0]} would both be written to {target}: "
                "segment them one at a time"
            )
