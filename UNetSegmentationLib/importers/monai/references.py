"""The configuration of a MONAI bundle read as data: references are resolved, and no expression is ever executed."""

from __future__ import annotations

import ast
import json
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...core.errors import InputError

_REFERENCE = re.compile(r"@[\w]+(?:(?:#|::)[\w]+)*")
_LONGEST_EXPRESSION = 2_000
_LONGEST_LIST = 10_000
_CONSTANTS = {f"monai.utils.CommonKeys.{name.upper()}": name for name in ("image", "label", "pred", "loss")}
_FUNCTIONS: dict[str, Callable[..., Any]] = {"len": len, "int": int, "float": float, "list": list, "tuple": tuple}
_WRAPPERS = ("to", "cuda", "cpu", "eval")  # of a network: they change where and how it runs, not its definition
_OPERATORS: dict[type[ast.AST], Callable[..., Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.USub: operator.neg,
    ast.Not: operator.not_,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.Gt: operator.gt,
}


@dataclass(frozen=True)
class Code:
    """An expression that cannot be evaluated as data; readers that need its value report its text."""

    text: str


class _NotUnderstood(Exception):
    """The expression is more than data."""


class BundleConfiguration:
    """The content of a bundle's configuration file.

    Args:
        values: Content of the file.
        name: File name, for messages.
    """

    def __init__(self, values: Mapping[str, Any], name: str) -> None:
        self._values = values
        self._name = name
        self._resolved: dict[str, Any] = {}
        self._open: list[str] = []

    def __contains__(self, key: str) -> bool:
        return key in self._values

    def get(self, key: str) -> Any:
        """Return the entry `key`, such as "network_def" or "sizes::0", with references resolved, or None.

        Raises:
            InputError: A reference is missing, external or circular.
        """
        path = key.replace("::", "#")
        if path in self._resolved:
            return self._resolved[path]
        if path in self._open:
            circle = ", ".join(self._open)
            raise InputError(f"{self._name}: the entries {circle} refer to each other in a circle: fix the bundle")
        self._open.append(path)
        try:
            self._resolved[path] = self._followed(self._raw(path))
        finally:
            self._open.pop()
        return self._resolved[path]

    def _raw(self, path: str) -> Any:
        value: Any = self._values
        for position, part in enumerate(path.split("#")):
            if isinstance(value, str) and position:
                value = self.get("#".join(path.split("#")[:position]))
            if isinstance(value, Mapping):
                value = value.get(part)
            elif isinstance(value, list) and part.isdigit() and int(part) < len(value):
                value = value[int(part)]
            else:
                value = None
        return value

    def _referred(self, path: str) -> Any:
        value = self.get(path)
        if value is None and self._raw(path.replace("::", "#")) is None:
            raise InputError(f"{self._name} refers to '{path}', which is missing: copy the whole bundle")
        return value

    def _followed(self, value: Any) -> Any:
        if isinstance(value, Mapping):
            return {str(key): self._followed(entry) for key, entry in value.items()}
        if isinstance(value, list):
            return [self._followed(entry) for entry in value]
        if not isinstance(value, str):
            return value
        if value.startswith("%"):
            if not re.fullmatch(r"%\w+(?:(?:#|::)\w+)*", value):
                raise InputError(f"{self._name} takes '{value}' from another file: put it into the same file")
            return self._referred(value[1:])
        if value.startswith("$"):
            return self._calculated(value)
        return self._referred(value[1:]) if _REFERENCE.fullmatch(value) else value

    def _calculated(self, text: str) -> Any:
        """Return the value of an expression of plain data, or Code if it is more than that."""
        if len(text) > _LONGEST_EXPRESSION:
            return Code(text)
        paths: dict[str, str] = {}

        def named(match: re.Match[str]) -> str:
            name = f"reference_{len(paths)}"
            paths[name] = match.group()[1:]
            return name

        try:
            tree = ast.parse(_REFERENCE.sub(named, text[1:].strip()), mode="eval")
            return self._evaluated(tree.body, paths)
        except (
            _NotUnderstood,
            SyntaxError,
            ValueError,
            TypeError,
            ArithmeticError,
            RecursionError,
            MemoryError,
        ) as error:
            if isinstance(error, InputError):
                raise
            return Code(text)

    def _evaluated(self, node: ast.expr, paths: Mapping[str, str]) -> Any:
        value = self._value_of(node, paths)
        if isinstance(value, str | list | tuple) and len(value) > _LONGEST_LIST:
            raise _NotUnderstood
        return list(value) if isinstance(value, tuple) else value

    # A table of node kinds, one line each.
    def _value_of(self, node: ast.expr, paths: Mapping[str, str]) -> Any:  # noqa: C901, PLR0911, PLR0912
        def plain(part: ast.expr) -> Any:
            value = self._evaluated(part, paths)
            if isinstance(value, Code):
                raise _NotUnderstood
            return value

        match node:
            case ast.Constant(value=None | bool() | int() | float() | str() as value):
                return value
            case ast.Name(id=name) if name in paths:
                return self._referred(paths[name])
            case ast.List(elts=parts) | ast.Tuple(elts=parts):
                return [plain(part) for part in parts]
            case ast.Dict(keys=keys, values=values) if all(key is not None for key in keys):
                return {str(plain(key)): plain(value) for key, value in zip(keys, values, strict=True) if key}
            case ast.IfExp(test=test, body=yes, orelse=no):
                return plain(yes) if plain(test) else plain(no)
            case ast.UnaryOp(op=op, operand=operand) if type(op) in _OPERATORS:
                return _OPERATORS[type(op)](plain(operand))
            case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
                return _OPERATORS[type(op)](plain(left), plain(right))
            case ast.BinOp(left=left, op=ast.Mult(), right=right):
                return _product(plain(left), plain(right))
            case ast.Compare(left=left, ops=[op], comparators=[right]) if type(op) in _OPERATORS:
                return _OPERATORS[type(op)](plain(left), plain(right))
            case ast.Call(func=ast.Name(id=name), args=[argument], keywords=[]) if name in _FUNCTIONS:
                return _FUNCTIONS[name](plain(argument))
            case ast.Call(func=ast.Attribute(value=inner, attr=name)) if name in _WRAPPERS:
                return self._evaluated(inner, paths)
            case ast.Attribute() if (dotted := ast.unparse(node)) in _CONSTANTS:
                return _CONSTANTS[dotted]
            case ast.Attribute(value=ast.Name(id="torch" | "numpy" | "np" as package), attr=attribute):
                return f"{package}.{attribute}"
        raise _NotUnderstood


def _product(left: Any, right: Any) -> Any:
    if not all(isinstance(value, int | float) for value in (left, right)):
        raise _NotUnderstood  # a repeated list or text could fill the memory
    return left * right


def read_configuration(path: Path) -> dict[str, Any]:
    """Return the content of a JSON or YAML file.

    Raises:
        InputError: It cannot be read, is not an object, or PyYAML is missing.
    """
    try:
        text = path.read_text(encoding="utf-8")
        values = json.loads(text) if path.suffix == ".json" else _yaml(text, path)
    except (OSError, ValueError, RecursionError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path} cannot be read ({error}): copy it again") from error
    if not isinstance(values, dict):
        raise InputError(f"{path} is not an object with entries: copy it again")
    return values


def _yaml(text: str, path: Path) -> Any:
    try:
        import yaml
    except ImportError as error:
        raise InputError(
            f"{path.name} is YAML, which needs the package PyYAML: install it, or save the file as JSON"
        ) from error
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        first_line = str(error).splitlines()[0]
        raise InputError(f"{path} cannot be read ({first_line}): copy it again") from error
