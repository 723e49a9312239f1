"""Segmenting many images in sequence: reading, computing and writing overlap, and finished images are recorded."""

from __future__ import annotations

import glob
import hashlib
import json
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np

from ...core.errors import CancelledError, InputError
from ...core.task import UNWATCHED, Task
from ...image.geometry import Volume, region_of_box
from ...image.volume_io import write_labelmap, write_volume
from ...models.description import WEIGHTS_FILE
from ...models.fit import check_image_fits
from ...models.installed import InstalledModel
from .image_arguments import ImageFiles, Read, check_modality, read_image
from .terminal import rounded

if TYPE_CHECKING:
    from ...inference.predictor import Predictor, Segmentation
    from ...worker.warm_models import WarmModels

RECORD_FILE = "segmented.jsonl"
CONNECTION_S = 10
_ONE_AT_A_TIME = Lock()


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How images are segmented.

    Attributes:
        tta: Average over mirrored copies.
        overlap: Overlap of neighbouring tiles as a fraction, or None for the model's own.
        roi: Box to segment: its centre and half-lengths, RAS in mm.
        postprocess: Steps instead of the model's own.
        probabilities: File for the probability maps of a single image.
        is_model_chosen: Whether the user named the model.
    """

    tta: bool = False
    overlap: float | None = None
    roi: tuple[float, float, float, float, float, float] | None = None
    postprocess: tuple[str, ...] | None = None
    probabilities: str | None = None
    is_model_chosen: bool = True


@dataclass(frozen=True, kw_only=True)
class Case:
    """An image and the output file for its result."""

    image: ImageFiles
    target: Path


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The result of a case: its report, or the error."""

    case: Case
    report: dict[str, Any] | None = None
    error: Exception | None = None


class Record:
    """Record of the images segmented into a folder, with model and settings, so that a later run can skip them.

    Args:
        folder: Folder of the results.
        model: The model used.
        settings: The settings used.
    """

    def __init__(self, folder: Path, model: InstalledModel, settings: Settings) -> None:
        self._path = folder / RECORD_FILE
        self._probabilities = settings.probabilities
        # Some descriptions have no checksum of their weights.
        weights = _stamps([model.folder / WEIGHTS_FILE])
        self._how = [model.description.to_dict(), weights, {**asdict(settings), "is_model_chosen": None}]

    def key_of(self, case: Case) -> str:
        """Return a key that changes with the image, the model or the options; call this before reading the image."""
        stamps = _stamps(case.image.files)
        return hashlib.sha256(json.dumps([*self._how, case.image.names, stamps]).encode()).hexdigest()

    def add(self, case: Case, key: str) -> None:
        """Record that the case with this key is done.

        Raises:
            InputError: The file cannot be written.
        """
        entry = {"images": case.image.names, "output": case.target.name, "key": key, "result": _stamps([case.target])}
        try:
            with self._path.open("a", encoding="utf-8") as file:
                # A crash may have cut off the previous line.
                file.write("\n" + json.dumps(entry) + "\n")
        except OSError as error:
            raise InputError(f"cannot write {self._path}: {error.strerror}; free some space, then --resume") from error

    def split_done(self, cases: Sequence[Case]) -> tuple[list[Case], list[Case]]:
        """Return the cases that are done, with images and results unchanged since, and the remaining cases."""
        entries = self._entries()
        done = [case for case in cases if entries.get(case.target.name) == (self.key_of(case), _stamps([case.target]))]
        if self._probabilities and not Path(self._probabilities).is_file():
            done = []
        return done, [case for case in cases if case not in done]

    def _entries(self) -> dict[str, tuple[str, list[Any]]]:
        """Return key and stamp by the name of the result; lines cut off by a crash are skipped."""
        entries: dict[str, tuple[str, list[Any]]] = {}
        try:
            lines = self._path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError):
            return entries
        for line in lines:
            try:
                entry = json.loads(line)
                entries[str(entry["output"])] = (str(entry["key"]), entry["result"])
            except (ValueError, TypeError, KeyError):
                continue
        return entries


def _stamps(paths: Sequence[Path]) -> list[Any]:
    """Return name, time and size of files, including the data files that belong to headers."""
    files = sorted({file for path in paths for file in _files_of(path) if file.is_file()})
    return [[str(file.absolute()), file.stat().st_mtime_ns, file.stat().st_size] for file in files]


def _files_of(path: Path) -> list[Path]:
    if path.is_dir():
        return list(path.rglob("*"))
    if path.suffix.lower() in ("", ".dcm", ".ima"):  # one file represents its series
        return list(path.parent.glob("*"))
    if path.suffix.lower() in (".mhd", ".nhdr", ".hdr", ".img"):  # the voxels are in a file beside the header
        return list(path.parent.glob(f"{glob.escape(path.stem)}.*"))
    return [path]


def segment_all(
    load: Callable[[], Predictor],
    cases: Sequence[Case],
    settings: Settings,
    *,
    model: InstalledModel,
    record: Record | None = None,
    read_before: Read | None = None,
    task: Task = UNWATCHED,
) -> Iterator[Outcome]:
    """Segment cases in order; while one is computed, the next is read and the previous one is written.

    A failed case does not stop the others. If the caller stops early, pending writes are finished.

    Args:
        load: Loads the model, while the first case is being read.
        cases: Cases to segment.
        settings: How to segment them.
        model: The model's description and folder.
        record: Receives each case once its result is written.
        read_before: The volume of the first case if it has already been read; with a record it is read again, since
            the file may have changed.
        task: Receives overall progress and the stage of the current case; polled for cancellation.

    Raises:
        CancelledError: The task was cancelled; pending writes have been finished.
    """
    reader, writer = (ThreadPoolExecutor(1, thread_name_prefix=name) for name in ("reader", "writer"))
    read = [reader.submit(_read_with_key, case, settings, model, record, read_before) for case in cases[:1]]
    writing: Future[Outcome] | None = None
    try:
        predictor = load()
        for index, case in enumerate(cases):
            read += [
                reader.submit(_read_with_key, later, settings, model, record) for later in cases[index + 1 : index + 2]
            ]
            try:
                volume, warning, key = read.pop(0).result()
                found = _predict(predictor, volume, settings, _part_of(task, index, len(cases)))
            except CancelledError:
                raise
            except Exception as error:  # noqa: BLE001  # it concerns this case only; the others go on
                # Free the memory held by the failed computation for the next case.
                traceback.clear_frames(error.__traceback__)
                next_write = writer.submit(Outcome, case=case, error=error)
            else:
                next_write = writer.submit(_write_outcome, case, settings, volume, found, warning, record, key)
                del volume, found
            # At most two results wait to be written, however slow the disk.
            if writing is not None:
                yield writing.result()
            writing = next_write
        if writing is not None:
            yield writing.result()
    finally:
        reader.shutdown(cancel_futures=True)
        writer.shutdown()


def _part_of(task: Task, index: int, count: int) -> Task:
    """Return the part of the task for one case; a single case gets the whole task."""
    return task if count == 1 else task.part(index / count, (index + 1) / count, stage=f"{index + 1} of {count}")


def segment_with_dask(
    cases: Sequence[Case],
    settings: Settings,
    *,
    model: InstalledModel,
    device: str,
    scheduler: str,
    record: Record | None = None,
    task: Task = UNWATCHED,
) -> Iterator[Outcome]:
    """Segment cases on the workers of a Dask scheduler, yielding them in order of completion.

    Images, results and the model are read and written by the workers, which must see the same paths.

    Args:
        cases: Cases to segment.
        settings: How to segment them.
        model: The model's description and folder.
        device: Device of each worker.
        scheduler: Address, such as "tcp://host:8786".
        record: Receives each case once its result is written.
        task: Receives the share of finished cases; polled for cancellation after each.

    Raises:
        CancelledError: The task was cancelled.
        InputError: Dask's `distributed` is not installed, or the scheduler does not respond.
    """
    try:
        from distributed import Client, as_completed
    except ImportError as error:
        raise InputError("--dask needs the package 'distributed': install it with pip install distributed") from error
    try:
        client = Client(scheduler, timeout=CONNECTION_S, set_as_default=False)
    except (OSError, ValueError, TimeoutError) as error:
        raise InputError(
            f"no response from a Dask scheduler at {scheduler} within {CONNECTION_S} s: start one with 'dask "
            "scheduler', or check the address"
        ) from error
    model = replace(model, folder=model.folder.absolute())
    keys = [record.key_of(case) if record is not None else "" for case in cases]
    if settings.probabilities is not None:
        settings = replace(settings, probabilities=str(Path(settings.probabilities).absolute()))
    with client:
        futures = {
            client.submit(segment_case, _absolute(case), settings, model, device, pure=False): (case, key)
            for case, key in zip(cases, keys, strict=True)
        }
        try:
            for done, future in enumerate(as_completed(futures, loop=client.loop), start=1):
                task.progress(done / len(cases), f"{done} of {len(cases)} images")
                yield _outcome_of(future, *futures[future], record)
                task.check()
        finally:
            client.cancel(list(futures), reason="the caller stopped")


def _outcome_of(future: Any, case: Case, key: str, record: Record | None) -> Outcome:
    error = future.exception()
    if error is None:
        try:
            if record is not None:
                record.add(case, key)
        except InputError as failure:
            error = failure
    return Outcome(case=case, error=error) if error is not None else Outcome(case=case, report=future.result())


def segment_case(case: Case, settings: Settings, model: InstalledModel, device: str) -> dict[str, Any]:
    """Segment one case in this process, which keeps its models in memory, and return the report.

    Raises:
        InputError: The image does not fit the model, or a file cannot be read or written.
    """
    # For workers with several threads: torch uses all cores for one case, and memory suffices for one.
    with _ONE_AT_A_TIME:
        predictor = _warm_models().get(str(model.folder), device)
        volume, warning = _read(case.image, settings, model)
        found = _predict(predictor, volume, settings, UNWATCHED)
        return _write(case, settings, volume, found, warning)


@cache
def _warm_models() -> WarmModels:
    from ...worker.warm_models import WarmModels

    return WarmModels()


def _absolute(case: Case) -> Case:
    paths = tuple(None if path is None else path.absolute() for path in case.image.paths)
    return Case(image=replace(case.image, paths=paths), target=case.target.absolute())


def _read_with_key(
    case: Case, settings: Settings, model: InstalledModel, record: Record | None, read_before: Read | None = None
) -> tuple[Volume, str, str]:
    """Return an image, a warning about its modality, and its key at the time of reading."""
    if record is None:
        return *_read(case.image, settings, model, read_before), ""
    key = record.key_of(case)
    return *_read(case.image, settings, model), key


def _read(
    image: ImageFiles, settings: Settings, model: InstalledModel, read_before: Read | None = None
) -> tuple[Volume, str]:
    """Return an image and a warning about its modality."""
    volume = read_image(image, model.description, read=read_before)
    check_image_fits(model.description, channels=volume.channels, shape=volume.shape, name=",".join(image.names))
    return volume, check_modality(image, volume, model, is_chosen=settings.is_model_chosen)


def _predict(predictor: Predictor, volume: Volume, settings: Settings, task: Task) -> Segmentation:
    """Return the segmentation on the volume's grid; outside the region it is background."""
    from ...inference.region import segment_region

    return segment_region(
        predictor,
        volume,
        region_of_box(settings.roi[:3], settings.roi[3:]) if settings.roi else None,
        tta=settings.tta,
        overlap=settings.overlap,
        postprocess=settings.postprocess,
        with_probabilities=settings.probabilities is not None,
        task=task,
    )


def _write(case: Case, settings: Settings, volume: Volume, found: Segmentation, warning: str) -> dict[str, Any]:
    """Write the result and return the report."""
    write_labelmap(case.target, found.labelmap, affine_ras=volume.affine_ras, labels=found.labels)
    if found.probabilities is not None and settings.probabilities is not None:
        write_volume(settings.probabilities, Volume(found.probabilities, volume.affine_ras))
    return {
        "images": case.image.names,
        "output": str(case.target),
        "labels": _sizes(found, volume),
        "duration_s": rounded(found.duration_s),
        "warnings": (*([warning] if warning else []), *found.warnings),
        "provenance": {**found.provenance, "roi": settings.roi},
    }


def _write_outcome(
    case: Case,
    settings: Settings,
    volume: Volume,
    found: Segmentation,
    warning: str,
    record: Record | None,
    key: str,
) -> Outcome:
    """Write and record the result of a case and return the outcome."""
    try:
        report = _write(case, settings, volume, found, warning)
        if record is not None:
            record.add(case, key)
    except Exception as error:  # noqa: BLE001  # it concerns this case only; the others go on
        return Outcome(case=case, error=error)
    return Outcome(case=case, report=report)


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
