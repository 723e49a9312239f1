"""Segmentation requests, with models that stay in memory between them."""

from __future__ import annotations

from collections.abc import Sequence
from time import perf_counter
from typing import Any

import numpy as np
from scipy import ndimage

from ..core.errors import InputError
from ..core.files import atomic_path
from ..core.messages import sentence
from ..core.task import Task
from ..image.geometry import Array, Volume, same_grid
from ..image.labels import Label
from ..image.volume_io import stack_channels
from ..inference.region import segment_region
from ..inference.uncertainty import most_uncertain, uncertainty_of
from ..models.description import ModelDescription
from ..protocol.arrays import ArrayFile
from ..protocol.segment import SegmentFound, SegmentRequest, SegmentResult
from .contract import OPERATIONS
from .warm_models import WarmModels


@OPERATIONS.register("segment", title="Segment a volume")
def segment(values: dict[str, Any], models: WarmModels, *, task: Task) -> dict[str, Any]:
    """Serve a "segment" request and return the fields of its result.

    Args:
        values: The raw request.
        models: Models in memory.
        task: Receives progress and stage; polled for cancellation.

    Raises:
        InputError: The request, its files or its model are invalid, or the output cannot be written.
        CancelledError: The task was cancelled.
    """
    began = perf_counter()
    request, volume, channels = _read_request(values)
    task.progress(0.0, "Loading the model")
    predictor = models.get(request.model, request.device)
    loading_s = perf_counter() - began
    volume, warnings = _with_channels(volume, channels, predictor.description)
    found = segment_region(
        predictor,
        volume,
        None if request.region_to_ras is None else np.array(request.region_to_ras),
        tta=request.tta,
        postprocess=request.postprocess,
        with_probabilities=bool(request.uncertainty or request.probabilities),
        task=task,
    )
    duration_s = {"Loading the model": loading_s, **found.duration_s, "total": perf_counter() - began}
    return SegmentResult(
        labelmap=_write_array(request.output, found.labelmap),
        segments=segments_of(found.labelmap, found.labels),
        provenance={**found.provenance, "region_to_ras": request.region_to_ras},
        duration_s=duration_s,
        warnings=(*warnings, *found.warnings),
        **_write_maps(request, found.probabilities, predictor.description.output),
    ).to_dict()


def _write_maps(request: SegmentRequest, probabilities: Array | None, output: str) -> dict[str, Any]:
    """Write the requested probability and uncertainty maps, and return the fields for the result."""
    fields: dict[str, Any] = {}
    if probabilities is None:
        return fields
    if request.uncertainty:
        uncertainty = uncertainty_of(probabilities, output=output)
        fields["uncertainty"] = _write_array(request.uncertainty, uncertainty)
        fields["most_uncertain"] = most_uncertain(uncertainty)
    if request.probabilities:
        fields["probabilities"] = _write_array(request.probabilities, probabilities)
    return fields


def _with_channels(
    volume: Volume, channels: Sequence[Volume | None], description: ModelDescription
) -> tuple[Volume, list[str]]:
    """Return all channels on the grid of the volume, and a warning if any were resampled."""
    if not channels:
        return volume, []
    names = [channel.name for channel in description.channels]
    if len(channels) != len(names):
        raise InputError(
            f"there are {len(channels)} channels, but the model needs {', '.join(names)}: select one volume per channel"
        )
    given = zip(names, channels, strict=True)
    moved = [name for name, channel in given if channel is not None and not same_grid(channel, volume)]
    warnings = [sentence(f"{', '.join(moved)}: resampled to the grid of the volume")] if moved else []
    return stack_channels(volume, channels, names=names), warnings


def segments_of(labelmap: Array, labels: Sequence[Label]) -> tuple[SegmentFound, ...]:
    """Return size and bounds of every label in a labelmap (D, H, W)."""
    largest = max(label.value for label in labels)
    # Slice by slice: bincount converts its input to eight bytes per voxel.
    counts = np.zeros(largest + 1, dtype=np.int64)
    for plane in labelmap:
        counts += np.bincount(plane.ravel(), minlength=largest + 1)[: largest + 1]
    boxes = ndimage.find_objects(labelmap, largest)
    return tuple(
        SegmentFound(
            label=label,
            voxels=int(counts[label.value]),
            bounds=None if (box := boxes[label.value - 1]) is None else tuple((s.start, s.stop - 1) for s in box),
        )
        for label in labels
    )


def _read_request(values: dict[str, Any]) -> tuple[SegmentRequest, Volume, list[Volume | None]]:
    """Return the request, its volume and its channels, with memory-mapped voxels."""
    try:
        request = SegmentRequest.from_dict(values)
        volume = Volume(np.asarray(request.volume.open()), np.array(request.affine_ras, dtype=np.float64))
        channels = [
            None if channel is None else Volume(np.asarray(channel.volume.open()), np.array(channel.affine_ras))
            for channel in request.channels
        ]
        np.array(request.region_to_ras or 0, dtype=np.float64)
    except (TypeError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"the segment request is invalid: {error}") from error
    return request, volume, channels


def _write_array(path: str, array: Array) -> ArrayFile:
    """Write the voxels; with a mapped file, a full disk would crash the process with a bus error."""
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        file.write(np.ascontiguousarray(array).data)
    return ArrayFile(path=path, dtype=array.dtype.name, shape=array.shape)
