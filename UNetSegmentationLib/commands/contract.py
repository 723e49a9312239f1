"""What a sub-command is: the options that it takes and a function that does it."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from dataclasses import dataclass
from typing import TextIO

from ..registry import Registry

DONE, FAULT, INPUT, INTERRUPTED = 0, 1, 2, 130


@dataclass(frozen=True, kw_only=True)
class Command:
    """A sub-command; its module must not load torch when it is imported.

    Attributes:
        add_arguments: Adds its options to a parser.
        run: Does it and returns the exit code; what it was asked for goes to the stream, and whatever libraries print
            meanwhile goes to standard error.
        description: What it does, in a sentence or two.
    """

    add_arguments: Callable[[ArgumentParser], None]
    run: Callable[[Namespace, TextIO], int]
    description: str


COMMANDS: Registry[Command] = Registry("command", "UNetSegmentationLib.commands")


def add_device_argument(parser: ArgumentParser) -> None:
    """Add --device to a parser."""
    parser.add_argument(
        "--device", default="auto", metavar="NAME", help="auto (the fastest, the default), cpu, cuda, cuda:1 or mps"
    )
