"""The command line: `unetseg`, also `python -m UNetSegmentationLib`.

Exit codes: 0 done, 1 a fault of ours, 2 the user's input is wrong, 130 interrupted.
"""

from __future__ import annotations

import os
import re
import sys
import traceback
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from contextlib import redirect_stdout
from typing import NoReturn, TextIO

from . import __version__
from .commands import COMMANDS
from .commands.parts.terminal import explain, warn, write_json
from .core.errors import InputError
from .core.process_environment import settle_environment

BROKEN_PIPE = 141  # as a shell reports a program that SIGPIPE ended


class _Parser(ArgumentParser):
    """A parser that says what is wrong in one line, as every other error is said."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message}; see '{self.prog} --help'")


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit code.

    Args:
        argv: Arguments without the program's name; those of the process by default.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    settle_environment()
    out = sys.stdout
    for stream in (out, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # a file name may hold what the terminal cannot show
    try:
        status = _answer(words, out)
        out.flush()
    except BrokenPipeError:
        # Python flushes once more at its end and would complain there.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.__stdout__.fileno() if sys.__stdout__ else 1)
        return BROKEN_PIPE
    return status


def _answer(words: Sequence[str], out: TextIO) -> int:
    """Run a command line; what goes wrong is said in one line, and in the document where one was asked for."""
    try:
        return _run(_parser().parse_args(_with_values_joined(words)), out)
    except BrokenPipeError:
        raise
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001  # the last place that can say what went wrong
        status, sentence = explain(error)
        if "--debug" in words:
            traceback.print_exc()
        warn(sentence)
        if "--json" in words:  # every command writes its own document last: there is none yet
            write_json(out, {"errors": [{"name": words[0], "message": sentence}]})
        return status


def _run(arguments: Namespace, out: TextIO) -> int:
    # Standard output carries the answer alone; what a library prints goes to standard error.
    with redirect_stdout(sys.stderr):
        return COMMANDS[arguments.command].run(arguments, out)


def _parser() -> ArgumentParser:
    parser = _Parser(
        prog="unetseg",
        description="Segment medical images with networks of the U-Net family, train and measure them.",
        epilog="Exit codes: 0 done, 1 a fault of unetseg, 2 wrong input (one line on standard error says what).",
    )
    parser.add_argument("--version", action="version", version=f"unetseg {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name in COMMANDS:
        command = COMMANDS[name]
        sub_parser = commands.add_parser(name, help=COMMANDS.title(name), description=command.description)
        sub_parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
        command.add_arguments(sub_parser)
    return parser


def _with_values_joined(words: Sequence[str]) -> list[str]:
    """Join "--roi" and "-10,5,3,..." by "=", and mark "-,T2.nii" with a blank: argparse takes both for options."""
    joined: list[str] = []
    for word in words:
        if re.match(r"-[\d.]", word) and joined and re.fullmatch(r"--[a-z-]+", joined[-1]):
            joined[-1] += f"={word}"
        else:
            joined.append(f" {word}" if word.startswith("-,") else word)
    return joined


if __name__ == "__main__":
    sys.exit(main())
