"""The preparation of a bare machine, tried with stand-ins for the system's own commands."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TOOLS = ("bash", "sed", "sort", "comm", "dirname", "touch", "rm", "cat", "env")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Return a checkout, in a folder with a space in its name, that asks for two Debian packages."""
    folder = tmp_path / "a checkout"
    (folder / "Testing/Host").mkdir(parents=True)
    shutil.copy(ROOT / "Testing/prepare.sh", folder / "Testing")
    (folder / "Testing/Host/debian-packages.txt").write_text("# Drawing.\nlibdraws\nlibwindows # a comment\n")
    (tmp_path / "bin").mkdir()
    for tool in TOOLS:
        (tmp_path / "bin" / tool).symlink_to(shutil.which(tool))
    return folder


def _add_command(checkout: Path, name: str, body: str) -> None:
    path = checkout.parent / "bin" / name
    path.write_text(f"#!/bin/bash\n{body}\n", encoding="utf-8")
    path.chmod(0o755)


def _set_machine(checkout: Path, *, user: int, installed: str) -> None:
    _add_command(checkout, "id", f"echo {user}")
    _add_command(
        checkout, "dpkg-query", f"for p in {installed}; do echo $p installed; done; echo other config-files; exit 1"
    )
    _add_command(checkout, "apt-get", f'echo "$@" >> "{checkout}/apt-calls"')


def _prepare(checkout: Path, step: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [checkout / "Testing/prepare.sh", step],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": str(checkout.parent / "bin")},
        cwd=os.sep,
    )


def test_nothing_is_asked_where_nothing_is_missing(checkout: Path) -> None:
    _set_machine(checkout, user=1000, installed="libwindows libdraws")
    answer = _prepare(checkout, "system")
    assert (answer.returncode, answer.stdout, answer.stderr) == (0, "", "")


def test_missing_package_is_named_with_the_command_to_type(checkout: Path) -> None:
    _set_machine(checkout, user=1000, installed="libdraws")
    answer = _prepare(checkout, "system")
    assert answer.returncode == 2
    assert answer.stderr == "missing Debian packages: libwindows. Run: sudo apt-get install libwindows\n"
    assert not (checkout / "apt-calls").exists()


def test_root_gets_what_is_missing_and_no_more(checkout: Path) -> None:
    _set_machine(checkout, user=0, installed="libdraws")
    assert _prepare(checkout, "system").returncode == 0
    update, install = (checkout / "apt-calls").read_text().splitlines()
    assert update.split()[-1] == "update"
    assert install.split()[-2:] == ["--no-install-recommends", "libwindows"]


def test_failed_installation_names_the_packages(checkout: Path) -> None:
    _set_machine(checkout, user=0, installed="")
    _add_command(checkout, "apt-get", '[ "$2" = update ]')
    answer = _prepare(checkout, "system")
    assert answer.returncode == 2
    assert "could not be installed: libdraws libwindows" in answer.stderr


def test_other_systems_are_left_alone(checkout: Path) -> None:
    answer = _prepare(checkout, "system")
    assert answer.returncode == 0
    assert "not a Debian system" in answer.stdout


def test_missing_python_is_named(checkout: Path) -> None:
    _set_machine(checkout, user=1000, installed="")
    answer = _prepare(checkout, "venv")
    assert answer.returncode == 2
    assert answer.stderr.startswith("Python 3.11 with its venv module is missing")


# Stands for python3.11 and for the interpreter of the environment that it makes.
PYTHON = """
if [ "$1 $2" = "-m venv" ]; then /bin/mkdir -p "$3/bin" && /bin/cp "$0" "$3/bin/python"; fi
if [ "$2 $3" = "pip install" ] && [ -e fail ]; then echo half > .venv/half-written; exit 1; fi
"""


@pytest.fixture
def bare(checkout: Path) -> Path:
    _add_command(checkout, "python3.11", PYTHON)
    return checkout


def test_environment_is_marked_when_it_is_complete(bare: Path) -> None:
    assert _prepare(bare, "venv").returncode == 0
    assert (bare / ".venv/complete").exists()


def test_interrupted_environment_is_made_anew(bare: Path) -> None:
    """Packages written by half look whole to pip, so they must go."""
    (bare / "fail").touch()
    answer = _prepare(bare, "venv")
    assert answer.returncode == 2
    assert "Testing/requirements.txt could not be installed" in answer.stderr
    assert not (bare / ".venv/complete").exists()
    (bare / "fail").unlink()
    assert _prepare(bare, "venv").returncode == 0
    assert (bare / ".venv/complete").exists()
    assert not (bare / ".venv/half-written").exists()


def test_complete_environment_is_brought_up_to_date_in_place(bare: Path) -> None:
    _prepare(bare, "venv")
    (bare / ".venv/installed-before").touch()
    assert _prepare(bare, "venv").returncode == 0
    assert (bare / ".venv/installed-before").exists()


def test_environment_of_another_checkout_is_left_alone(bare: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other/complete").touch()
    (bare / ".venv").symlink_to(tmp_path / "other")
    answer = _prepare(bare, "venv")
    assert answer.returncode == 2
    assert answer.stderr.startswith(".venv is a symbolic link")
    assert answer.stderr.count("\n") == 1
    assert [path.name for path in (tmp_path / "other").iterdir()] == ["complete"]


def test_unknown_step_is_refused(checkout: Path) -> None:
    answer = _prepare(checkout, "everything")
    assert answer.returncode == 2
    assert answer.stderr == "unknown step 'everything': choose venv or system\n"


def test_every_package_is_pinned_and_none_of_the_library_is_forgotten() -> None:
    lines = (ROOT / "Testing/requirements.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert [pin for pin in pins if not re.fullmatch(r"[A-Za-z0-9_-]+==[0-9][0-9a-z.]*", pin)] == []
    names = [pin.split("==")[0].lower() for pin in pins]
    assert len(names) == len(set(names))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert {re.split("[<>=]", name)[0].lower() for name in project["dependencies"]} <= set(names)
