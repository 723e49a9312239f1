"""A table of named entries, one file (or one folder) an entry, found by scanning a package."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import pkgutil
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import TypeVar

from .errors import InputError

Entry = TypeVar("Entry")


class Registry(Mapping[str, Entry]):
    """Named entries of one kind; every module of `package` is imported at the first look-up.

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
        """Return a decorator that enters its argument under `name`.

        Args:
            name: Identifier in files and on the command line.
            title: Name shown to people. Both must be literals, so that `declared` can read them without importing.

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
        self._scan()
        try:
            return self._entries[name]
        except KeyError:
            known = ", ".join(sorted(self._entries))
            raise InputError(f"unknown {self.kind} '{name}': choose one of {known}") from None

    def __contains__(self, name: object) -> bool:
        self._scan()
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        self._scan()
        return iter(sorted(self._entries))

    def __len__(self) -> int:
        self._scan()
        return len(self._entries)

    def title(self, name: str) -> str:
        """Return the title shown for entry `name`."""
        self[name]
        return self._titles[name]

    @cached_property
    def declared(self) -> dict[str, str]:
        """Names and titles read from the sources without importing them (the panel must not import torch)."""
        return {name: title for name, (title, _) in self._sources.items()}

    @cached_property
    def summaries(self) -> dict[str, str]:
        """Names and the first line of the file that declares each, read like `declared`."""
        return {name: summary for name, (_, summary) in self._sources.items()}

    @cached_property
    def _sources(self) -> dict[str, tuple[str, str]]:
        specification = importlib.util.find_spec(self.package)
        folders = (specification.submodule_search_locations or []) if specification else []
        names: dict[str, tuple[str, str]] = {}
        for folder in folders:
            for path in sorted([*Path(folder).glob("*.py"), *Path(folder).glob("*/__init__.py")]):
                names.update(_declared_in(path))
        return names

    def _scan(self) -> None:
        if self._is_scanned:
            return
        package = importlib.import_module(self.package)
        for module in pkgutil.iter_modules(package.__path__):
            # A folder is an entry where its own __init__ registers it; any other holds what entries share.
            if not module.ispkg or self._is_entry(module.name):
                importlib.import_module(f"{self.package}.{module.name}")
        # Only now: after a module that cannot be imported, the next look-up must fail as well, not miss its entry.
        self._is_scanned = True

    def _is_entry(self, folder: str) -> bool:
        return any(
            _declared_in(path / folder / "__init__.py")
            for path in map(Path, importlib.import_module(self.package).__path__)
        )


def _declared_in(path: Path) -> dict[str, tuple[str, str]]:
    """Return {name: (title, first line of the file)} of the `register` calls in one source file."""
    names: dict[str, tuple[str, str]] = {}
    tree = ast.parse(path.read_text(encoding="utf-8"))
    summary = (ast.get_docstring(tree) or "").partition("\n")[0]
    for node in ast.walk(tree):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "register"):
            continue
        title = next((keyword.value for keyword in node.keywords if keyword.arg == "title"), None)
        if node.args and isinstance(node.args[0], ast.Constant) and isinstance(title, ast.Constant):
            names[str(node.args[0].value)] = (str(title.value), summary)
    return names
