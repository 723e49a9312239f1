"""Messages between the panel and the worker: one JSON object a line, voxels in memory-mapped files.

Requests carry `id` and `op`: "segment" (SegmentRequest), "foresee" (ForeseeRequest), "import" (ImportRequest), "cancel"
(`target`: id of the job), "shutdown".
The worker answers with `id` and `event`:

- "ready" (id 0, once): `protocol`, `version`, `pid`, `torch`, `devices` [{id, title, memory_mb}].
- "progress": `fraction` 0 to 1, `stage` in words; at least twice a second while a job runs.
- "result": SegmentResult, ForeseeResult or ImportResult.
- "cancelled".
- "error": `kind` "input" (the user's), "memory" or "fault" (ours), `message` in one sentence, `details` (traceback).

Each request for work ends in exactly one of result, cancelled or error; "cancel" and "shutdown" get no answer of their
own. What is no request is answered by an error of kind "input", with id 0 where it has none.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from ..core.errors import InputError
from ..image.labels import Label
from .arrays import ArrayFile, ChannelFile, optional_file, rows_of


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
        fields["affine_ras"] = rows_of(fields["affine_ras"])
        fields["channels"] = tuple(
            None if channel is None else ChannelFile.from_dict(channel) for channel in fields.get("channels", ())
        )
        if fields.get("region_to_ras") is not None:
            fields["region_to_ras"] = rows_of(fields["region_to_ras"])
        if fields.get("postprocess") is not None:
            fields["postprocess"] = tuple(fields["postprocess"])
        return cls(**fields)


def _slices(values: Any) -> tuple[int, int, int] | None:
    if values is None:
        return None
    first, second, third = map(int, values)
    return first, second, third


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
            uncertainty=optional_file(values.get("uncertainty")),
            probabilities=optional_file(values.get("probabilities")),
            most_uncertain=_slices(values.get("most_uncertain")),
        )
