"""Sub-commands of the command line, one file each."""

from .contract import COMMANDS, Command

__all__ = ["COMMANDS", "Command"]
