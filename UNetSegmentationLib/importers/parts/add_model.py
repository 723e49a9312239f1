"""Adding a model to the user's model folder, from another tool or from another folder of ours."""

from __future__ import annotations

import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path, PurePosixPath

from ...core.errors import InputError
from ...core.messages import sentence
from ...core.task import UNWATCHED, Task
from ...inference.predictor import Predictor
from ...models.card import write_card
from ...models.description import (
    CARD_FILE,
    DESCRIPTION_FILE,
    PREVIOUS_FOLDER,
    WEIGHTS_FILE,
    read_description,
    write_description,
)
from ...models.installed import InstalledModel, list_models, model_folders
from ...models.user_folder import hold_incoming, place_model
from ...training.replay import REPLAY_FILE, find_replay
from .. import import_model
from .archive import MAX_BYTES, MAX_RATIO

MODEL_FILES = (
    *(f"{PREVIOUS_FOLDER}/{name}" for name in (WEIGHTS_FILE, CARD_FILE, DESCRIPTION_FILE)),
    *(WEIGHTS_FILE, CARD_FILE, REPLAY_FILE, DESCRIPTION_FILE),
)


def add_model(
    source: Path,
    *,
    models_folder: Path,
    incoming: Path,
    task: Task = UNWATCHED,
) -> tuple[InstalledModel, tuple[str, ...]]:
    """Add a model to a folder of models atomically; existing models are not changed.

    Args:
        source: Folder or zip archive with a model of ours or of a tool that can be imported.
        models_folder: Destination, in a folder named by its id.
        incoming: Temporary folder on the same file system; created and removed here.
        task: Told the stage, and checked for cancellation between stages; the progress is unknown.

    Returns:
        The installed model, and sentences for the user.

    Raises:
        InputError: It cannot be imported, with the reason and what would help.
        CancelledError: The task was cancelled.
    """
    with hold_incoming(incoming) as folder:
        task.progress(0.0, "Reading the model")
        warnings = _bring(source, folder)
        task.check()
        task.progress(0.0, "Checking the model")
        _check(folder, source)
        task.check()
        installed = list_models([models_folder, *model_folders()])
        model, original = place_model(folder, models_folder, taken_ids={other.description.id for other in installed})
    return model, (*warnings, *_remarks(model, original.id, installed))


def _bring(source: Path, folder: Path) -> tuple[str, ...]:
    """Make a model folder from a source; return warnings."""
    with _own_model(source) as own:
        if own is None:
            return import_model(source, folder).warnings
        if own.parent.resolve() in {parent.resolve() for parent in model_folders()}:
            raise InputError(f"the model in {own} is already installed: choose it in the model menu")
        try:
            folder.mkdir()
            for name in MODEL_FILES:
                if (own / name).is_file():
                    (folder / name).parent.mkdir(exist_ok=True)
                    shutil.copyfile(own / name, folder / name)
            _keep_shared_crops(own, folder)
        except OSError as error:
            raise InputError(f"the model in {own} cannot be copied ({error.strerror or error}): try again") from error
    return ()


def _keep_shared_crops(own: Path, folder: Path) -> None:
    """Copy the replay crops that a model shares with another; drop the reference if they are missing."""
    try:
        description = read_description(folder)
    except InputError:  # reported when the whole model is checked
        return
    replay = description.training.get("replay")
    if not isinstance(replay, dict) or "shared" not in replay or (folder / REPLAY_FILE).is_file():
        return
    training = {name: value for name, value in description.training.items() if name != "replay"}
    if crops := find_replay(own, description.training):
        shutil.copyfile(crops, folder / REPLAY_FILE)
        training["replay"] = {name: value for name, value in replay.items() if name != "shared"}
    description = replace(description, training=training)
    write_description(folder, description)
    write_card(folder, description)


@contextmanager
def _own_model(source: Path) -> Iterator[Path | None]:
    """Yield the folder of our model that a source is or contains, or None."""
    if source.is_dir():
        yield _only_one(source, [path.parent for depth in ("", "*/") for path in source.glob(depth + DESCRIPTION_FILE)])
    elif source.is_file() and zipfile.is_zipfile(source):
        with tempfile.TemporaryDirectory(prefix="unetseg-import-", ignore_cleanup_errors=True) as folder:
            yield Path(folder) if _extract_own_model(source, Path(folder)) else None
    else:
        yield None


def _only_one(source: Path, folders: list[Path]) -> Path | None:
    """Return the one folder of a model; the first stage of a cascade lies inside the folder of the cascade."""
    folders = [folder for folder in folders if folder.name != PREVIOUS_FOLDER or folder.parent not in folders]
    if len(folders) > 1:
        names = ", ".join(sorted(folder.name for folder in folders))
        raise InputError(f"{source.name} holds {len(folders)} models ({names}): choose one of them")
    return folders[0] if folders else None


def _extract_own_model(archive: Path, folder: Path) -> bool:
    """Extract one of our models from a zip archive, by fixed file names; return whether it contains one."""
    try:
        with zipfile.ZipFile(archive) as opened:
            entries = {entry.filename: entry for entry in opened.infolist()}
            found = [name for name in entries if PurePosixPath(name).name == DESCRIPTION_FILE]
            parent = _only_one(archive, [Path(PurePosixPath(name).parent) for name in found])
            if parent is None:
                return False
            for name in MODEL_FILES:
                entry = entries.get((PurePosixPath(parent.as_posix()) / name).as_posix())
                if entry is not None:
                    (folder / name).parent.mkdir(exist_ok=True)
                    _extract(opened, entry, folder / name)
            return True
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError, OSError) as error:
        raise InputError(f"the archive {archive} cannot be unpacked ({error}): copy it again or free space") from error


def _extract(opened: zipfile.ZipFile, entry: zipfile.ZipInfo, target: Path) -> None:
    if entry.file_size > min(MAX_BYTES, max(entry.compress_size, 2**20) * MAX_RATIO):
        raise InputError(
            f"the archive {opened.filename} holds a file of {entry.file_size / 2**30:.1f} GB: unpack it yourself if "
            "you trust it, and choose the folder"
        )
    with opened.open(entry) as source, target.open("wb") as sink:
        shutil.copyfileobj(source, sink)


def _check(folder: Path, source: Path) -> None:
    """Load a model as a run would; messages name the user's path, not the temporary one."""
    try:
        Predictor(folder, device="cpu")
    except InputError as error:
        raise InputError(str(error).replace(str(folder), str(source))) from error


def _remarks(model: InstalledModel, original_id: str, installed: list[InstalledModel]) -> Iterator[str]:
    description = model.description
    same = [other for other in installed if other.description.weights_sha256 == description.weights_sha256]
    if same and description.weights_sha256:
        yield sentence(f"the same weights are already installed as '{same[0].description.title}'")
    if description.id != original_id:
        yield sentence(f"another model is already called '{original_id}': this one becomes '{description.id}'")
