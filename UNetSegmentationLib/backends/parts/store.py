"""Cache of measurements and conversions, shared between processes in the user's cache folder.

Every file is written atomically and carries its checksum, so that processes can share the folder without locks: a file
that is missing, damaged or of another version is recreated.
"""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from ...core.errors import InputError
from ...core.files import atomic_path
from ...core.user_folders import user_cache_folder
from ...models.description import ModelDescription

FOLDER_VARIABLE = "UNETSEG_CACHE_DIR"
LIMIT_BYTES = 2 * 2**30
FORMAT = b"unetseg-cache-1\n"
_DIGEST_BYTES = 32


def cache_folder() -> Path:
    """Return the folder: UNETSEG_CACHE_DIR if set, else the platform's cache folder."""
    named = os.environ.get(FOLDER_VARIABLE)
    return Path(named) if named else user_cache_folder()


def identity_of(description: ModelDescription) -> str:
    """Return a unique identifier of a network and its weights; empty if the weights have no checksum."""
    if not description.weights_sha256:
        return ""
    shape = json.dumps([description.network, description.network_config, description.members], sort_keys=True)
    return hashlib.sha256((description.weights_sha256 + shape).encode()).hexdigest()


class Store:
    """Files by key; a failed write is no error, as everything here is optional.

    Args:
        folder: Created at the first write.
        limit_bytes: Above this, the least recently used files are removed.
    """

    def __init__(self, folder: Path | None = None, *, limit_bytes: int = LIMIT_BYTES) -> None:
        self.folder = folder or cache_folder()
        self._limit_bytes = limit_bytes

    def get(self, kind: str, key: dict[str, Any]) -> bytes | None:
        """Return the content stored under a key, or None if it is missing or damaged."""
        path = self._path(kind, key)
        try:
            with path.open("rb") as file:
                digest = file.read(len(FORMAT) + _DIGEST_BYTES)
                content = file.read()
        except OSError:
            return None
        if digest != FORMAT + hashlib.sha256(content).digest():
            return None
        with suppress(OSError):
            path.touch()
        return content

    def put(self, kind: str, key: dict[str, Any], content: bytes) -> None:
        """Store content under a key, and trim the cache."""
        if len(content) > self._limit_bytes:
            return
        with suppress(InputError), atomic_path(self._path(kind, key)) as temporary, temporary.open("wb") as file:
            file.write(FORMAT)
            file.write(hashlib.sha256(content).digest())
            file.write(content)
        self._trim()

    def get_json(self, kind: str, key: dict[str, Any]) -> dict[str, Any] | None:
        """Return the object stored under a key, or None."""
        content = self.get(kind, key)
        try:
            found = json.loads(content or b"null")
        except ValueError:
            return None
        return found if isinstance(found, dict) else None

    def put_json(self, kind: str, key: dict[str, Any], values: dict[str, Any]) -> None:
        """Store a JSON object under a key."""
        self.put(kind, key, json.dumps(values).encode())

    def _path(self, kind: str, key: dict[str, Any]) -> Path:
        name = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
        return self.folder / f"{kind}-{name[:40]}.bin"

    def _trim(self) -> None:
        files = []
        with suppress(OSError):
            for path in self.folder.glob("*.bin"):
                with suppress(OSError):
                    status = path.stat()
                    files.append((status.st_mtime_ns, status.st_size, path))
        excess = sum(size for _, size, _ in files) - self._limit_bytes
        for _, size, path in sorted(files):
            if excess <= 0:
                return
            with suppress(OSError):
                path.unlink()
            excess -= size
