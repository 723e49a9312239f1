"""The contract of importers, and the way from another tool's files to a model folder."""

from __future__ import annotations

import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from ..core.errors import InputError
from ..core.files import sha256_of
from ..core.registry import Registry
from ..models.card import write_card
from ..models.description import (
    DESCRIPTION_FILE,
    PREVIOUS_FOLDER,
    WEIGHTS_FILE,
    ModelDescription,
    write_description,
)
from ..networks import SegmentationNetwork
from ..networks.parts.weights import save_weights
from .parts.archive import extract_safely
from .parts.unsupported import reason_against


@dataclass(frozen=True, kw_only=True)
class ImportOptions:
    """Choices of the user.

    Attributes:
        configuration: Configuration to import if a folder contains several.
        folds: Folds to import; empty: all available.
        allow_code: TorchScript, which is code, may be loaded for its weights.
    """

    configuration: str | None = None
    folds: tuple[str, ...] = ()
    allow_code: bool = False


@dataclass(frozen=True, kw_only=True)
class ForeignModel:
    """A model of another tool, translated.

    Attributes:
        description: Complete except for the checksum.
        network: With its weights.
        card: Lines for CARD.md on its origin and on differences.
        warnings: Sentences for the user.
        previous: The first stage if the description names one.
    """

    description: ModelDescription
    network: SegmentationNetwork
    card: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    previous: ForeignModel | None = None


@dataclass(frozen=True, kw_only=True)
class Importer:
    """A kind of model that can be imported.

    Attributes:
        recognises: Returns whether a folder looks like one.
        read: Returns the model in such a folder; raises InputError if it cannot be imported, with the reason and
            what would help.
    """

    recognises: Callable[[Path], bool]
    read: Callable[[Path, ImportOptions], ForeignModel]


IMPORTERS: Registry[Importer] = Registry("importer", "UNetSegmentationLib.importers")


def import_model(path: Path, output: Path, *, options: ImportOptions | None = None) -> ForeignModel:
    """Write the model in a folder or zip archive of another tool as a model folder, and return it.

    Args:
        path: Folder or zip archive.
        output: Folder to create; it must not contain a model yet.
        options: Choices of the user.

    Raises:
        InputError: Not found, not recognised or not supported; the message says why and what would help.
    """
    if (output / DESCRIPTION_FILE).exists():
        raise InputError(f"{output} already contains a model: choose another folder")
    options = options or ImportOptions()
    if path.is_dir():
        return _write(_read(path, options), output)
    if not path.is_file():
        raise InputError(
            f"{path} does not exist: choose a results folder of nnU-Net v2, a MONAI bundle, or a zip archive of one"
        )
    if not zipfile.is_zipfile(path):
        raise InputError(
            f"{path} is neither a folder nor a zip archive: choose the folder that the model was trained in"
        )
    with tempfile.TemporaryDirectory(prefix="unetseg-import-", ignore_cleanup_errors=True) as folder:
        extract_safely(path, Path(folder))
        return _write(_read(Path(folder), options), output)


def _read(folder: Path, options: ImportOptions) -> ForeignModel:
    for name in IMPORTERS:
        if IMPORTERS[name].recognises(folder):
            return IMPORTERS[name].read(folder, options)
    if reason := reason_against(folder):
        raise InputError(reason)
    kinds = ", ".join(IMPORTERS.title(name) for name in IMPORTERS)
    raise InputError(f"{folder.name} contains no model that can be imported: choose one of {kinds}")


def _write(model: ForeignModel, output: Path) -> ForeignModel:
    stage = model.description.previous_stage
    if model.previous is not None and stage is not None:
        first = _write(model.previous, output / PREVIOUS_FOLDER).description
        stage = replace(stage, weights_sha256=first.weights_sha256)
    save_weights(output / WEIGHTS_FILE, model.network)
    description = replace(model.description, weights_sha256=sha256_of(output / WEIGHTS_FILE), previous_stage=stage)
    write_card(output, description, origin=model.card)
    # Written last: a folder without a description is not a model.
    write_description(output, description)
    return replace(model, description=description)
