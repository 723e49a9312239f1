"""Messages between the panel and the worker: one JSON object per line, voxels in memory-mapped files.

Requests carry `id` and `op`: "segment" (SegmentRequest), "foresee" (ForeseeRequest), "import" (ImportRequest), "cancel"
(`target`: id of the job), "shutdown".
The worker answers with `id` and `event`:

- "ready" (id 0, once): `protocol`, `version`, `pid`, `torch`, `devices` [{id, title, memory_mb}].
- "progress": `fraction` 0 to 1, `stage` in words; at least twice a second while a job runs.
- "result": SegmentResult, ForeseeResult or ImportResult.
- "cancelled".
- "error": `kind` "input" (invalid input), "memory" or "fault" (internal), `message` in one sentence, `details`
  (traceback).

Each request for work ends in exactly one of result, cancelled or error; "cancel" and "shutdown" get no answer. Invalid
requests are answered by an error of kind "input", with id 0 if they have none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..core.json_dataclass import JsonDataclass
from ..image.labels import Label
from .arrays import ArrayFile, ChannelFile
from .message import Message


@dataclass(frozen=True, kw_only=True)
class SegmentRequest(Message):
    """Segment one volume with one model.

    Attributes:
        model: Model folder.
        volume: Voxels (C, D, H, W); the result lies on their grid.
        affine_ras: 4x4 from voxel index (x, y, z) to RAS millimetres.
        output: Raw file that the worker creates for the labelmap (D, H, W).
        device: "auto", "cpu", "cuda" or "mps".
        tta: Average over mirrored copies.
        postprocess: Names of steps, or None for the model's own.
        channels: One entry per channel, None for a missing one; empty: the channels of `volume`.
        region_to_ras: 4x4 that maps the cube from -1 to 1 onto the region to segment, or None for the whole volume.
        uncertainty: Raw file that the worker creates for the uncertainty map (D, H, W), or None.
        probabilities: Raw file that the worker creates for the probability maps (K, D, H, W), or None.
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


@dataclass(frozen=True, kw_only=True)
class SegmentFound(JsonDataclass):
    """A label of the result with its extent.

    Attributes:
        label: Value, name, colour and term.
        voxels: Number of voxels; 0 if the label was not found.
        bounds: ((first, last), ...) along D, H, W, inclusive, or None if not found.
    """

    label: Label
    voxels: int
    bounds: tuple[tuple[int, int], ...] | None


@dataclass(frozen=True, kw_only=True)
class SegmentResult(Message):
    """The result of a segmentation.

    Attributes:
        labelmap: Voxels (D, H, W) on the grid of the request's volume.
        segments: All labels of the model, including those not found.
        provenance: model_id, weights_sha256, device, precision, versions, settings.
        duration_s: Seconds by stage, and "total".
        warnings: Sentences for the user.
        uncertainty: (D, H, W), 0 to 1, or None if not requested.
        probabilities: (K, D, H, W), background first, then the labels in order, or None if not requested.
        most_uncertain: The most uncertain slice along D, H and W, or None if uncertainty was not requested.
    """

    labelmap: ArrayFile
    segments: tuple[SegmentFound, ...]
    provenance: dict[str, Any]
    duration_s: dict[str, float]
    warnings: tuple[str, ...] = ()
    uncertainty: ArrayFile | None = None
    probabilities: ArrayFile | None = None
    most_uncertain: tuple[int, int, int] | None = None
