"""The folder of the user's own models: models are added and deleted atomically."""

from __future__ import annotations

import shutil
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from itertools import count
from pathlib import Path
from uuid import uuid4

from ..core.errors import InputError
from ..core.files import write_text
from .description import CARD_FILE, ModelDescription, read_description, write_description
from .installed import InstalledModel, user_models_folder

# Folders with these prefixes contain models one level deeper than list_models searches.
INCOMING_PREFIX = ".incoming-"
LEAVING_PREFIX = ".leaving-"
_FORGOTTEN_AFTER_S = 24 * 3600.0


def is_users_own(model: InstalledModel) -> bool:
    """Return whether a model is in the user's folder and may be deleted."""
    return model.folder.parent.resolve() == user_models_folder().resolve()


def new_incoming_folder(models_folder: Path) -> Path:
    """Return a path for a model being added to a folder of models; it is not created yet."""
    return models_folder / f"{INCOMING_PREFIX}{uuid4().hex[:12]}"


@contextmanager
def hold_incoming(incoming: Path) -> Iterator[Path]:
    """Create the folder for a model being added and yield the path for the model in it; remove the folder at the end.

    Folders left behind by killed processes are removed after a day.

    Raises:
        InputError: It cannot be created.
    """
    with _writing(incoming.parent):
        incoming.mkdir(parents=True)
    try:
        _remove_forgotten(incoming.parent)
        yield incoming / "model"
    finally:
        shutil.rmtree(incoming, ignore_errors=True)


def place_model(
    folder: Path, models_folder: Path, *, taken_ids: Collection[str]
) -> tuple[InstalledModel, ModelDescription]:
    """Move a finished model folder into a folder of models under its id, with a number appended if that is taken.

    Args:
        folder: The model, on the same file system.
        models_folder: Folder of models.
        taken_ids: Ids of other models, in any folder.

    Returns:
        The installed model, and its description before a number was added.

    Raises:
        InputError: It is not a model, or the folder cannot be written.
    """
    original = read_description(folder)
    for number in count(1):
        description = _numbered(original, number)
        target = models_folder / description.id
        if description.id in taken_ids or target.exists():
            continue
        if number > 1:
            _rename(folder, original, description)
        with _writing(models_folder):
            try:
                folder.rename(target)
            except OSError:
                # Another process may have put a model there in the meantime.
                if target.exists():
                    continue
                raise
        return InstalledModel(target, description), original
    raise AssertionError("unreachable")


def delete_model(model: InstalledModel) -> None:
    """Delete one of the user's own models, with everything in its folder.

    Raises:
        InputError: It is not in the user's folder, or it cannot be deleted.
    """
    if not is_users_own(model):
        raise InputError(f"model '{model.description.id}' is not one of your own: only those can be deleted")
    leaving = model.folder.parent / f"{LEAVING_PREFIX}{uuid4().hex[:12]}"
    try:
        if model.folder.is_symlink():
            model.folder.unlink()
            return
        # Removed from the list of models in one step: no half-deleted model must appear there.
        leaving.mkdir()
        model.folder.rename(leaving / model.folder.name)
        shutil.rmtree(leaving)
    except OSError as error:
        with suppress(OSError):
            leaving.rmdir()
        raise InputError(
            f"{model.folder} cannot be deleted ({error.strerror or error}): close programs that use it and try again"
        ) from error


def _numbered(description: ModelDescription, number: int) -> ModelDescription:
    if number == 1:
        return description
    return replace(description, id=f"{description.id}-{number}", title=f"{description.title} ({number})")


def _rename(folder: Path, former: ModelDescription, description: ModelDescription) -> None:
    write_description(folder, description)
    card = folder / CARD_FILE
    if card.is_file():
        text = card.read_text(encoding="utf-8", errors="replace")
        write_text(card, text.replace(f"`{former.id}`", f"`{description.id}`"))


def _remove_forgotten(models_folder: Path) -> None:
    for prefix in (INCOMING_PREFIX, LEAVING_PREFIX):
        for folder in models_folder.glob(f"{prefix}*"):
            with suppress(OSError):
                if time.time() - folder.stat().st_mtime > _FORGOTTEN_AFTER_S:
                    shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(
            f"cannot write to the models folder {folder} ({error.strerror or error}): "
            "free some space or change its permissions"
        ) from error
