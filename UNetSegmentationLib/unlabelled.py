"""Images to pretrain on: found without labels, never of a subject that is held back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from .dataset import CHANNEL, IMAGE_FOLDERS, Case, PreparedCase, data_files, read_image, read_subjects
from .errors import InputError
from .planning import Plan
from .preprocessing import prepare
from .volume_io import stem_of

MANIFEST_FILE = "manifest.csv"


@dataclass(frozen=True, kw_only=True)
class UnlabelledCase:
    """An image of which no label is read.

    Attributes:
        id: Name without channel number and suffixes.
        images: One file a channel.
        subject: Person that it stems from.
    """

    id: str
    images: tuple[Path, ...]
    subject: str


def find_unlabelled(
    folder: Path, *, dataset: Path, channels: int, held_back: Sequence[Case]
) -> tuple[list[UnlabelledCase], list[str]]:
    """Return the images of a folder to pretrain on, and the names of those left out.

    An image is left out where it may be of a subject that is held back: by the manifest of the folder or of the data
    set, by its name, or because it is the very file. An image of which only somebody else knows the subject gets in.

    Args:
        folder: Images, or a data set with a folder of images.
        dataset: What the cases to segment come from.
        channels: Of each image; several come as files NAME_0000, NAME_0001, ...
        held_back: Cases that nothing may be learnt from.

    Raises:
        InputError: No usable image, or one with another number of channels.
    """
    if not folder.is_dir():
        raise InputError(f"there is no folder {folder} to pretrain on: give one with images")
    subjects = {**read_subjects(dataset / MANIFEST_FILE), **read_subjects(folder / MANIFEST_FILE)}
    watched = {case.subject for case in held_back} | {case.id for case in held_back}
    files = {path.resolve() for case in held_back for path in case.images}
    root = next((folder / name for name in IMAGE_FOLDERS if (folder / name).is_dir()), folder)
    found, left_out = [], []
    for name, paths in _group_channels(root, channels).items():
        subject = subjects.get(name, name)
        if {name, subject} & watched or files & {path.resolve() for path in paths}:
            left_out.append(name)
        else:
            found.append(UnlabelledCase(id=name, images=tuple(paths), subject=subject))
    if not found:
        reason = f"all {len(left_out)} are of subjects that are held back" if left_out else "it holds none"
        raise InputError(f"{root} has no image to pretrain on ({reason}): give another --pretraining-images folder")
    return found, left_out


def prepare_unlabelled(
    found: Sequence[UnlabelledCase], plan: Plan, *, prepared: Sequence[PreparedCase] = (), labelled: Sequence[Case] = ()
) -> list[PreparedCase]:
    """Bring images to the network's grid, as cases without any label.

    Args:
        found: What to read.
        plan: The network's grid.
        prepared: Cases that are on it already, whose images are taken rather than read again.
        labelled: Those cases as they lie on disk.

    Raises:
        InputError: An image cannot be read or does not fit the plan.
    """
    files = {case.id: case.images for case in labelled}
    known = {case.images: case.id for case in found if files.get(case.id) == case.images}
    ready = {case.id: case for case in prepared if case.id in known.values()}
    return [
        _without_labels(ready[case.id]) if case.id in ready else _prepare_image(case.id, case.images, plan)
        for case in found
    ]


def _prepare_image(name: str, images: Sequence[Path], plan: Plan) -> PreparedCase:
    prepared = prepare(read_image(images), plan)
    empty = torch.zeros((), dtype=torch.int16)
    case = PreparedCase(id=name, image=prepared.image, padding=prepared.padding, labels=empty, foreground=empty)
    return _without_labels(case)


def _without_labels(case: PreparedCase) -> PreparedCase:
    # Expanded from one number: takes no memory.
    labels = torch.zeros((), dtype=torch.int16).expand(case.image.shape[1:])
    return replace(case, labels=labels, foreground=torch.zeros((0, 3), dtype=torch.int16))


def _group_channels(root: Path, channels: int) -> dict[str, list[Path]]:
    """Return the files of each image by its name: NAME_0000, ... where all channels are there, else each by itself."""
    numbered: dict[str, list[Path]] = {}
    for path in data_files(root):
        match = CHANNEL.match(stem_of(path))
        numbered.setdefault(match["case"] if match else stem_of(path), []).append(path)
    groups: dict[str, list[Path]] = {}
    for name, paths in numbered.items():
        if [stem_of(path) for path in paths] == [f"{name}_{index:04d}" for index in range(channels)]:
            groups[name] = paths
        else:
            groups.update({stem_of(path): [path] for path in paths})
    odd = [name for name, paths in groups.items() if len(paths) != channels]
    if odd:
        raise InputError(
            f"image '{odd[0]}' in {root} does not have the {channels} channels of the data set: give files "
            f"{odd[0]}_0000 to {odd[0]}_{channels - 1:04d}, or remove it"
        )
    return groups
