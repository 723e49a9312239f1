"""What the worker does for each kind of request, with models that stay in memory between them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Generator, Sequence
from contextlib import suppress
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from scipy import ndimage

from ..core.errors import CancelledError, InputError
from ..core.files import atomic_path
from ..image.geometry import Array, Volume, clear_outside, crop_to_region, same_grid
from ..image.labels import Label
from ..image.volume_io import stack_channels
from ..importers.parts.add_model import add_model
from ..inference.predictor import Predictor, Progress
from ..inference.uncertainty import most_uncertain, uncertainty_of
from ..models.description import DESCRIPTION_FILE, PREVIOUS_FOLDER, WEIGHTS_FILE, ModelDescription
from ..protocol.segment import (
    ArrayFile,
    ForeseeRequest,
    ForeseeResult,
    ImportRequest,
    ImportResult,
    SegmentFound,
    SegmentRequest,
    SegmentResult,
)

WARM_MODELS = 3


class WarmModels:
    """The models used last, in memory, as long as their files do not change.

    Args:
        limit: How many are kept.
    """

    def __init__(self, limit: int = WARM_MODELS) -> None:
        self._limit = limit
        self._predictors: OrderedDict[tuple[Any, ...], Predictor] = OrderedDict()

    def get(self, folder: str, device: str) -> Predictor:
        """Return the predictor of a model folder on a device, loaded where it is not there yet.

        Raises:
            InputError: The folder is no usable model, or the machine has no such device.
        """
        files = (
            DESCRIPTION_FILE,
            WEIGHTS_FILE,
            f"{PREVIOUS_FOLDER}/{DESCRIPTION_FILE}",
            f"{PREVIOUS_FOLDER}/{WEIGHTS_FILE}",
        )
        key = (str(Path(folder).resolve()), device, *(_stamp(folder, name) for name in files))
        predictor = self._predictors.pop(key, None) or Predictor(folder, device=device)
        self._predictors[key] = predictor
        while len(self._predictors) > self._limit:
            self._predictors.popitem(last=False)
        return predictor

    def improvements(self) -> Generator[None, None, None]:
        """Measure how the models' networks are best computed, the model used last first, as long as this is asked.

        What goes wrong here is nobody's loss: the models compute as before.
        """
        for predictor in reversed(list(self._predictors.values())):
            stages = (predictor, predictor.previous) if predictor.previous else (predictor,)
            for stage in stages:
                with suppress(Exception):
                    yield from stage.engine.improvements()

    def forget(self) -> None:
        """Let go of all models, so that their memory is free."""
        self._predictors.clear()


def segment(
    values: dict[str, Any], models: WarmModels, *, on_progress: Progress, is_cancelled: Callable[[], bool]
) -> dict[str, Any]:
    """Serve a "segment" request and return the fields of its result.

    Args:
        values: The request as it came.
        models: Where the model comes from.
        on_progress: Called with the finished share, 0 to 1, and the stage in words.
        is_cancelled: Asked often.

    Raises:
        InputError: The request, its files or its model cannot be used, or the output cannot be written.
        CancelledError: `is_cancelled` said so.
    """
    began = perf_counter()
    request, volume, channels = _read_request(values)
    on_progress(0.0, "Loading the model")
    predictor = models.get(request.model, request.device)
    loading_s = perf_counter() - began
    volume, warnings = _with_channels(volume, channels, predictor.description)
    region = None if request.region_to_ras is None else np.array(request.region_to_ras)
    part, where = (volume, None) if region is None else crop_to_region(volume, region)
    found = predictor.segment(
        part,
        tta=request.tta,
        postprocess=request.postprocess,
        with_probabilities=bool(request.uncertainty or request.probabilities),
        on_progress=on_progress,
        is_cancelled=is_cancelled,
    )
    labelmap, probabilities = found.labelmap, found.probabilities
    if region is not None:
        clear_outside(labelmap, part.affine_ras, region)
        if probabilities is not None:
            probabilities = _whole_probabilities(probabilities, part, where, region=region, shape=volume.shape)
        labelmap = np.zeros(volume.shape, dtype=found.labelmap.dtype)
        labelmap[where] = found.labelmap
    duration_s = {"Loading the model": loading_s, **found.duration_s, "total": perf_counter() - began}
    return SegmentResult(
        labelmap=_write_array(request.output, labelmap),
        segments=segments_of(labelmap, found.labels),
        provenance={**found.provenance, "region_to_ras": request.region_to_ras},
        duration_s=duration_s,
        warnings=(*warnings, *found.warnings),
        **_write_maps(request, probabilities, predictor.description.output),
    ).to_dict()


def _whole_probabilities(
    probabilities: Array, part: Volume, where: tuple[slice, ...] | None, *, region: Array, shape: tuple[int, ...]
) -> Array:
    """Return the probabilities of a part on the whole grid; outside the region all is background, as in the result."""
    inside = np.ones(part.shape, dtype=np.uint8)
    clear_outside(inside, part.affine_ras, region)
    probabilities[:, inside == 0] = 0
    probabilities[0, inside == 0] = 1
    whole = np.zeros((len(probabilities), *shape), dtype=probabilities.dtype)
    whole[0] = 1
    whole[(slice(None), *(where or ()))] = probabilities
    return whole


def _write_maps(request: SegmentRequest, probabilities: Array | None, output: str) -> dict[str, Any]:
    """Write what was asked for of probabilities and uncertainty, and return the result's fields."""
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
    """Return all channels on the grid of the volume, and which of them had to be resampled."""
    if not channels:
        return volume, []
    names = [channel.name for channel in description.channels]
    if len(channels) != len(names):
        raise InputError(f"there are {len(channels)} channels, the model takes {', '.join(names)}: give one for each")
    given = zip(names, channels, strict=True)
    moved = [name for name, channel in given if channel is not None and not same_grid(channel, volume)]
    warnings = [f"{', '.join(moved)}: on another grid than the volume, and resampled onto it"] if moved else []
    return stack_channels(volume, channels, names=names), warnings


def foresee(
    values: dict[str, Any], models: WarmModels, *, on_progress: Progress, is_cancelled: Callable[[], bool]
) -> dict[str, Any]:
    """Serve a "foresee" request and return the fields of its result; the model is in memory from then on.

    Args:
        values: The request as it came.
        models: Where the model comes from.
        on_progress: Not called: it takes moments.
        is_cancelled: Asked once, before the model is loaded.

    Raises:
        InputError: The request cannot be understood, or the volume or its region does not fit the model.
        CancelledError: `is_cancelled` said so.
    """
    del on_progress
    request = ForeseeRequest.from_dict(values)
    if is_cancelled():
        raise CancelledError("cancelled")
    volume = _empty_volume(request)
    if request.region_to_ras is not None:
        volume, _where = crop_to_region(volume, np.array(request.region_to_ras))
    predictor = models.get(request.model, request.device)
    found = predictor.foresee(volume, tta=request.tta, with_probabilities=request.with_probabilities)
    doubt = f"memory is short: it will be computed {found.shortage}" if found.shortage else found.refusal
    return ForeseeResult(doubt=doubt).to_dict()


def import_model(
    values: dict[str, Any], _models: WarmModels, *, on_progress: Progress, is_cancelled: Callable[[], bool]
) -> dict[str, Any]:
    """Serve an "import" request and return the fields of its result.

    Args:
        values: The request as it came.
        on_progress: Called with the stage in words; how far it is cannot be told.
        is_cancelled: Asked between the stages.

    Raises:
        InputError: The request cannot be understood, or the model cannot be imported.
        CancelledError: `is_cancelled` said so.
    """
    request = ImportRequest.from_dict(values)
    model, warnings = add_model(
        Path(request.path),
        models_folder=Path(request.models),
        incoming=Path(request.incoming),
        on_stage=lambda stage: on_progress(0.0, stage),
        is_cancelled=is_cancelled,
    )
    return ImportResult(folder=str(model.folder), warnings=warnings).to_dict()


def segments_of(labelmap: Array, labels: Sequence[Label]) -> tuple[SegmentFound, ...]:
    """Return size and bounds of every label in a labelmap (D, H, W)."""
    largest = max(label.value for label in labels)
    # Slice by slice: bincount widens its input to eight bytes a voxel.
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


def _empty_volume(request: ForeseeRequest) -> Volume:
    """Return a volume of the right sizes that takes no memory."""
    try:
        return Volume(np.broadcast_to(np.int8(0), request.shape), np.array(request.affine_ras))
    except ValueError as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"the foresee request cannot be understood: {error}") from error


def _read_request(values: dict[str, Any]) -> tuple[SegmentRequest, Volume, list[Volume | None]]:
    """Return the request, its volume and its channels, whose voxels stay in their files."""
    try:
        request = SegmentRequest.from_dict(values)
        for name, kind in (("model", str), ("output", str), ("device", str), ("tta", bool)):
            if not isinstance(getattr(request, name), kind):
                raise InputError(f"{name} of the segment request is {getattr(request, name)!r}: give a {kind.__name__}")
        for name in ("uncertainty", "probabilities"):
            if not isinstance(getattr(request, name), str | None):
                raise InputError(f"{name} of the segment request is {getattr(request, name)!r}: give a path or none")
        if not all(isinstance(step, str) for step in request.postprocess or ()):
            raise InputError(f"postprocess of the segment request is {request.postprocess}: give names of steps")
        volume = Volume(np.asarray(request.volume.open()), np.array(request.affine_ras, dtype=np.float64))
        channels = [
            None if channel is None else Volume(np.asarray(channel.volume.open()), np.array(channel.affine_ras))
            for channel in request.channels
        ]
        np.array(request.region_to_ras or 0, dtype=np.float64)
    except (TypeError, ValueError, AttributeError, KeyError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"the segment request cannot be understood: {error}") from error
    return request, volume, channels


def _write_array(path: str, array: Array) -> ArrayFile:
    """Write the voxels; a mapped file would end the process with a bus error where the disk is full."""
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        file.write(np.ascontiguousarray(array).data)
    return ArrayFile(path=path, dtype=array.dtype.name, shape=array.shape)


def _stamp(folder: str, name: str) -> tuple[int, int]:
    try:
        status = (Path(folder) / name).stat()
    except OSError:
        return (0, 0)
    return (status.st_mtime_ns, status.st_size)
