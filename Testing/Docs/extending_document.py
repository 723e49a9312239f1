"""docs/EXTENDING.md: the files that each kind of change affects, read from the sources."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from markdown_table import table

from UNetSegmentationLib.core.registry import Registry

ROOT = Path(__file__).resolve().parents[2]
LIBRARY = ROOT / "UNetSegmentationLib"
PANEL = ROOT / "UNetSegmentation/UNetSegmentationPanel"
# Kind of entry, folder of its registry, and the document to regenerate for a new entry.
ENTRIES = (
    ("network", "networks", "docs/NETWORKS.md"),
    ("modality preset", "presets", ""),
    ("loss", "losses", "docs/NETWORKS.md"),
    ("post-processing step", "postprocess", "docs/NETWORKS.md"),
    ("backend", "backends", ""),
    ("importer", "importers", ""),
    ("set of conventions", "conventions", ""),
    ("sub-command", "commands", ""),
)

INTRODUCTION = """\
# Files affected by a change

This file is generated from the sources by `python Testing/Docs/make_tables.py`; a test fails if it is out of date.

A new registry entry is a single file; the registry finds it by scanning the folder. The third column counts the
existing entries that no other file of the extension or the library imports. The others are imported by files that
build on them, which a new entry does not require."""

OPERATIONS_TEXT = """\
An operation of the worker consists of two files in the library and, if the panel uses it, a job and the section
that starts it. These files use the messages of each operation."""

SECTIONS_TEXT = """\
A section of the panel is one file and a line in the list in `panel.py`. New widgets are added to the form, and
settings to be stored are added to the parameter node."""


def document() -> str:
    """Return the text of the file."""
    parts = [INTRODUCTION, _entry_table(), "## Operations of the worker", OPERATIONS_TEXT, _operation_table()]
    parts += ["## Sections of the panel", SECTIONS_TEXT, _section_table()]
    return "\n\n".join(parts) + "\n"


def operations() -> dict[str, list[str]]:
    """Return the files that each operation of the worker consists of, relative to the repository."""
    names = [path.stem for path in sorted((LIBRARY / "protocol").glob("*.py"))]
    files = {}
    for name in names:
        if name == "__init__" or not (LIBRARY / f"worker/{name}.py").is_file():
            continue
        own = [LIBRARY / f"protocol/{name}.py", LIBRARY / f"worker/{name}.py"]
        users = [path for path in _sources(PANEL / "jobs") if f"UNetSegmentationLib.protocol.{name}" in _imports(path)]
        files[name] = [path.relative_to(ROOT).as_posix() for path in (*own, *users)]
    return files


def sections() -> dict[str, list[str]]:
    """Return the files that refer to the module of each panel section, including itself."""
    return {
        path.stem: sorted(
            other.relative_to(ROOT).as_posix()
            for other in _sources(PANEL)
            if other == path or f"UNetSegmentationPanel.sections.{path.stem}" in _imports(other)
        )
        for path in sorted((PANEL / "sections").glob("*_section.py"))
    }


def others_that_import(folder: str) -> dict[str, set[str]]:
    """Return, for each entry in a registry's folder, the other files that import it."""
    found = {}
    for name, module in _modules(folder).items():
        users = (path for path in (*_sources(LIBRARY), *_sources(PANEL)) if module in _imports(path))
        own = LIBRARY / folder / module.rpartition(".")[2]
        found[name] = {
            path.relative_to(ROOT).as_posix()
            for path in users
            if not path.is_relative_to(own) and path.stem != own.stem
        }
    return found


def _entry_table() -> str:
    rows = []
    for kind, folder, generated in ENTRIES:
        users = others_that_import(folder)
        alone = sum(not files for files in users.values())
        file = f"`UNetSegmentationLib/{folder}/<name>.py`"
        rows.append([kind, f"{file}{', or a folder' if folder == 'importers' else ''}", f"{alone} of {len(users)}"])
        rows[-1].append(f"`{generated}`" if generated else "")
    return table(["new entry", "file", "entries that no other file imports", "document to regenerate"], rows)


def _operation_table() -> str:
    rows = [[f"`{name}`", str(len(files)), ", ".join(f"`{f}`" for f in files)] for name, files in operations().items()]
    return table(["operation", "count", "files"], rows, right=[1])


def _section_table() -> str:
    rows = [[f"`{name}`", str(len(files)), ", ".join(f"`{f}`" for f in files)] for name, files in sections().items()]
    return table(["section", "count", "files"], rows, right=[1])


def _modules(folder: str) -> dict[str, str]:
    """Return the module of each entry of a registry."""
    registry: Registry[object] = Registry("entry", f"UNetSegmentationLib.{folder}")
    modules = {}
    for path in sorted([*(LIBRARY / folder).glob("*.py"), *(LIBRARY / folder).glob("*/__init__.py")]):
        name = path.parent.name if path.name == "__init__.py" else path.stem
        if name not in ("contract", folder) and any(_registers(path)):
            modules[name] = f"{registry.package}.{name}"
    return modules


def _registers(path: Path) -> Iterator[bool]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "register":
            yield True


def _sources(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.rglob("*.py")) if "__pycache__" not in path.parts]


@cache
def _imports(path: Path) -> frozenset[str]:
    """Return the absolute names of all modules that a source file imports."""
    base = PANEL.parent if path.is_relative_to(PANEL) else ROOT
    package = path.parent.relative_to(base).parts
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            start = package[: len(package) - node.level + 1] if node.level else ()
            origin = ".".join([*start, *([node.module] if node.module else [])])
            found |= {origin, *(f"{origin}.{alias.name}" for alias in node.names)}
    return frozenset(found)
