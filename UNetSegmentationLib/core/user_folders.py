"""Folders for user data on each operating system.

The package platformdirs is not used: on macOS it follows XDG_DATA_HOME, where models installed so far would not be
found, and Slicer's Python does not have it before the extension has installed its packages.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

_NAME = "UNetSegmentation"


def user_data_folder() -> Path:
    """Return the folder for the user's data, whether it exists or not."""
    if sys.platform == "win32":
        return _local_app_data() / _NAME
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / _NAME
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / _NAME


def user_cache_folder() -> Path:
    """Return the folder for cached files, whether it exists or not."""
    if sys.platform == "win32":
        return _local_app_data() / _NAME / "Cache"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / _NAME
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / _NAME


def _local_app_data() -> Path:
    return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
