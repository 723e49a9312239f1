"""Collect the library's user-visible messages for the worker and for the panel's translators.

    python Testing/Docs/make_messages.py [--check]

UNetSegmentationLib/core/messages.json lists the templates; the panel's worker_messages.py marks them for translation.
"""

from __future__ import annotations

import argparse
import ast
import json
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LIBRARY = ROOT / "UNetSegmentationLib"
CATALOGUE = LIBRARY / "core/messages.json"
FOR_TRANSLATORS = ROOT / "UNetSegmentation/UNetSegmentationPanel/background/worker_messages.py"
# These messages appear only on the command line.
OTHERS = ("commands", "benchmark", "cli.py", "__main__.py")

HEADER = '''"""What the worker says, in the language of the application. Written by Testing/Docs/make_messages.py."""

from slicer.i18n import tr as _

from UNetSegmentationLib.core.messages import fill
from UNetSegmentationLib.protocol.lines import SENTENCES


def inLanguage(template):
    """Return a template in the language of the application; Slicer looks it up under the file that calls `_`."""
    return _(template)


def translate(message):
    """Return a worker's message with its sentences in the language of the application."""
    said = message.get("said", {})

    def say(text):
        return fill(said[text], inLanguage) if text in said else text

    translated = {key: value for key, value in message.items() if key != "said"}
    for key in SENTENCES:
        value = translated.get(key)
        if isinstance(value, str):
            translated[key] = say(value)
        elif isinstance(value, list):
            translated[key] = [say(text) if isinstance(text, str) else text for text in value]
    return translated


# Every template, marked for translation.
# fmt: off
TEMPLATES = (
'''


def main() -> int:
    """Write the files, or with --check only check whether they are up to date."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 if a file is out of date")
    is_check = parser.parse_args().check
    found = sorted({template for path in _sources() for template in templates_in(path.read_text(encoding="utf-8"))})
    marked = "".join(f"    _({json.dumps(template, ensure_ascii=False)}),\n" for template in found)
    texts = {
        CATALOGUE: json.dumps(found, indent=0, ensure_ascii=False) + "\n",
        FOR_TRANSLATORS: f"{HEADER}{marked})\n",
    }
    for path, text in texts.items():
        if is_check and not (path.is_file() and path.read_text(encoding="utf-8") == text):
            return 1
        if not is_check:
            path.write_text(text, encoding="utf-8")
    return 0


def templates_in(source: str) -> Iterator[str]:
    """Yield the templates of the sentences in a source file."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        for text in _sentences_of(node):
            template = _template_of(text)
            if template:
                yield template


def _sentences_of(call: ast.Call) -> Iterator[ast.expr]:
    """Yield the arguments of a call that are sentences for the user."""
    function = call.func
    name = _name_of(function)
    is_warning = isinstance(function, ast.Attribute) and name == "append" and _name_of(function.value) == "warnings"
    places = {"InputError": 0, "sentence": 0, "stage": 0, "append": 0, "_refuse": 1, "_error": 2}
    if name in places and (name != "append" or is_warning):
        arguments = call.args[places[name] : places[name] + 1]
    elif name in ("require", "progress", "check") and call.args:
        arguments = call.args[-1:]
    else:
        arguments = []
    for argument in arguments:
        yield from (argument.body, argument.orelse) if isinstance(argument, ast.IfExp) else (argument,)


def _name_of(node: ast.expr) -> str:
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""


def _template_of(text: ast.expr) -> str:
    """Return the template of a literal, with equal f-string values numbered alike; empty for anything else."""
    if isinstance(text, ast.Constant) and isinstance(text.value, str):
        return " ".join(text.value.split())
    if not isinstance(text, ast.JoinedStr):
        return ""
    numbers: dict[str, int] = {}
    parts = []
    for part in text.values:
        if isinstance(part, ast.Constant):
            parts.append(str(part.value))
        else:
            parts.append(f"{{{numbers.setdefault(ast.unparse(part), len(numbers))}}}")
    return "".join(parts)


def _sources() -> list[Path]:
    return [path for path in sorted(LIBRARY.rglob("*.py")) if path.relative_to(LIBRARY).parts[0] not in OTHERS]


if __name__ == "__main__":
    sys.exit(main())
