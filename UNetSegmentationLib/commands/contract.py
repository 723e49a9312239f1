"""What a sub-command is: its options and the function that runs it."""

from __future__ import annotations

import textwrap
from argparse import ArgumentParser, HelpFormatter, Namespace
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TextIO

from ..core.registry import Registry

DONE, FAULT, INPUT, INTERRUPTED = 0, 1, 2, 130


@dataclass(frozen=True, kw_only=True)
class Command:
    """A sub-command; printing its help imports its module, which must therefore not load torch, scipy or SimpleITK.

    Attributes:
        add_arguments: Adds its options to a parser.
        run: Runs it and returns the exit code; its output goes to the stream, anything that libraries print goes to
            standard error.
        description: A sentence or two for the help.
    """

    add_arguments: Callable[[ArgumentParser], None]
    run: Callable[[Namespace, TextIO], int]
    description: str


COMMANDS: Registry[Command] = Registry("command", "UNetSegmentationLib.commands")


class _TableFormatter(HelpFormatter):
    """Wraps paragraphs as usual, and the second column of indented lines within that column."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        lines = []
        for line in text.split("\n"):
            if not line.startswith("  "):
                lines.append(super()._fill_text(line, width, indent))
                continue
            name, _, rest = line.strip().partition("\t")
            column = " " * _SECOND_COLUMN
            first = f"  {name}".ljust(_SECOND_COLUMN)
            lines.append(textwrap.fill(rest, width, initial_indent=first, subsequent_indent=column))
        return "\n".join(lines)


_SECOND_COLUMN = 26


def add_tables(parser: ArgumentParser, tables: Mapping[str, Mapping[str, str]]) -> None:
    """Append tables to a command's help: under each heading, names with a one-line explanation."""
    parser.formatter_class = _TableFormatter
    parts = []
    for heading, rows in tables.items():
        parts += ["", heading, *(f"  {name}\t{text.rstrip('.')}" for name, text in sorted(rows.items()))]
    parser.epilog = "\n".join(parts[1:])


def add_quiet_argument(parser: ArgumentParser) -> None:
    """Add --quiet to a parser."""
    parser.add_argument("--quiet", action="store_true", help="suppress progress output")


def add_channels_argument(parser: ArgumentParser) -> None:
    """Add --channels to a parser."""
    parser.add_argument(
        "--channels",
        metavar="NAME",
        nargs="+",
        default=(),
        help="names of the channels in order, such as CT PET T1 (default: from dataset.json)",
    )


def add_device_argument(parser: ArgumentParser) -> None:
    """Add --device to a parser."""
    parser.add_argument(
        "--device",
        default="auto",
        metavar="NAME",
        help="auto (the fastest available; default), cpu, cuda, cuda:1 or mps",
    )


def add_backend_argument(parser: ArgumentParser) -> None:
    """Add --backend to a parser."""
    # Not imported: the backends load torch.
    known = ", ".join(Registry("backend", "UNetSegmentationLib.backends").declared)
    parser.add_argument(
        "--backend",
        metavar="NAME",
        help=f"backend to use instead of the fastest one validated on this machine: {known}",
    )
