"""The model folder: model.json, weights.safetensors and CARD.md."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar
from unicodedata import combining, normalize

from ..core.errors import InputError
from ..core.files import write_text
from ..core.json_dataclass import OMITTED_AT_DEFAULT, JsonDataclass
from ..image.labels import Label
from ..planning.plan import Plan

SCHEMA_VERSION = 1
OUTPUTS = ("labels", "regions")
DESCRIPTION_FILE = "model.json"
WEIGHTS_FILE = "weights.safetensors"
CARD_FILE = "CARD.md"
PREVIOUS_FOLDER = "previous"
# Entry in the training record of demonstration models.
DEMONSTRATION = "is_demonstration"


@dataclass(frozen=True, kw_only=True)
class Channel(JsonDataclass):
    """Description of one input channel.

    Attributes:
        name: Short name.
        modality: DICOM modality of the channel.
        is_optional: Whether the channel may be missing. Training records here what the network accepts, so that torch
            is not needed to find out; the Predictor receives a missing channel as NaN.
    """

    name: str
    modality: str = ""
    is_optional: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name.strip():
            raise InputError(f"channel name {self.name!r} is not text: name what the channel shows, such as T1")


@dataclass(frozen=True, kw_only=True)
class PreviousStage(JsonDataclass):
    """The first stage of a cascade: a complete model in the folder `previous` of the model folder.

    Attributes:
        label_values: Its label values; for each of them the network has an extra channel, after those of the image,
            that is 1 where the label was found.
        weights_sha256: Checksum of its weights, as in its own description.
    """

    label_values: tuple[int, ...]
    weights_sha256: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "label_values", tuple(self.label_values))
        are_values = all(type(value) is int and value > 0 for value in self.label_values)
        if not self.label_values or not are_values or len(set(self.label_values)) != len(self.label_values):
            raise InputError(f"label_values of the previous stage are {self.label_values}: give whole numbers from 1")


@dataclass(frozen=True, kw_only=True)
class ModelDescription(JsonDataclass):
    """Everything about a model except its weights; the content of model.json.

    Attributes:
        id: Short identifier: lower-case letters, digits, hyphen, underscore.
        title: Display name.
        network: Registered name of the network.
        network_config: Options of the network, as JSON.
        plan: Geometry and intensities of its input.
        preset: Registered name of the modality preset.
        channels: The input channels, in order.
        labels: The labels that it segments.
        postprocess: Steps applied unless the user chooses others.
        training: Data, licence of the data, seed, steps, versions.
        figures: Metrics on unseen cases: {"cases": n, "labels": {name: {"dice": mean, ...}}}.
        licence: Licence of the weights.
        parent: Id of the model that it was fine-tuned from.
        weights_sha256: Checksum of weights.safetensors, in hexadecimal.
        members: Networks of the same shape in weights.safetensors, whose logits are averaged.
        output: "labels": one logit for the background and one per label, the highest wins; "regions": one per label,
            present above 0, where later labels overwrite earlier ones.
        previous_stage: The model whose result is an additional input of the network, or None.
    """

    schema_version: ClassVar[int] = SCHEMA_VERSION

    id: str
    title: str
    network: str
    network_config: dict[str, Any]
    plan: Plan
    preset: str
    channels: tuple[Channel, ...]
    labels: tuple[Label, ...]
    postprocess: tuple[str, ...] = ()
    training: dict[str, Any] = field(default_factory=dict)
    figures: dict[str, Any] = field(default_factory=dict)
    licence: str = ""
    parent: str | None = None
    weights_sha256: str = ""
    members: int = 1
    output: str = "labels"
    # Versions without support for cascades can still read all other models.
    previous_stage: PreviousStage | None = field(default=None, metadata=OMITTED_AT_DEFAULT)

    def __post_init__(self) -> None:
        check_id(self.id)
        self._check_figures()
        if self.members < 1 or self.output not in OUTPUTS:
            raise InputError(
                f"model '{self.id}' has {self.members} members and output '{self.output}': "
                f"give at least 1 member, and one of {', '.join(OUTPUTS)}"
            )
        if not self.labels or len({label.value for label in self.labels}) != len(self.labels):
            raise InputError(f"model '{self.id}' needs at least one label, and label values must be unique")
        if len({label.name for label in self.labels}) != len(self.labels):
            raise InputError(f"model '{self.id}' has two labels with the same name: rename one")
        if len(self.channels) != len(self.plan.normalization):
            raise InputError(
                f"model '{self.id}' has {len(self.channels)} channels but {len(self.plan.normalization)} normalizations"
            )

    @property
    def mean_dice(self) -> float | None:
        """Mean Dice over the labels on unseen cases, or None if it was not evaluated."""
        values = [entry["dice"] for entry in self.figures.get("labels", {}).values() if entry.get("dice") is not None]
        return sum(values) / len(values) if values else None

    @property
    def is_demonstration(self) -> bool:
        """Whether it is a demonstration, which is only used if the user names it."""
        return bool(self.training.get(DEMONSTRATION))

    def _check_figures(self) -> None:
        """Raise InputError if the Dice of a label is not a number: lists of models show it."""
        rows = self.figures.get("labels", {})
        rows = rows.values() if isinstance(rows, dict) else [rows]
        if not all(isinstance(row, dict) and isinstance(row.get("dice"), int | float | None) for row in rows):
            raise InputError(f"figures of model '{self.id}' have no valid labels: export the model again")


def check_id(model_id: str) -> None:
    """Raise InputError if this is not a valid model id."""
    if not re.fullmatch(r"[a-z0-9][a-z0-9_-]*", model_id):
        raise InputError(f"model id '{model_id}' is not allowed: use lower-case letters, digits, '-' and '_'")


def id_from(name: str) -> str:
    """Return an id derived from any name, such as that of a folder: "Mein Modell é" gives "mein-modell-e"."""
    plain = "".join(sign for sign in normalize("NFKD", name.casefold()) if not combining(sign))
    return re.sub(r"[^a-z0-9_]+", "-", plain).strip("-_") or "model"


def read_description(folder: Path | str) -> ModelDescription:
    """Read model.json of a model folder.

    Raises:
        InputError: No such folder, no model.json, or an invalid one.
    """
    path = Path(folder) / DESCRIPTION_FILE
    if not path.is_file():
        raise InputError(
            f"{folder} is not a model folder (it has no {DESCRIPTION_FILE}): choose one made by training or import"
        )
    try:
        return ModelDescription.from_dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, OSError, RecursionError) as error:
        raise InputError(f"{path} cannot be read as a model: {error}") from error


def find_previous(folder: Path, description: ModelDescription) -> Path | None:
    """Return the folder of the first stage in a cascade's model folder, or None if the model is not a cascade.

    Raises:
        InputError: It is missing, is not the one that the model was trained with, or needs different channels.
    """
    if description.previous_stage is None:
        return None
    previous = folder / PREVIOUS_FOLDER
    if not (previous / DESCRIPTION_FILE).is_file():
        raise InputError(f"the cascade {folder} lacks its first stage {previous}: copy the whole model folder again")
    found = read_description(previous)
    if found.weights_sha256 != description.previous_stage.weights_sha256:
        raise InputError(
            f"{previous} is not the first stage that {folder} was trained with: copy the whole model folder again"
        )
    if len(found.channels) != len(description.channels):
        raise InputError(
            f"the first stage in {previous} needs {len(found.channels)} channel(s), but the cascade "
            f"{len(description.channels)}: import both again"
        )
    return previous


def weights_size(folder: Path) -> int | None:
    """Return the size in bytes of the weights in a model folder, including a first stage, or None if there are none."""
    own, previous = folder / WEIGHTS_FILE, folder / PREVIOUS_FOLDER / WEIGHTS_FILE
    if not own.is_file():
        return None
    return own.stat().st_size + (previous.stat().st_size if previous.is_file() else 0)


def write_description(folder: Path, description: ModelDescription) -> None:
    """Write model.json atomically."""
    text = json.dumps(description.to_dict(), indent=2, ensure_ascii=False, allow_nan=False)
    write_text(folder / DESCRIPTION_FILE, text + "\n")
