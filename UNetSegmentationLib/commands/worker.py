"""`unetseg worker`: the process that the panel keeps running."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import TextIO

from .contract import COMMANDS, DONE, Command


def _add_arguments(_parser: ArgumentParser) -> None:
    """Add nothing: it has no options."""


def _run(_arguments: Namespace, _out: TextIO) -> int:
    from ..worker.process import main

    main()
    return DONE


COMMANDS.register("worker", title="serve requests from standard input")(
    Command(
        add_arguments=_add_arguments,
        run=_run,
        description="Serve requests, one JSON object per line, until standard input is closed. The panel runs one "
        "worker.",
    )
)
