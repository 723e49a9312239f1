"""A table of named entries, one file (or folder) per entry, found by scanning a package."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import pkgutil
import re
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import TypeVar

from .errors import InputError

Entry = TypeVar("Entry")


class Registry(Mapping[str, Entry]):
    """Named entries of one kind.

    Looking up a name imports only the module that declares it; anything that needs all entries, such as iteration,
    imports every module of `package`.

    Args:
        kind: What an entry is, in the singular, for messages: "network".
        package: Full name of the package whose modules register the entries.
    """

    def __init__(self, kind: str, package: str) -> None:
        self.kind = kind
        self.package = package
        self._entries: dict[str, Entry] = {}
        self._titles: dict[str, str] = {}
        self._is_scanned = False

    def register(self, name: str, *, title: str) -> Callable[[Entry], Entry]:
        """Return a decorator that registers its argument under `name`.

        Args:
            name: Identifier in files and on the command line.
            title: Display name. Both must be literals, so that `declared` can read them without importing.

        Raises:
            ValueError: The name is taken.
        """

        def enter(entry: Entry) -> Entry:
            if name in self._entries:
                raise ValueError(f"{self.kind} '{name}' is registered twice: rename one of the two")
            self._entries[name] = entry
            self._titles[name] = title
            return entry

        return enter

    def __getitem__(self, name: str) -> Entry:
        if name not in self:
            known = ", ".join(sorted(self._entries))
            raise InputError(f"unknown {self.kind} '{name}': choose one of {known}")
        return self._entries[name]

    def __contains__(self, name: object) -> bool:
        if name not in self._entries and not self._is_scanned:
            self._import_declaring(name)
        if name not in self._entries:
            self._scan()
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        self._scan()
        return iter(sorted(self._entries))

    def __len__(self) -> int:
        self._scan()
        return len(self._entries)

    def title(self, name: str) -> str:
        """Return the display name of entry `name`."""
        self[name]
        return self._titles[name]

    @cached_property
    def declared(self) -> dict[str, str]:
        """Names and titles, read from the sources without importing them (the panel must not import torch)."""
        return {name: title for name, (title, _) in self._sources.items()}

    @cached_property
    def summaries(self) -> dict[str, str]:
        """Names and the first docstring line of each entry's file, read like `declared`."""
        return {name: summary for name, (_, summary) in self._sources.items()}

    @cached_property
    def _sources(self) -> dict[str, tuple[str, str]]:
        names: dict[str, tuple[str, str]] = {}
        for path in (path for folder in self._folders() for path in _sources_in(folder)):
            names.update(_declared_in(path.read_text(encoding="utf-8")))
        return names

    def _folders(self) -> list[Path]:
        """Return the package's folders, without importing it or its parents."""
        top, *inner = self.package.split(".")
        specification = importlib.util.find_spec(top)
        folders = (specification.submodule_search_locations or []) if specification else []
        return [Path(folder, *inner) for folder in folders]

    def _import_declaring(self, name: object) -> None:
        """Import the module that declares an entry, or all modules that claim its name."""
        # Not parsed: that would take longer than importing the whole package.
        call = re.compile(rf"""\.register\(\s*["']{re.escape(str(name))}["']""")
        for folder in self._folders():
            for path in _sources_in(folder):
                if call.search(path.read_text(encoding="utf-8")):
                    parts = path.relative_to(folder).with_suffix("").parts
                    importlib.import_module(".".join([self.package, *(part for part in parts if part != "__init__")]))

    def _scan(self) -> None:
        if self._is_scanned:
            return
        package = importlib.import_module(self.package)
        for module in pkgutil.iter_modules(package.__path__):
            # A folder is an entry if its own __init__ registers it; other folders hold shared code.
            if not module.ispkg or self._is_entry(module.name):
                importlib.import_module(f"{self.package}.{module.name}")
        # Only now: if a module cannot be imported, the next look-up must fail as well instead of missing its entry.
        self._is_scanned = True

    def _is_entry(self, folder: str) -> bool:
        faces = (path / folder / "__init__.py" for path in self._folders())
        return any(_declared_in(face.read_text(encoding="utf-8")) for face in faces if face.is_file())


def _sources_in(folder: Path) -> list[Path]:
    """Return the files that may register entries: the modules of a package and the __init__ files of its folders."""
    return sorted([*folder.glob("*.py"), *folder.glob("*/__init__.py")])


def _declared_in(source: str) -> dict[str, tuple[str, str]]:
    """Return {name: (title, first line of the file)} of the `register` calls in a source."""
    names: dict[str, tuple[str, str]] = {}
    if ".register(" not in source:
        return names
    tree = ast.parse(source)
    summary = (ast.get_docstring(tree) or "").partition("\n")[0]
    for node in ast.walk(tree):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "register"):
            continue
        title = next((keyword.value for keyword in node.keywords if keyword.arg == "title"), None)
        if node.args and isinstance(node.args[0], ast.Constant) and isinstance(title, ast.Constant):
            names[str(node.args[0].value)] = (str(title.value), summary)
    return names
