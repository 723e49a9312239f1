"""What must not stand in the repository: places of one machine, and big files."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MAX_FILE_BYTES = 6 * 2**20

# Written in halves, so that this file does not find itself.
MACHINE_PATHS = tuple(
    left + right
    for left, right in [
        ("/wo", "rk/"), ("/fa", "rm/"), ("/tmp/ba", "sh_jobs"), (".lib", "rary/"), ("/tmp/te", "am"),
        ("/opt/wh", "eels"), ("/ro", "ot/"),
    ]
)  # fmt: skip


def _tracked_files() -> list[Path]:
    # The checkout may belong to another user than the one who runs the tests, as in a container.
    command = ["git", "-c", "safe.directory=*", "ls-files", "-z"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout: there is no list of tracked files")
    paths = [ROOT / name for name in listed.stdout.decode().split("\0") if name]
    return [path for path in paths if path.is_file()]


def test_no_file_names_a_path_of_one_machine() -> None:
    found = []
    for path in _tracked_files():
        content = path.read_bytes()
        found += [f"{path.relative_to(ROOT)}: {text}" for text in MACHINE_PATHS if text.encode() in content]
    assert found == []


def test_no_file_is_too_big_to_ship() -> None:
    big = [path.relative_to(ROOT) for path in _tracked_files() if path.stat().st_size > MAX_FILE_BYTES]
    assert big == []
