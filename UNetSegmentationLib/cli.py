"""The command line: `unetseg`, also `python -m UNetSegmentationLib`.

Exit codes: 0 success, 1 internal error, 2 invalid input, 130 interrupted.
"""

from __future__ import annotations

import atexit
import os
import re
import sys
import threading
import traceback
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from contextlib import redirect_stdout, suppress
from typing import Any, NoReturn, TextIO

from . import __version__
from .commands import COMMANDS
from .commands.parts.terminal import explain, warn, write_json
from .core.errors import InputError
from .core.process_environment import settle_environment

BROKEN_PIPE = 141  # as a shell reports a program ended by SIGPIPE


class _Parser(ArgumentParser):
    """A parser that reports an error in one line, like every other error."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message}; see '{self.prog} --help'")


class _CommandParser(_Parser):
    """The parser of a command, whose module is imported only when the command is used, not to list all commands.

    Args:
        command: Name of the command.
        options: As of ArgumentParser.
    """

    def __init__(self, *, command: str, **options: Any) -> None:
        super().__init__(**options)
        self._command = command

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Import the command and parse its arguments."""
        if not self.description:
            command = COMMANDS[self._command]
            self.description = command.description
            self.add_argument("--debug", action="store_true", help="show the traceback of an error")
            command.add_arguments(self)
        return super().parse_known_args(args, namespace)


def enter() -> NoReturn:
    """Run the command line of this process, then end the process: the entry point of `unetseg`."""
    status = main()
    if not _may_leave_at_once():
        sys.exit(status)
    # Skip the interpreter's shutdown: freeing everything that torch has loaded takes a third of a second.
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(status)


def _may_leave_at_once() -> bool:
    """Return whether nothing needs the interpreter's shutdown: no profiler, debugger or thread with work to finish."""
    monitoring = getattr(sys, "monitoring", None)
    is_watched = bool(sys.gettrace() or sys.getprofile() or sys.flags.inspect) or (
        monitoring is not None and any(monitoring.get_tool(number) for number in range(6))
    )
    others = (thread for thread in threading.enumerate() if thread is not threading.current_thread())
    return not is_watched and all(thread.daemon for thread in others)


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
            stream.reconfigure(
                errors="backslashreplace"
            )  # a file name may contain characters that the terminal cannot show
    try:
        status = _answer(words, out)
        out.flush()
    except BrokenPipeError:
        # Python flushes once more at its end and would complain there.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.__stdout__.fileno() if sys.__stdout__ else 1)
        return BROKEN_PIPE
    return status


def _answer(words: Sequence[str], out: TextIO) -> int:
    """Run a command line; an error is reported in one line, and in the JSON document if one was requested."""
    try:
        return _run(_parser().parse_args(_with_values_joined(words)), out)
    except BrokenPipeError:
        raise
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001  # the last place to report an error
        status, sentence = explain(error)
        if "--debug" in words:
            traceback.print_exc()
        warn(sentence)
        if "--json" in words:  # commands write their document last, so none has been written yet
            write_json(out, {"errors": [{"name": words[0], "message": sentence}]})
        return status


def _run(arguments: Namespace, out: TextIO) -> int:
    # Standard output is for results only; anything that a library prints goes to standard error.
    with redirect_stdout(sys.stderr):
        return COMMANDS[arguments.command].run(arguments, out)


def _parser() -> ArgumentParser:
    parser = _Parser(
        prog="unetseg",
        description="Segment medical images with networks of the U-Net family; train and evaluate them.",
        epilog="Exit codes: 0 success, 1 internal error, 2 invalid input (explained in one line on standard "
        "error), 130 cancelled.",
    )
    parser.add_argument("--version", action="version", version=f"unetseg {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=_CommandParser)
    for name, title in sorted(COMMANDS.declared.items()):
        commands.add_parser(name, help=title, command=name)
    return parser


def _with_values_joined(words: Sequence[str]) -> list[str]:
    """Join "--roi" and "-10,5,3,..." with "=", and pad "-,T2.nii" with a space: argparse takes both for options."""
    joined: list[str] = []
    for word in words:
        if re.match(r"-[\d.]", word) and joined and re.fullmatch(r"--[a-z-]+", joined[-1]):
            joined[-1] += f"={word}"
        else:
            joined.append(f" {word}" if word.startswith("-,") else word)
    return joined


if __name__ == "__main__":
    enter()
