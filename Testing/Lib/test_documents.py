"""What the documents promise: links that lead somewhere, commands that parse, code that runs."""

from __future__ import annotations

import re
import shlex
import subprocess
import tomllib
from pathlib import Path

import pytest

from UNetSegmentationLib import __version__
from UNetSegmentationLib.cli import _parser
from UNetSegmentationLib.image.volume_io import read_labelmap

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "Resources").rglob("*.md")])
README = (ROOT / "README.md").read_text(encoding="utf-8")


def _blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)


COMMANDS = [line.split("#")[0].strip() for block in _blocks("") for line in block.splitlines()]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_lead_to_files(document: Path) -> None:
    targets = re.findall(r"\]\(([^)#]+)\)", document.read_text(encoding="utf-8"))
    local = [target for target in targets if not re.match(r"[a-z]+:", target)]
    assert [target for target in local if not (document.parent / target).exists()] == []


@pytest.mark.parametrize("command", [command for command in COMMANDS if command.startswith("unetseg")])
def test_commands_parse(command: str) -> None:
    _parser().parse_args(shlex.split(command)[1:])


@pytest.mark.parametrize("command", [command for command in COMMANDS if command.startswith("make")])
def test_targets_of_make_exist(command: str) -> None:
    subprocess.run(["make", "-n", *command.split()[1:]], cwd=ROOT, check=True, capture_output=True)


def test_there_are_commands_to_check() -> None:
    assert {"make demo", "make test", "unetseg models"} <= set(COMMANDS)


@pytest.mark.parametrize("block", _blocks("python"))
def test_examples_run(block: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "Resources").symlink_to(ROOT / "Resources")
    monkeypatch.chdir(tmp_path)
    exec(compile(block, "README.md", "exec"), {})
    assert read_labelmap("result.seg.nrrd").array.any()


def test_there_is_an_example() -> None:
    assert len(_blocks("python")) == 1


def test_versions_agree() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["version"] == __version__
    assert re.search(r"^## \[(Unreleased|" + re.escape(__version__) + r")\]", (ROOT / "CHANGELOG.md").read_text(), re.M)
