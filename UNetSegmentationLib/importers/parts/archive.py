"""Zip archives of models: only model files are extracted, and nothing leaves the folder."""

from __future__ import annotations

import shutil
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from ...core.errors import InputError

WANTED_SUFFIXES = (".json", ".yaml", ".yml", ".pth", ".pt", ".ts")
WANTED_NAMES = ("LICENSE",)
WEIGHT_SUFFIXES = (".pth", ".pt", ".ts")
MAX_ENTRIES = 20_000
MAX_BYTES = 32 * 2**30
MAX_TEXT_BYTES = 64 * 2**20
MAX_RATIO = 200  # weights hardly compress; an archive with a higher ratio is a zip bomb


def extract_safely(archive: Path, folder: Path) -> None:
    """Extract the model files of a zip archive into a folder.

    Raises:
        InputError: Damaged, encrypted, too large, or with paths outside the folder.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            entries = [entry for entry in opened.infolist() if not entry.is_dir()]
            _check(entries, archive)
            for entry in entries:
                name = PurePosixPath(entry.filename)
                if name.suffix.lower() in WANTED_SUFFIXES or name.name in WANTED_NAMES:
                    _extract(opened, entry, folder)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise InputError(f"the archive {archive} cannot be unpacked ({error}): copy or export it again") from error
    except OSError as error:
        raise InputError(f"the archive {archive} cannot be unpacked ({error}): free some space") from error


def _check(entries: list[zipfile.ZipInfo], archive: Path) -> None:
    for entry in entries:
        parts = PurePosixPath(entry.filename.replace("\\", "/")).parts
        if not parts or parts[0] == "/" or ".." in parts or ":" in parts[0] or "\0" in entry.filename:
            raise InputError(
                f"the archive {archive} holds the path '{entry.filename}', which leads out of its folder: do not use it"
            )
    total = sum(entry.file_size for entry in entries)
    packed = sum(entry.compress_size for entry in entries)
    if len(entries) > MAX_ENTRIES or total > MAX_BYTES or total > max(packed, 2**20) * MAX_RATIO:
        raise InputError(
            f"the archive {archive} holds {len(entries)} files of {total / 2**30:.1f} GB: unpack it yourself if you "
            "trust it, and choose the folder"
        )


def _extract(opened: zipfile.ZipFile, entry: zipfile.ZipInfo, folder: Path) -> None:
    is_text = PurePosixPath(entry.filename).suffix.lower() not in WEIGHT_SUFFIXES
    if is_text and entry.file_size > MAX_TEXT_BYTES:
        return
    target = folder.joinpath(*PurePosixPath(entry.filename.replace("\\", "/")).parts)
    target.parent.mkdir(parents=True, exist_ok=True)
    # zipfile reads no more than the stated size, which was checked.
    with opened.open(entry) as source, target.open("wb") as sink:
        shutil.copyfileobj(source, sink)
