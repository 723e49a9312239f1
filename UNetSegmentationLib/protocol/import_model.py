"""Import of a model: what the panel asks for, and the worker's answer."""

from __future__ import annotations

from dataclasses import dataclass

from .message import Message


@dataclass(frozen=True, kw_only=True)
class ImportRequest(Message):
    """Bring a model into a folder of models.

    Attributes:
        path: Folder or zip archive of the model.
        models: Folder of models.
        incoming: Folder to work in, beside the models; made and removed by the worker, and after its death by whoever
            asked.
    """

    path: str
    models: str
    incoming: str

    def __post_init__(self) -> None:
        for name in ("path", "models", "incoming"):
            self.require(bool(getattr(self, name)), f"{name} is empty: give a path")


@dataclass(frozen=True, kw_only=True)
class ImportResult(Message):
    """Where an imported model lies.

    Attributes:
        folder: Its model folder.
        warnings: Sentences for the user.
    """

    folder: str
    warnings: tuple[str, ...] = ()
