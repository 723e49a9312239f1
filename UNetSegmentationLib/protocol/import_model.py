"""Import of a model: request and result."""

from __future__ import annotations

from dataclasses import dataclass

from .message import Message


@dataclass(frozen=True, kw_only=True)
class ImportRequest(Message):
    """Import a model into a folder of models.

    Attributes:
        path: Folder or zip archive of the model.
        models: Folder of models.
        incoming: Temporary folder beside the models; created and removed by the worker, or removed by the client if the
            worker dies.
    """

    path: str
    models: str
    incoming: str

    def __post_init__(self) -> None:
        for name in ("path", "models", "incoming"):
            self.require(bool(getattr(self, name)), f"{name} is empty: give a path")


@dataclass(frozen=True, kw_only=True)
class ImportResult(Message):
    """The location of an imported model.

    Attributes:
        folder: Its model folder.
        warnings: Sentences for the user.
    """

    folder: str
    warnings: tuple[str, ...] = ()
