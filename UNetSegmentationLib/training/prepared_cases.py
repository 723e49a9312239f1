"""Prepared cases in files, read on demand, so that memory does not grow with the data set."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from .. import __version__
from ..cases.dataset import Case
from ..core.errors import CancelledError, InputError
from ..core.task import UNWATCHED, Task
from ..core.tensor_files import atomic_tensor_file
from ..image.labels import Label
from ..planning.plan import Plan
from .checkpoint import CHECKPOINT_FILE
from .prepared_case import PreparedCase, prepare_case

PREPARED_FOLDER = "prepared"
_FORM = 1  # version of the files; a change recreates them all
# Headers whose voxels are in a separate file.
_DETACHED = (".mhd", ".nhdr", ".hdr")
_TENSORS = tuple(field.name for field in fields(PreparedCase) if field.name != "id")


class PreparedFolder:
    """Folder of prepared cases, one file each: per voxel 4 bytes per channel, 2 for its class, 6 more if labelled.

    Tensors are mapped from the files: the system reads what is accessed, shares it between the processes of a
    training, and drops it when memory is needed elsewhere.

    Args:
        folder: Model folder.
        plan: Defines the network's grid.
        labels: Labels of the model; class 1 is the first.
        ignored: Label value of unlabelled voxels.
    """

    def __init__(self, folder: Path, plan: Plan, labels: Sequence[Label], *, ignored: int | None = None) -> None:
        self._folder = folder / PREPARED_FOLDER
        self._plan = plan
        self._labels = tuple(labels)
        self._ignored = ignored

    def fill(self, cases: Sequence[Case], *, task: Task = UNWATCHED) -> None:
        """Prepare cases; up-to-date files are kept.

        Args:
            cases: To prepare.
            task: Gets {"event": "prepared", "case": ..., "number": ..., "of": ...} for each, in their order, and often
                checked for cancellation.

        Raises:
            InputError: A case cannot be read or does not fit the plan, or the disk is full.
            CancelledError: The task was cancelled; finished files are kept.
        """
        for number, case in enumerate(cases, start=1):
            if self._read(case) is None:
                try:
                    self._make(case, task.observed_by(None))
                except CancelledError as error:
                    raise CancelledError("cancelled while preparing the cases; prepared cases are kept") from error
            task.report({"event": "prepared", "case": case.id, "number": number, "of": len(cases)})

    def open(self, case: Case) -> PreparedCase:
        """Return a case with its tensors on disk, or in memory if its file is missing, as on another host.

        Raises:
            InputError: The case has no file and cannot be prepared.
        """
        return self._read(case) or self._prepare(case, UNWATCHED)

    def _make(self, case: Case, task: Task) -> None:
        origin = self._origin_of(case)  # taken before reading: a labelmap saved meanwhile is read again
        prepared = self._prepare(case, task)
        tensors = {name: getattr(prepared, name).contiguous() for name in _TENSORS}
        with atomic_tensor_file(self._path_of(case)) as temporary:
            save_file(tensors, temporary, metadata={"case": case.id, "made_from": origin})

    def _prepare(self, case: Case, task: Task) -> PreparedCase:
        return prepare_case(case, self._plan, self._labels, ignored=self._ignored, task=task)

    def _read(self, case: Case) -> PreparedCase | None:
        """Return the content of a case's file, or None if it is missing or outdated."""
        try:
            with safe_open(self._path_of(case), framework="pt") as file:
                if file.metadata()["made_from"] != self._origin_of(case):
                    return None
                return PreparedCase(id=case.id, **{name: file.get_tensor(name) for name in _TENSORS})
        except (SafetensorError, OSError, TypeError, KeyError):
            return None
        except RuntimeError:  # raised by torch if the system cannot map a file: use memory
            return None

    def _path_of(self, case: Case) -> Path:
        # A case name may be too long, or collide where file names ignore case.
        return self._folder / f"{hashlib.sha256(case.id.encode()).hexdigest()[:24]}.safetensors"

    def _origin_of(self, case: Case) -> str:
        """Return a checksum of everything that determines the content of a case's file."""
        status = [(path, path.stat()) for name in (*case.images, case.labels) for path in _files_of(name)]
        origin = {
            "form": [__version__, _FORM],
            "files": [(str(path.absolute()), state.st_size, state.st_mtime_ns) for path, state in status],
            "plan": self._plan.to_dict(),
            "labels": [label.value for label in self._labels],
            "ignored": self._ignored,
        }
        return hashlib.sha256(json.dumps(origin, sort_keys=True).encode()).hexdigest()


def _files_of(image: Path) -> list[Path]:
    """Return an image's file, and for a header those with the same stem."""
    if image.suffix.lower() not in _DETACHED:
        return [image]
    return sorted(path for path in image.parent.iterdir() if path.name.startswith(f"{image.stem}."))


def remove_prepared_cases(folder: Path) -> None:
    """Remove the prepared cases of a model folder."""
    shutil.rmtree(folder / PREPARED_FOLDER, ignore_errors=True)


@contextmanager
def keep_prepared_cases_until_done(folder: Path) -> Iterator[None]:
    """Remove the prepared cases of a model folder when the training in the block is done.

    They are also removed after an InputError before the first checkpoint; they are kept if training was cancelled or
    ended for an external reason, such as an error in another process.
    """
    try:
        yield
    except InputError:
        if not (folder / CHECKPOINT_FILE).is_file():
            remove_prepared_cases(folder)
        raise
    remove_prepared_cases(folder)
