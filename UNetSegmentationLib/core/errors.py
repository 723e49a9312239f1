"""Errors that speak to the person at the keyboard."""

from __future__ import annotations

from .messages import Message


class InputError(ValueError):
    """The user's input cannot be used; the message says what came, what is allowed and what to do.

    The command line prints it as one line and exits with 2; the worker sends it as an `error` event of kind "input".

    Args:
        template: The sentence, with the names of values in braces where values are given.
        values: See messages.Message.
    """

    def __init__(self, template: str, /, **values: object) -> None:
        self.message = template if isinstance(template, Message) else Message(template, **values)
        super().__init__(str(self.message))


class CancelledError(RuntimeError):
    """The user cancelled the running job; nothing is wrong."""
