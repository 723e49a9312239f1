"""Errors with messages for the user."""


class InputError(ValueError):
    """The user's input cannot be used; the message says what was given, what is allowed and what to do.

    The command line prints it as one line and exits with 2; the worker sends it as an `error` event of kind "input".
    """


class CancelledError(RuntimeError):
    """The user cancelled the running job."""
