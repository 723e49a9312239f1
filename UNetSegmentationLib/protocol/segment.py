"""Messages between the panel and the worker: one JSON object a line, voxels in memory-mapped files.

Requests carry `id` and `op`: "segment" (SegmentRequest), "foresee" (ForeseeRequest), "import" (ImportRequest), "cancel"
(`target`: id of the job), "shutdown".
The worker answers with `id` and `event`:

- "ready" (id 0, once): `protocol`, `version`, `pid`, `torch`, `devices` [{id, title, memory_mb}].
- "progress": `fraction` 0 to 1, `stage` in words; at least twice a second while a job runs.
- "warning": `message`.
- "result": SegmentResult, ForeseeResult or ImportResult.
- "cancelled".
- "error": `kind` "input" (the user's), "memory" or "fault" (ours), `message` in one sentence, `details` (traceback).

Each request for work ends in exactly one of result, cancelled or error; "cancel" and "shutdown" get no answer of their
own. What is no request is answered by an error of kind "input", with id 0 where it has none.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..core.errors import InputError
from ..image.labels import Label

PROTOCOL_VERSION = 1
MAX_LINE_BYTES = 16 * 2**20


@dataclass(frozen=True, kw_only=True)
class ArrayFile:
    """A C-contiguous array in a raw file that both processes map.

    Attributes:
        path: The file.
        dtype: numpy name of the voxel type, little endian.
        shape: Sizes, slowest axis first.
    """

    path: str
    dtype: str
    shape: tuple[int, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", tuple(int(extent) for extent in self.shape))
        if min(self.shape, default=0) < 1:
            raise InputError(f"array of shape {self.shape} is empty: every size must be at least 1")
        if np.dtype(self.dtype).kind not in "iufb":
            raise InputError(f"array type '{self.dtype}' is not a number: use an integer or floating-point type")

    def open(self, mode: str = "r") -> np.memmap[Any, Any]:
        """Map the file: "r" reads, "w+" creates.

        Raises:
            InputError: The file is missing or too short for the shape.
        """
        if mode == "r":
            expected = int(np.prod(self.shape, dtype=np.int64)) * np.dtype(self.dtype).itemsize
            found = Path(self.path).stat().st_size if Path(self.path).is_file() else -1
            if found != expected:
                raise InputError(f"array file {self.path} has {found} bytes, {expected} are needed: write it again")
        return np.memmap(self.path, dtype=self.dtype, mode=mode, shape=self.shape)  # type: ignore[call-overload,no-any-return]


@dataclass(frozen=True, kw_only=True)
class ChannelFile:
    """A channel on a grid of its own.

    Attributes:
        volume: Voxels (1, D, H, W).
        affine_ras: 4x4 from voxel index (x, y, z) to RAS millimetres.
    """

    volume: ArrayFile
    affine_ras: tuple[tuple[float, ...], ...]

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> ChannelFile:
        """Return the channel of a JSON object."""
        return cls(volume=ArrayFile(**values["volume"]), affine_ras=_rows(values["affine_ras"]))


@dataclass(frozen=True, kw_only=True)
class SegmentRequest:
    """Segment one volume with one model.

    Attributes:
        model: Model folder.
        volume: Voxels (C, D, H, W); the result lies on their grid.
        affine_ras: 4x4 from voxel index (x, y, z) to RAS millimetres.
        output: Raw file that the worker creates for the labelmap (D, H, W).
        device: "auto", "cpu", "cuda" or "mps".
        tta: Average over mirrored copies.
        postprocess: Names of steps; None takes the model's own.
        channels: The channels one by one, None where one is missing; empty: those of `volume`.
        region_to_ras: 4x4 that maps the cube from -1 to 1 onto the only part to segment; None for all of it.
        uncertainty: Raw file that the worker creates for the uncertainty (D, H, W); None where it is not wanted.
        probabilities: Raw file that the worker creates for the probabilities (K, D, H, W); None likewise.
    """

    model: str
    volume: ArrayFile
    affine_ras: tuple[tuple[float, ...], ...]
    output: str
    device: str = "auto"
    tta: bool = False
    postprocess: tuple[str, ...] | None = None
    channels: tuple[ChannelFile | None, ...] = ()
    region_to_ras: tuple[tuple[float, ...], ...] | None = None
    uncertainty: str | None = None
    probabilities: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> SegmentRequest:
        """Return the request of a JSON object."""
        names = [name for name in cls.__dataclass_fields__ if name in values]
        fields = {name: values[name] for name in names}
        missing = {"model", "volume", "affine_ras", "output"} - set(fields)
        if missing:
            raise InputError(f"segment request lacks {', '.join(sorted(missing))}: send all of them")
        fields["volume"] = ArrayFile(**fields["volume"])
        fields["affine_ras"] = _rows(fields["affine_ras"])
        fields["channels"] = tuple(
            None if channel is None else ChannelFile.from_dict(channel) for channel in fields.get("channels", ())
        )
        if fields.get("region_to_ras") is not None:
            fields["region_to_ras"] = _rows(fields["region_to_ras"])
        if fields.get("postprocess") is not None:
            fields["postprocess"] = tuple(fields["postprocess"])
        return cls(**fields)


def _file(values: Any) -> ArrayFile | None:
    return None if values is None else ArrayFile(**values)


def _slices(values: Any) -> tuple[int, int, int] | None:
    if values is None:
        return None
    first, second, third = map(int, values)
    return first, second, third


def _rows(matrix: Any) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(float(number) for number in row) for row in matrix)


@dataclass(frozen=True, kw_only=True)
class SegmentFound:
    """A label of the result with its extent.

    Attributes:
        label: Value, name, colour and term.
        voxels: Number of voxels; 0 when the label was not found.
        bounds: ((first, last), ...) along D, H, W, inclusive; None when not found.
    """

    label: Label
    voxels: int
    bounds: tuple[tuple[int, int], ...] | None


@dataclass(frozen=True, kw_only=True)
class SegmentResult:
    """What the worker found.

    Attributes:
        labelmap: Voxels (D, H, W) on the grid of the request's volume.
        segments: Every label of the model, also those not found.
        provenance: model_id, weights_sha256, device, precision, versions, settings.
        duration_s: Seconds by stage, and "total".
        warnings: Sentences for the user.
        uncertainty: (D, H, W), 0 to 1; None unless asked for.
        probabilities: (K, D, H, W), background first, then the labels in order; None unless asked for.
        most_uncertain: The slice along D, H, W with most uncertainty; None where that was not asked for.
    """

    labelmap: ArrayFile
    segments: tuple[SegmentFound, ...]
    provenance: dict[str, Any]
    duration_s: dict[str, float]
    warnings: tuple[str, ...] = ()
    uncertainty: ArrayFile | None = None
    probabilities: ArrayFile | None = None
    most_uncertain: tuple[int, int, int] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> SegmentResult:
        """Return the result of a JSON object."""
        segments = tuple(
            SegmentFound(
                label=Label.from_dict(segment["label"]),
                voxels=int(segment["voxels"]),
                bounds=None if segment["bounds"] is None else tuple((int(a), int(b)) for a, b in segment["bounds"]),
            )
            for segment in values["segments"]
        )
        return cls(
            labelmap=ArrayFile(**values["labelmap"]),
            segments=segments,
            provenance=dict(values["provenance"]),
            duration_s=dict(values["duration_s"]),
            warnings=tuple(values["warnings"]),
            uncertainty=_file(values.get("uncertainty")),
            probabilities=_file(values.get("probabilities")),
            most_uncertain=_slices(values.get("most_uncertain")),
        )


@dataclass(frozen=True, kw_only=True)
class ForeseeRequest:
    """Tell whether a segmentation would fit into memory; no voxels are needed for that.

    Attributes:
        model: Model folder.
        shape: Sizes (C, D, H, W) of the volume with all channels on its grid.
        affine_ras: 4x4 from voxel index (x, y, z) to RAS millimetres.
        device: "auto", "cpu", "cuda" or "mps".
        tta: Average over mirrored copies.
        with_probabilities: Uncertainty or probabilities are wanted.
        region_to_ras: As of SegmentRequest.
    """

    model: str
    shape: tuple[int, int, int, int]
    affine_ras: tuple[tuple[float, ...], ...]
    device: str = "auto"
    tta: bool = False
    with_probabilities: bool = False
    region_to_ras: tuple[tuple[float, ...], ...] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> ForeseeRequest:
        """Return the request of a JSON object.

        Raises:
            InputError: It cannot be understood.
        """
        try:
            channels, depth, height, width = map(int, values["shape"])
            region = values.get("region_to_ras")
            return cls(
                model=str(values["model"]),
                shape=(channels, depth, height, width),
                affine_ras=_rows(values["affine_ras"]),
                device=str(values.get("device", "auto")),
                tta=bool(values.get("tta")),
                with_probabilities=bool(values.get("with_probabilities")),
                region_to_ras=None if region is None else _rows(region),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"the foresee request cannot be understood ({error!r}): send all its fields") from error


@dataclass(frozen=True, kw_only=True)
class ForeseeResult:
    """Whether a segmentation would fit.

    Attributes:
        doubt: What to know before it begins, as a sentence: why it would be refused, or what would be done for want of
            memory; empty where all is well.
    """

    doubt: str

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> ForeseeResult:
        """Return the result of a JSON object."""
        return cls(doubt=str(values["doubt"]))


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


def encode(message: dict[str, Any]) -> bytes:
    """Return a message as one line of UTF-8 JSON."""
    return json.dumps(message, ensure_ascii=True, allow_nan=False, separators=(",", ":")).encode("ascii") + b"\n"


class LineDecoder:
    """Collects bytes as they come from a pipe and returns whole messages.

    Lines that are not JSON objects (a library that prints) are kept in `noise` for the report of a crash.
    """

    def __init__(self) -> None:
        self._rest = b""
        self.noise: list[str] = []

    def feed(self, data: bytes) -> list[dict[str, Any]]:
        """Return the messages completed by `data`, in order."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > MAX_LINE_BYTES:
            self._note(self._rest[:200])
            self._rest = b""
        messages = []
        for line in lines:
            try:
                message = json.loads(line)
            except (ValueError, RecursionError):
                message = None
            if isinstance(message, dict):
                messages.append(message)
            elif line.strip():
                self._note(line)
        return messages

    def _note(self, line: bytes) -> None:
        self.noise = [*self.noise[-49:], line.decode("utf-8", "replace").strip()]
