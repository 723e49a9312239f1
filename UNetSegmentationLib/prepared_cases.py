"""Prepared cases in files, of which a training reads what it draws: memory does not grow with the data set."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from pathlib import Path
from threading import Event
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from . import __version__
from .dataset import Case, PreparedCase, prepare_case
from .errors import CancelledError
from .labels import Label
from .planning import Plan
from .tensor_files import atomic_tensor_file

PREPARED_FOLDER = "prepared"
# While one reads and unpacks a file, the other resamples, which takes all processors.
_WORKERS = 2
_TENSORS = tuple(field.name for field in fields(PreparedCase) if field.name != "id")


class PreparedFolder:
    """A folder with one file a case: 4 bytes a voxel and channel, 2 for its class, and 6 more where it is labelled.

    Tensors are mapped from the files: the system reads what is looked at, shares it between the processes of a
    training, and drops it again where memory is needed for something else.

    Args:
        folder: Made where it is not there.
        plan: The network's grid.
        labels: Of the model; class 1 is the first.
        ignored: Label value of voxels that nobody has labelled.
    """

    def __init__(self, folder: Path, plan: Plan, labels: Sequence[Label], *, ignored: int | None = None) -> None:
        self._folder = folder
        self._plan = plan
        self._labels = tuple(labels)
        self._ignored = ignored

    def fill(
        self, cases: Sequence[Case], *, is_cancelled: Callable[[], bool] = lambda: False
    ) -> Generator[dict[str, Any]]:
        """Prepare cases, two at a time; a file that was made from the same images and labelmaps as now is kept.

        Yields:
            {"event": "prepared", "case": ..., "number": ..., "of": ...} for each, in their order.

        Raises:
            InputError: A case cannot be read or does not fit the plan, or the disk is full.
            CancelledError: `is_cancelled` said so; the files so far stay.
        """
        is_over = Event()
        pool = ThreadPoolExecutor(max_workers=_WORKERS, thread_name_prefix="prepare")
        try:
            made = [pool.submit(self._make, case, lambda: is_over.is_set() or is_cancelled()) for case in cases]
            for index, case in enumerate(cases):
                try:
                    made[index].result()
                except CancelledError as error:
                    raise CancelledError(
                        "cancelled before the training began; the same command goes on with the cases that are ready"
                    ) from error
                yield {"event": "prepared", "case": case.id, "number": index + 1, "of": len(cases)}
        finally:
            is_over.set()
            pool.shutdown(wait=True, cancel_futures=True)

    def open(self, case: Case) -> PreparedCase:
        """Return a case with its tensors on the disk; in memory where its file is not there, as on another host.

        Raises:
            InputError: The case has no file and cannot be prepared.
        """
        return self._read(case) or self._prepare(case)

    def _make(self, case: Case, is_cancelled: Callable[[], bool]) -> None:
        if self._read(case) is not None:
            return
        prepared = self._prepare(case, is_cancelled)
        tensors = {name: getattr(prepared, name).contiguous() for name in _TENSORS}
        with atomic_tensor_file(self._path_of(case)) as temporary:
            save_file(tensors, temporary, metadata={"made_from": self._origin_of(case)})

    def _prepare(self, case: Case, is_cancelled: Callable[[], bool] | None = None) -> PreparedCase:
        return prepare_case(case, self._plan, self._labels, ignored=self._ignored, is_cancelled=is_cancelled)

    def _read(self, case: Case) -> PreparedCase | None:
        """Return what lies in a case's file; None where there is none, or one of something else."""
        try:
            with safe_open(self._path_of(case), framework="pt") as file:
                if file.metadata()["made_from"] != self._origin_of(case):
                    return None
                return PreparedCase(id=case.id, **{name: file.get_tensor(name) for name in _TENSORS})
        except (SafetensorError, OSError, TypeError, KeyError):
            return None

    def _path_of(self, case: Case) -> Path:
        return self._folder / f"{case.id}.safetensors"

    def _origin_of(self, case: Case) -> str:
        """Return a checksum of all that decides what is in a case's file."""
        status = [(str(path.absolute()), path.stat()) for path in (*case.images, case.labels)]
        origin = {
            "version": __version__,
            "files": [(name, state.st_size, state.st_mtime_ns) for name, state in status],
            "plan": self._plan.to_dict(),
            "labels": [label.value for label in self._labels],
            "ignored": self._ignored,
        }
        return hashlib.sha256(json.dumps(origin, sort_keys=True).encode()).hexdigest()
