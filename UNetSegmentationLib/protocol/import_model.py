"""Import of a model: what the panel asks for, and the worker's answer."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from ..core.errors import InputError


@dataclass(frozen=True, kw_only=True)
class ImportRequest:
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

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> ImportRequest:
        """Return the request of a JSON object."""
        for name in cls.__dataclass_fields__:
            if not isinstance(values.get(name), str) or not values[name]:
                raise InputError(f"{name} of the import request is {values.get(name)!r}: give a path")
        return cls(**{name: values[name] for name in cls.__dataclass_fields__})


@dataclass(frozen=True, kw_only=True)
class ImportResult:
    """Where an imported model lies.

    Attributes:
        folder: Its model folder.
        warnings: Sentences for the user.
    """

    folder: str
    warnings: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> ImportResult:
        """Return the result of a JSON object."""
        return cls(folder=str(values["folder"]), warnings=tuple(map(str, values["warnings"])))
