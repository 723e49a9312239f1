"""Installed models and their folders."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from ..core.errors import InputError
from ..core.user_folders import user_data_folder
from .description import DESCRIPTION_FILE, ModelDescription, read_description

MODELS_VARIABLE = "UNETSEG_MODELS"


@dataclass(frozen=True)
class InstalledModel:
    """An installed model: its folder and description."""

    folder: Path
    description: ModelDescription


def user_models_folder() -> Path:
    """Return the folder of the user's own models, whether it exists or not."""
    return user_data_folder() / "models"


def bundled_models_folder() -> Path:
    """Return the folder of the models that ship with the extension, in the installed or the source tree."""
    return bundled_resources_folder() / "Models"


def bundled_resources_folder() -> Path:
    """Return the folder of the shipped resources, in the installed or the source tree."""
    package = Path(__file__).resolve().parents[1]
    inside = package / "Resources"
    return inside if inside.is_dir() else package.parent / "Resources"


def model_folders() -> list[Path]:
    """Return the search path for models, first match wins: UNETSEG_MODELS, the user's folder, the bundled one."""
    extra = [Path(entry) for entry in os.environ.get(MODELS_VARIABLE, "").split(os.pathsep) if entry]
    return [*extra, user_models_folder(), bundled_models_folder()]


def list_models(folders: list[Path] | None = None) -> list[InstalledModel]:
    """Return the usable models in the given folders, sorted by title; folders that are not valid models are skipped.

    If two models have the same id, the one in the earlier folder is used.
    """
    found: dict[str, InstalledModel] = {}
    for parent in model_folders() if folders is None else folders:
        for path in sorted(parent.glob(f"*/{DESCRIPTION_FILE}")):
            try:
                description = read_description(path.parent)
            except InputError:
                continue
            found.setdefault(description.id, InstalledModel(path.parent, description))
    return sorted(found.values(), key=lambda model: model.description.title)


def absolute_if_folder(id_or_folder: str) -> str:
    """Return a model folder as an absolute path, or a model id unchanged."""
    return str(Path(id_or_folder).absolute()) if id_or_folder and Path(id_or_folder).is_dir() else id_or_folder


def find_model(id_or_folder: str, *, folders: list[Path] | None = None) -> InstalledModel:
    """Return the model with an id or in a folder.

    Raises:
        InputError: There is no such model; the message lists the known ids.
    """
    folder = Path(id_or_folder)
    if (folder / DESCRIPTION_FILE).is_file() or folder.is_dir():
        return InstalledModel(folder.resolve(), read_description(folder))
    models = list_models(folders)
    for model in models:
        if model.description.id == id_or_folder:
            return model
    known = ", ".join(model.description.id for model in models) or "none is installed"
    raise InputError(f"there is no model '{id_or_folder}': choose a model folder or one of these ids: {known}")
