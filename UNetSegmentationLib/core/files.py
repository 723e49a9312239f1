"""Files that are written completely or not at all."""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from .errors import InputError

# Read once at import: reading the mask means setting it, which is not safe while other threads write files.
_UMASK = os.umask(0o022)
os.umask(_UMASK)


@contextmanager
def atomic_path(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it to `path` if the block succeeds, remove it otherwise.

    The temporary name keeps all suffixes, so that writers can choose the format by name.

    Raises:
        InputError: The folder cannot be created or written to, or the disk is full.
    """
    target = Path(path)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=".", suffix="-" + target.name)
        os.close(handle)
    except OSError as error:
        raise InputError(
            f"cannot write {target}: {_reason(error)}; choose another folder or free some space"
        ) from error
    temporary = Path(name)
    try:
        yield temporary
        _flush(temporary)
        temporary.chmod(0o666 & ~_UMASK)
        temporary.replace(target)
    except OSError as error:
        raise InputError(
            f"cannot write {target}: {_reason(error)}; choose another folder or free some space"
        ) from error
    finally:
        with suppress(OSError):
            temporary.unlink()


def write_text(path: Path | str, text: str) -> None:
    """Write a UTF-8 text file atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


@contextmanager
def hold_alone(path: Path, *, task: str) -> Iterator[None]:
    """Hold a lock on a file against other processes; the file is created if necessary.

    The lock is released when the process ends, however it ends. A file that is still empty at the end is removed, and
    so is its folder if it is empty too.

    Args:
        path: The file; others may still read and write it.
        task: What runs while the lock is held, for the message.

    Raises:
        InputError: Another process holds the lock, or the file cannot be created.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("ab")
    except OSError as error:
        raise InputError(f"cannot write {path}: {_reason(error)}; choose another folder or free some space") from error
    if not _lock(file):
        file.close()
        raise InputError(f"another {task} is running in {path.parent}: wait until it ends or choose another folder")
    try:
        yield
    finally:
        file.close()
        with suppress(OSError):
            if path.stat().st_size == 0:
                path.unlink()
                path.parent.rmdir()


def _lock(file: BinaryIO) -> bool:
    """Lock a file until it is closed; return whether that succeeded. File systems without locks always succeed."""
    try:
        if sys.platform == "win32":
            import msvcrt

            file.seek(2**30)  # Windows locks bytes against reading: lock one that nobody reads
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    except OSError:
        return True
    return True


def _flush(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _reason(error: OSError) -> str:
    return (error.strerror or str(error)).lower()


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
