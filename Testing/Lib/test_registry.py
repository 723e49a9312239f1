"""The registry: what is registered is found, with and without importing it."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from UNetSegmentationLib.core.errors import InputError
from UNetSegmentationLib.core.registry import Registry
from UNetSegmentationLib.losses import LOSSES
from UNetSegmentationLib.networks import NETWORKS
from UNetSegmentationLib.postprocess import STEPS
from UNetSegmentationLib.presets import PRESETS

ROOT = Path(__file__).parents[2]
REGISTRIES = {"networks": NETWORKS, "losses": LOSSES, "postprocess": STEPS, "presets": PRESETS}


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a package `sweets` that holds a registry, and forget it afterwards."""
    folder = tmp_path / "sweets"
    folder.mkdir()
    lines = [
        '"""Sweets."""',
        "from UNetSegmentationLib.core.registry import Registry",
        'SWEETS: Registry[str] = Registry("sweet", "sweets")',
    ]
    (folder / "__init__.py").write_text("\n".join(lines), encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    yield folder
    for name in [name for name in sys.modules if name.split(".")[0] == "sweets"]:
        del sys.modules[name]


def _add_entry(folder: Path, file: str, *, name: str, title: str) -> None:
    source = f'from sweets import SWEETS\nSWEETS.register("{name}", title="{title}")("taste of {name}")\n'
    (folder / f"{file}.py").write_text(source, encoding="utf-8")


def _sweets() -> Registry[str]:
    from sweets import SWEETS

    return SWEETS


def _sweets_anew() -> Registry[str]:
    return Registry("sweet", "sweets")


def test_a_new_file_is_a_new_entry(package: Path) -> None:
    _add_entry(package, "toffee", name="toffee", title="Toffee")
    _add_entry(package, "another", name="fudge", title="Soft fudge")
    assert dict(_sweets()) == {"toffee": "taste of toffee", "fudge": "taste of fudge"}
    assert list(_sweets()) == ["fudge", "toffee"]
    assert _sweets().title("fudge") == "Soft fudge"
    assert len(_sweets()) == 2


def test_declared_reads_without_importing(package: Path) -> None:
    _add_entry(package, "toffee", name="toffee", title="Toffee")
    (package / "broken.py").write_text("import a_module_that_is_nowhere\n", encoding="utf-8")
    assert _sweets().declared == {"toffee": "Toffee"}
    source = (package / "toffee.py").read_text(encoding="utf-8")
    (package / "toffee.py").write_text(f'"""Sugar and butter.\n\nBoiled."""\n{source}', encoding="utf-8")
    assert _sweets_anew().summaries == {"toffee": "Sugar and butter."}
    assert "sweets.toffee" not in sys.modules


def test_membership_does_not_depend_on_a_look_up_before(package: Path) -> None:
    _add_entry(package, "toffee", name="toffee", title="Toffee")
    assert "toffee" in _sweets()
    assert "soup" not in _sweets()


def test_unknown_name_lists_the_known_ones(package: Path) -> None:
    _add_entry(package, "toffee", name="toffee", title="Toffee")
    _add_entry(package, "fudge", name="fudge", title="Fudge")
    with pytest.raises(InputError, match="unknown sweet 'soup': choose one of fudge, toffee"):
        _sweets()["soup"]
    with pytest.raises(InputError, match="unknown sweet 'soup'"):
        _sweets().title("soup")


def test_a_name_is_given_once(package: Path) -> None:
    _add_entry(package, "one", name="toffee", title="Toffee")
    _add_entry(package, "two", name="toffee", title="Toffee again")
    with pytest.raises(ValueError, match="sweet 'toffee' is registered twice"):
        len(_sweets())


def test_a_look_up_imports_the_one_module_that_declares_the_name(package: Path) -> None:
    _add_entry(package, "sweet", name="toffee", title="Toffee")
    _add_entry(package, "fudge", name="fudge", title="Fudge")
    (package / "broken.py").write_text("import a_package_that_there_is_not\n", encoding="utf-8")
    assert _sweets()["toffee"] == "taste of toffee"
    assert _sweets().title("toffee") == "Toffee"
    assert "sweets.sweet" in sys.modules
    assert "sweets.fudge" not in sys.modules


def test_a_folder_may_be_an_entry(package: Path) -> None:
    (package / "cake").mkdir()
    _add_entry(package / "cake", "__init__", name="cream_cake", title="Cream cake")
    (package / "shared").mkdir()
    (package / "shared" / "__init__.py").write_text("import a_package_that_there_is_not\n", encoding="utf-8")
    assert _sweets()["cream_cake"] == "taste of cream_cake"
    assert list(_sweets()) == ["cream_cake"]
    assert _sweets().declared == {"cream_cake": "Cream cake"}


def test_a_name_that_no_source_shows_is_found_by_importing_all(package: Path) -> None:
    source = 'from sweets import SWEETS\nfor name in ("jelly",):\n    SWEETS.register(name, title="Jelly")("wobbles")\n'
    (package / "many.py").write_text(source, encoding="utf-8")
    assert _sweets()["jelly"] == "wobbles"


def test_two_files_that_claim_one_name_are_told_at_its_look_up(package: Path) -> None:
    _add_entry(package, "one", name="toffee", title="Toffee")
    _add_entry(package, "two", name="toffee", title="Toffee again")
    with pytest.raises(ValueError, match="sweet 'toffee' is registered twice"):
        _sweets()["toffee"]


def test_declared_imports_not_even_the_package(package: Path) -> None:
    (package / "inner").mkdir()
    (package / "inner" / "__init__.py").write_text("", encoding="utf-8")
    _add_entry(package / "inner", "toffee", name="toffee", title="Toffee")
    assert Registry("sweet", "sweets.inner").declared == {"toffee": "Toffee"}
    assert "sweets" not in sys.modules


ALONE = """
import os
from UNetSegmentationLib.{module} import {table}
for name in {table}.declared:
    child = os.fork()
    if not child:
        {table}[name]
        os._exit(0 if not {table}._is_scanned else 3)
    assert os.waitpid(child, 0)[1] == 0, name
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs a system that copies processes")
@pytest.mark.parametrize(
    ("module", "table"),
    [
        ("backends", "BACKENDS"),
        ("commands", "COMMANDS"),
        ("importers", "IMPORTERS"),
        ("losses", "LOSSES"),
        ("networks", "NETWORKS"),
        ("postprocess", "STEPS"),
        ("postprocess.probabilities", "PROBABILITY_STEPS"),
        ("presets", "PRESETS"),
        ("worker.contract", "OPERATIONS"),
    ],
)
def test_each_entry_can_be_imported_alone(module: str, table: str) -> None:
    program = ALONE.format(module=module, table=table)
    answer = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr


def test_register_returns_what_it_decorates() -> None:
    registry: Registry[type] = Registry("thing", "nowhere")
    assert registry.register("thing", title="Thing")(Path) is Path


@pytest.mark.parametrize("kind", REGISTRIES)
class TestEveryRegistry:
    def test_is_not_empty(self, kind: str) -> None:
        assert len(REGISTRIES[kind]) > 0

    def test_declares_exactly_what_it_holds(self, kind: str) -> None:
        registry = REGISTRIES[kind]
        assert registry.declared == {name: registry.title(name) for name in registry}

    def test_each_entry_has_its_own_title(self, kind: str) -> None:
        titles = [REGISTRIES[kind].title(name) for name in REGISTRIES[kind]]
        assert len(set(titles)) == len(titles)
        assert all(title.strip() == title != "" for title in titles)

    def test_names_are_plain_identifiers(self, kind: str) -> None:
        assert all(name.isidentifier() and name == name.lower() for name in REGISTRIES[kind])

    def test_each_file_says_what_it_is(self, kind: str) -> None:
        folder = Path(__file__).parents[2] / "UNetSegmentationLib" / kind
        sources = [path.read_text(encoding="utf-8") for path in folder.glob("*.py")]
        assert all(ast.get_docstring(ast.parse(source)) for source in sources)


def test_a_module_that_cannot_be_imported_is_told_at_every_look_up(package: Path) -> None:
    _add_entry(package, "fudge", name="fudge", title="Fudge")
    (package / "toffee.py").write_text("import a_package_that_there_is_not\n", encoding="utf-8")
    for _ in range(2):
        with pytest.raises(ModuleNotFoundError, match="a_package_that_there_is_not"):
            list(_sweets())
