"""Who may import whom: the folders of the library and of the panel, and the wall between them."""

from __future__ import annotations

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LIBRARY = ROOT / "UNetSegmentationLib"
SLICER_SIDE = ROOT / "UNetSegmentation"
PANEL = SLICER_SIDE / "UNetSegmentationPanel"

# A folder imports itself and those before it.
CORE = ("core", "image", "presets", "planning", "models", "protocol", "cases")  # without torch
BUILDING_BLOCKS = ("networks", "losses", "augmentation", "postprocess", "backends", "conventions")
FLOWS = ("inference", "evaluation", "training", "finetuning", "interactive", "comparison", "importers")
ENTRY_POINTS = ("worker", "benchmark", "commands")
LIBRARY_FOLDERS = (*CORE, *BUILDING_BLOCKS, *FLOWS, *ENTRY_POINTS)
PANEL_FOLDERS = ("background", "scene", "choices", "jobs", "setup", "sections")
# At the top: the package's face and the command line, which import what they like.
LIBRARY_TOP = {"__init__", "__main__", "cli"}
PANEL_TOP = {"__init__", "panel", "self_test"}
# Their modules are entries, found by scanning, or the contract that entries keep; what entries share lies in `parts`.
REGISTRIES = ("presets", "networks", "losses", "postprocess", "backends", "importers", "commands")

SLICER_PACKAGES = {"slicer", "qt", "vtk", "ctk", "vtkmodules", "PythonQt", "mrml", "PySide6"}
TORCH_PACKAGES = {"torch", "torchvision", "monai"}


def _sources(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*.py") if "__pycache__" not in path.parts)


def _in_folders(top: Path, folders: tuple[str, ...]) -> list[Path]:
    return [path for folder in folders for path in _sources(top / folder)]


@cache
def _imports(path: Path) -> tuple[str, ...]:
    """Return every module that a source imports anywhere, relative names made absolute, names imported included."""
    base = SLICER_SIDE if path.is_relative_to(PANEL) else ROOT
    package = path.parent.relative_to(base).parts
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) - node.level + 1] if node.level else ()
            origin = ".".join([*start, *([node.module] if node.module else [])])
            found += [origin, *(f"{origin}.{alias.name}" for alias in node.names)]
    return tuple(found)


def _packages(path: Path) -> set[str]:
    return {name.split(".")[0] for name in _imports(path)}


def _folders_imported(path: Path, top: Path) -> set[str]:
    """Return the folders at the top of a package that a source imports."""
    split = (name.split(".") for name in _imports(path))
    names = {parts[1] for parts in split if parts[0] == top.name and len(parts) > 1}
    return {name for name in names if (top / name).is_dir()}


def _above(path: Path, top: Path, folders: tuple[str, ...]) -> set[str]:
    own = path.relative_to(top).parts[0]
    return _folders_imported(path, top) - set(folders[: folders.index(own) + 1])


def _id(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize(
    ("top", "folders", "modules"),
    [(LIBRARY, LIBRARY_FOLDERS, LIBRARY_TOP), (PANEL, PANEL_FOLDERS, PANEL_TOP)],
    ids=["library", "panel"],
)
def test_every_module_lies_in_a_folder_of_the_table(top: Path, folders: tuple[str, ...], modules: set[str]) -> None:
    assert {path.stem for path in top.glob("*.py")} == modules
    found = {path.parent.name for path in top.glob("*/__init__.py")}
    assert found <= set(folders), f"{sorted(found - set(folders))} of {top.name}: give each its place in {__file__}"


@pytest.mark.parametrize("path", _in_folders(LIBRARY, LIBRARY_FOLDERS), ids=_id)
def test_library_imports_downward_only(path: Path) -> None:
    above = _above(path, LIBRARY, LIBRARY_FOLDERS)
    assert not above, f"{_id(path)} imports {sorted(above)}, which stand above it"


@pytest.mark.parametrize("path", _in_folders(PANEL, PANEL_FOLDERS), ids=_id)
def test_panel_imports_downward_only(path: Path) -> None:
    above = _above(path, PANEL, PANEL_FOLDERS)
    assert not above, f"{_id(path)} imports {sorted(above)}, which stand above it"


@pytest.mark.parametrize("path", _sources(LIBRARY), ids=_id)
def test_library_knows_nothing_of_slicer(path: Path) -> None:
    assert not _packages(path) & (SLICER_PACKAGES | {"UNetSegmentation", "UNetSegmentationPanel"})


@pytest.mark.parametrize("path", _in_folders(LIBRARY, CORE), ids=_id)
def test_core_imports_no_torch(path: Path) -> None:
    assert not _packages(path) & TORCH_PACKAGES


@pytest.mark.parametrize("path", _sources(SLICER_SIDE), ids=_id)
def test_slicer_side_imports_core_only(path: Path) -> None:
    assert not _packages(path) & TORCH_PACKAGES
    above = _folders_imported(path, LIBRARY) - set(CORE)
    assert not above, f"{_id(path)} imports {sorted(above)}, which load torch into Slicer: ask the worker instead"


@pytest.mark.parametrize("folder", REGISTRIES)
def test_registries_hold_entries_and_their_contract_alone(folder: str) -> None:
    modules = {path.stem: path for path in (LIBRARY / folder).glob("*.py") if path.stem != "__init__"}
    modules |= {path.parent.name: path for path in (LIBRARY / folder).glob("*/__init__.py")}
    others = {
        name
        for name, path in modules.items()
        if name not in ("contract", "parts", "probabilities") and ".register(" not in path.read_text(encoding="utf-8")
    }
    assert not others, f"{sorted(others)} of {folder} register nothing: they belong in {folder}/parts"


def test_relative_imports_are_resolved() -> None:
    """Without this, a fault of the parser would pass every other test here."""
    assert {"UNetSegmentationLib.core.errors", "UNetSegmentationLib.core.registry"} <= set(
        _imports(LIBRARY / "presets/contract.py")
    )
    assert _folders_imported(LIBRARY / "networks/contract.py", LIBRARY) == {"core"}
    assert _folders_imported(PANEL / "panel.py", PANEL) >= {"jobs", "sections"}
    assert "torch" in _packages(LIBRARY / "networks/contract.py")


def test_core_leaves_torch_unloaded() -> None:
    modules = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for path in [LIBRARY / "__init__.py", *_in_folders(LIBRARY, CORE)]
    ]
    program = (
        "import importlib, sys\n"
        f"for name in {modules!r}: importlib.import_module(name.removesuffix('.__init__'))\n"
        f"print(*sorted({TORCH_PACKAGES | SLICER_PACKAGES!r} & set(sys.modules)))"
    )
    answer = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.strip() == ""
