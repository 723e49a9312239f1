"""Cases on disk: found by folder, checked, split by subject, prepared for training."""

from __future__ import annotations

import csv
import json
import os
import re
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from ..core.errors import InputError
from ..core.task import UNWATCHED, Task
from ..image.geometry import Array, Volume, same_grid, to_canonical
from ..image.labels import PALETTE, Label
from ..image.missing_values import fill_gaps
from ..image.volume_io import PICTURE_SUFFIXES, VOLUME_SUFFIXES, read_channels, read_labelmap, resample_onto, stem_of
from ..planning.fingerprint import Fingerprint

_IMAGE_FOLDERS = ("imagesTr", "images")
LABEL_FOLDERS = ("labelsTr", "labels")
SUBJECT_COLUMNS = ("subject", "patient", "patient_id", "participant_id")
CASE_COLUMNS = ("case", "name", "case_id")
SAMPLES_PER_CASE = 10_000
# Each scan may take a gigabyte.
_READ_AT_ONCE = 4
# One channel of a case, as nnU-Net names them.
CHANNEL_NAME = re.compile(r"^(?P<case>.+)_(?P<channel>\d{4})$")

Result = TypeVar("Result")


@dataclass(frozen=True, kw_only=True)
class Case:
    """One image with its reference labelmap.

    Attributes:
        id: Name without channel number and suffixes.
        images: One file per channel.
        labels: The reference labelmap.
        subject: The person imaged; cases of one subject are never split between training and validation.
    """

    id: str
    images: tuple[Path, ...]
    labels: Path
    subject: str


def find_cases(folder: Path | str) -> list[Case]:
    """Return the labelled cases of a data set: an nnU-Net raw folder, or images/ and labels/ with matching stems.

    A file manifest.csv with a column of case names and one of subjects assigns cases to subjects; without it every case
    counts as a separate subject.

    Raises:
        InputError: No such folders, no labelled case, or cases with different numbers of channels.
    """
    folder = Path(folder)
    images, labels = (_sub_folder(folder, names) for names in (_IMAGE_FOLDERS, LABEL_FOLDERS))
    references = {stem_of(path): path for path in _data_files(labels)}
    subjects = _read_subjects(folder / "manifest.csv")
    channels: dict[str, list[Path]] = {}
    for path in _data_files(images):
        match = CHANNEL_NAME.match(stem_of(path))
        is_channel = match is not None and match["case"] in references and stem_of(path) not in references
        channels.setdefault(match["case"] if match and is_channel else stem_of(path), []).append(path)
    cases = [
        Case(id=name, images=tuple(channels[name]), labels=references[name], subject=subjects.get(name, name))
        for name in sorted(references)
        if name in channels
    ]
    if not cases:
        raise InputError(
            f"no image in {images} has a labelmap of the same name in {labels}: give both the same file name"
        )
    counts = {len(case.images) for case in cases}
    if len(counts) > 1:
        odd = min(cases, key=lambda case: len(case.images))
        raise InputError(
            f"cases differ in channels {sorted(counts)}; '{odd.id}' has {len(odd.images)}: complete or remove it"
        )
    return cases


def split_by_subject(cases: Sequence[Case], *, folds: int, seed: int = 0) -> list[list[Case]]:
    """Return the cases split into `folds` parts with nearly equal numbers of subjects; no subject is in two parts.

    Raises:
        InputError: Fewer subjects than folds.
    """
    subjects = sorted({case.subject for case in cases})
    if len(subjects) < folds:
        raise InputError(
            f"{len(subjects)} subject(s) cannot be split into {folds} folds: give fewer folds or more data"
        )
    shuffled = np.random.default_rng(seed).permutation(len(subjects))
    part_of = {subjects[index]: position % folds for position, index in enumerate(shuffled)}
    return [[case for case in cases if part_of[case.subject] == part] for part in range(folds)]


def read_labels_of(source: Path | str, values: Sequence[int]) -> tuple[Label, ...]:
    """Return the labels of a data set: from labels.json, else names from nnU-Net's dataset.json, else "Label 1", ...

    Args:
        source: The data set's folder, or a JSON file with a list of labels.
        values: Label values that occur in the labelmaps.

    Raises:
        InputError: A file cannot be parsed or does not name a value that occurs.
    """
    path = Path(source)
    named = path / "labels.json" if path.is_dir() else path
    try:
        if named.is_file() or not path.is_dir():
            labels = tuple(Label.from_dict(entry) for entry in json.loads(named.read_text(encoding="utf-8")))
        else:
            labels = _numbered_labels(_nnunet_names(path / "dataset.json"), values)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"the label names in {path} cannot be read ({error}): fix labels.json or dataset.json"
        ) from error
    unnamed = sorted(set(values) - {label.value for label in labels})
    if unnamed:
        raise InputError(
            f"labelmaps contain the values {unnamed}, which have no name in {path}: add names or remove the values"
        )
    return labels


def read_case(case: Case) -> tuple[Volume, Volume]:
    """Read the image, with NaN filled as for prediction, and its labelmap on the image's grid.

    Raises:
        InputError: A file cannot be read, or the two have different sizes or do not overlap.
    """
    image, labels = read_image(case.images), read_labelmap(case.labels)
    if image.shape != labels.shape:
        raise InputError(
            f"case '{case.id}': the image has {image.shape} voxels, its labelmap {labels.shape}: "
            "they do not match; fix or remove the case"
        )
    if same_grid(image, labels):
        return image, labels
    moved = resample_onto(labels, image, is_labelmap=True)
    if labels.array.any() and not moved.array.any():
        raise InputError(
            f"case '{case.id}': all labelled voxels lie outside the image: fix the geometry of {case.labels}"
        )
    return image, moved


def read_image(paths: Sequence[Path]) -> Volume:
    """Read an image, one file per channel, with NaN filled as for prediction.

    Raises:
        InputError: A file cannot be read, or the channels do not fit together.
    """
    image = read_channels(paths)
    if image.array.dtype.kind == "f" and not np.isfinite(image.array).all():
        image = Volume(np.stack([fill_gaps(channel)[0] for channel in image.array]), image.affine_ras)
    return image


def read_label_values(cases: Sequence[Case], *, task: Task = UNWATCHED) -> list[int]:
    """Return the label values that occur in the references, without the background.

    Args:
        cases: Cases whose labelmaps to read.
        task: Receives {"event": "read", "case": ..., "number": ..., "of": ...} for each case; polled for cancellation
            after each.

    Raises:
        InputError: A labelmap cannot be read.
        CancelledError: The task was cancelled.
    """

    def values_in(case: Case) -> set[int]:
        return set(np.unique(read_labelmap(case.labels).array).tolist())

    found = _read_each(values_in, cases, task)
    return sorted(set().union(*found) - {0})


def read_fingerprint(
    cases: Sequence[Case],
    *,
    orientation: str = "RAS",
    channel_names: Sequence[str] = (),
    task: Task = UNWATCHED,
) -> Fingerprint:
    """Read each case once and return the fingerprint that the planner needs.

    Args:
        cases: At least one.
        orientation: "RAS" reorients volumes first.
        channel_names: Names of the channels, see read_channel_names.
        task: Receives {"event": "read", "case": ..., "number": ..., "of": ...} for each case; polled for cancellation
            after each.

    Raises:
        InputError: A case cannot be read, or no case has a labelled voxel.
        CancelledError: The task was cancelled.
    """
    read = _read_each(lambda case: _measure_case(case, orientation), cases, task)
    foreground = np.concatenate([case.samples for case in read], axis=1).astype(np.float64)
    if not foreground.size:
        raise InputError("no labelmap of the data set contains a labelled voxel: add cases with labels")
    statistics = tuple(
        {
            "mean": float(channel.mean()),
            "std": max(float(channel.std()), 1e-6),
            "lower": float(np.percentile(channel, 0.5)),
            "upper": float(np.percentile(channel, 99.5)) + 1e-6,
        }
        for channel in foreground
    )
    voxels = sum(prod(case.shape) for case in read)
    counts: Counter[int] = Counter()
    for case in read:
        counts.update(case.counts)
    return Fingerprint(
        shapes=tuple(case.shape for case in read),
        spacings_mm=tuple(case.spacing_mm for case in read),
        cropped_shapes=tuple(case.cropped_shape for case in read),
        channels=len(statistics),
        channel_names=tuple(channel_names) if len(channel_names) == len(statistics) else (),
        foreground=statistics,
        class_shares={value: count / voxels for value, count in sorted(counts.items())},
        subjects=len({case.subject for case in cases}),
    )


def read_channel_names(folder: Path | str) -> tuple[str, ...]:
    """Return the channel names in nnU-Net's dataset.json, or () if there is no such file or entry."""
    path = Path(folder) / "dataset.json"
    try:
        values = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        names = values.get("channel_names") or values.get("modality") or {}
        return tuple(str(names[index]) for index in sorted(names, key=int))
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise InputError(f"the channel names in {path} cannot be read ({error}): fix dataset.json") from error


def name_channels(folder: Path | str, cases: Sequence[Case], given: Sequence[str] = ()) -> tuple[str, ...]:
    """Return the channel names of a data set: those given, else those in dataset.json, or () if there are none.

    Raises:
        InputError: The number of names given is not the number of channels.
    """
    count = len(cases[0].images)
    if given and len(given) != count:
        raise InputError(
            f"{len(given)} channel names are given, but the images have {count} channels: give one name per channel"
        )
    names = tuple(given) or read_channel_names(folder)
    return names if len(names) == count else ()


def _read_each(read: Callable[[Case], Result], cases: Sequence[Case], task: Task) -> list[Result]:
    """Read all cases, several at a time, and return the results."""
    results = []
    pool = ThreadPoolExecutor(max_workers=min(_READ_AT_ONCE, os.cpu_count() or 1))
    try:
        pending = [pool.submit(read, case) for case in cases]
        for number, (case, future) in enumerate(zip(cases, pending, strict=True), start=1):
            results.append(future.result())
            task.check("cancelled while reading the data set")
            task.report({"event": "read", "case": case.id, "number": number, "of": len(cases)})
    finally:
        pool.shutdown(cancel_futures=True)
    return results


@dataclass(frozen=True)
class _MeasuredCase:
    shape: tuple[int, int, int]
    cropped_shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    samples: Array
    counts: dict[int, int]


def _measure_case(case: Case, orientation: str) -> _MeasuredCase:
    volume, reference = read_case(case)
    labels = reference.array[0]
    turned = to_canonical(volume)[0] if orientation == "RAS" and volume.shape[0] > 1 else volume
    voxels = volume.array[:, labels > 0]
    values, counts = np.unique(labels, return_counts=True)
    return _MeasuredCase(
        shape=turned.shape,
        cropped_shape=_content_shape(turned.array),
        spacing_mm=turned.spacing_mm,
        samples=voxels[
            :, :: max(1, voxels.shape[1] // SAMPLES_PER_CASE)
        ].copy(),  # a view would keep all voxels in memory
        counts={int(value): int(count) for value, count in zip(values, counts, strict=True) if value},
    )


def _content_shape(array: Array) -> tuple[int, int, int]:
    """Return the size of the box outside which every channel of (C, D, H, W) has its smallest value."""
    is_content = np.zeros(array.shape[1:], dtype=bool)
    for channel in array:
        is_content |= channel > channel.min()
    extents = [np.flatnonzero(is_content.any(axis=tuple(set(range(3)) - {axis}))) for axis in range(3)]
    depth, height, width = (
        int(extent[-1] - extent[0] + 1) if extent.size else size
        for extent, size in zip(extents, array.shape[1:], strict=True)
    )
    return depth, height, width


def _sub_folder(folder: Path, names: tuple[str, ...]) -> Path:
    for name in names:
        if (folder / name).is_dir():
            return folder / name
    raise InputError(f"{folder} has no folder {' or '.join(names)}: choose a data set with images and labels")


def _data_files(folder: Path) -> list[Path]:
    """Return the image files in a folder, sorted by name."""
    suffixes = (*VOLUME_SUFFIXES, *PICTURE_SUFFIXES)
    return sorted(p for p in folder.iterdir() if p.name.lower().endswith(suffixes) and not p.name.startswith("."))


def _read_subjects(manifest: Path) -> dict[str, str]:
    """Return the subject of each case that has one in the manifest."""
    if not manifest.is_file():
        return {}
    try:
        text = manifest.read_text(encoding="utf-8-sig")  # spreadsheets write a byte-order mark
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{manifest} cannot be read ({error}): save it as UTF-8") from error
    delimiter = max(",;\t", key=text.partition("\n")[0].count)
    rows = list(csv.DictReader(text.splitlines(), delimiter=delimiter))
    columns = {name.strip().lower(): name for name in (rows[0] if rows else ()) if name}
    case_column = next((columns[name] for name in CASE_COLUMNS if name in columns), None)
    subject_column = next((columns[name] for name in SUBJECT_COLUMNS if name in columns), None)
    if case_column is None or subject_column is None:
        return {}
    return {stem_of(row[case_column]): row[subject_column] for row in rows if row[case_column] and row[subject_column]}


def _nnunet_names(path: Path) -> dict[int, str]:
    if not path.is_file():
        return {}
    entries: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))["labels"]
    pairs = [(key, value) for key, value in entries.items() if not isinstance(value, list)]
    if all(key.isdigit() for key, _ in pairs):  # as in nnU-Net v1 and the Medical Segmentation Decathlon
        pairs = [(value, key) for key, value in pairs]
    return {int(value): str(name) for name, value in pairs}


def _numbered_labels(names: dict[int, str], values: Sequence[int]) -> tuple[Label, ...]:
    return tuple(
        Label(value=value, name=names.get(value, f"Label {value}"), color=PALETTE[index % len(PALETTE)])
        for index, value in enumerate(values)
    )
