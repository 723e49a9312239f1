"""Replay: a few crops of the training images stored with a model, so that it can be fine-tuned without forgetting.

`replay.safetensors` holds each crop's image (quantised, differences along the last axis, deflated) and class numbers
(deflated) as bytes; the file's metadata has the JSON needed to unpack them. Rehearsal crops are trained on again;
sentinel crops come from other cases and show how much was forgotten.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..core.errors import InputError
from ..core.files import sha256_of
from ..core.tensor_files import atomic_tensor_file
from ..image.geometry import Array
from .prepared_case import PreparedCase

REPLAY_FILE = "replay.safetensors"
REHEARSAL_CROPS = 20
SENTINEL_CROPS = 10
MAX_BYTES = 1_450_000
KINDS = ("rehearsal", "sentinel")
_VERSION = 1
# Number of values in all crops, before deflating to at most MAX_BYTES.
_MAX_VALUES = 1_600_000
_LEVELS = (256, 128, 64, 32)
_PERCENTILES = (0.05, 99.95)


@dataclass(frozen=True, kw_only=True)
class Replay:
    """Crops of a model's training images, on the network's grid.

    Attributes:
        rehearsal: To train on again.
        sentinels: To measure forgetting; from other cases than `rehearsal` if there are enough.
        licence: Licence of the images.
        source: Source of the images.
    """

    rehearsal: tuple[PreparedCase, ...]
    sentinels: tuple[PreparedCase, ...]
    licence: str = ""
    source: str = ""


def draw_replay(
    cases: Sequence[PreparedCase], patch_size: Sequence[int], *, seed: int = 0, licence: str = "", source: str = ""
) -> Replay:
    """Cut crops from training cases, each around a labelled voxel.

    Args:
        cases: Prepared training cases, without any held-back case.
        patch_size: (D, H, W); size of the crops, reduced if all together would be too large.
        seed: Determines cases and positions.
        licence: Licence of the images.
        source: Source of the images.

    Raises:
        InputError: No case contains a labelled voxel.
    """
    usable = [case for case in cases if len(case.foreground)]
    if not usable:
        raise InputError("no training case contains a labelled voxel: there is nothing to replay")
    rng = np.random.default_rng(seed)
    shuffled = [usable[index] for index in rng.permutation(len(usable))]
    count = min(SENTINEL_CROPS, len(shuffled) // 3)
    watched, rehearsed = (shuffled[:count], shuffled[count:]) if count else (shuffled, shuffled)
    size = _crop_size(patch_size, channels=len(usable[0].image))
    return Replay(
        rehearsal=tuple(_crop(rehearsed[index % len(rehearsed)], size, rng) for index in range(REHEARSAL_CROPS)),
        sentinels=tuple(_crop(watched[index % len(watched)], size, rng) for index in range(SENTINEL_CROPS)),
        licence=licence,
        source=source,
    )


def write_replay(path: Path, replay: Replay, *, max_bytes: int = MAX_BYTES) -> None:
    """Write replay crops atomically, with as many grey levels as `max_bytes` allows, at least 32."""
    for levels in _LEVELS:
        tensors: dict[str, Tensor] = {}
        entries = []
        for kind, crops in zip(KINDS, (replay.rehearsal, replay.sentinels), strict=True):
            for index, crop in enumerate(crops):
                packed, entry = _pack(crop, levels)
                entries.append({"kind": kind, **entry})
                tensors |= {f"{kind}.{index}.{name}": value for name, value in packed.items()}
        if sum(tensor.numel() for tensor in tensors.values()) <= max_bytes:
            break
    about = {"version": _VERSION, "levels": levels, "licence": replay.licence, "source": replay.source}
    with atomic_tensor_file(path) as temporary:
        save_file(tensors, temporary, metadata={"replay": json.dumps({**about, "crops": entries})})


def read_replay(path: Path) -> Replay:
    """Read replay crops; images differ from the written ones only by quantisation.

    Raises:
        InputError: The file is missing, damaged or of a later version.
    """
    crops: dict[str, list[PreparedCase]] = {kind: [] for kind in KINDS}
    try:
        with safe_open(path, framework="pt") as file:
            about = json.loads(file.metadata()["replay"])
            if about["version"] != _VERSION:
                raise InputError(f"{path} has version {about['version']}: update this program")
            for entry in about["crops"]:
                name = f"{entry['kind']}.{len(crops[entry['kind']])}"
                bytes_of = {part: file.get_tensor(f"{name}.{part}").numpy() for part in ("image", "labels")}
                crops[entry["kind"]].append(_unpack(bytes_of, entry, int(about["levels"])))
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, zlib.error) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"the replay crops {path} are damaged ({error}): copy the model folder again") from error
    return Replay(
        rehearsal=tuple(crops["rehearsal"]),
        sentinels=tuple(crops["sentinel"]),
        licence=str(about["licence"]),
        source=str(about["source"]),
    )


def find_replay(folder: Path, training: Mapping[str, Any]) -> Path | None:
    """Return the file with a model's crops, in its folder or that of a sibling model trained on the same data.

    Args:
        folder: Model folder.
        training: Entry of its description; "replay" may contain "shared": the name of the other folder and the SHA-256
            of its crops.

    Returns:
        The file, or None if there is none or the crops of the other model have changed.
    """
    own = folder / REPLAY_FILE
    if own.is_file():
        return own
    replay = training.get("replay")
    shared = replay.get("shared") if isinstance(replay, dict) else None
    if not isinstance(shared, dict):
        return None
    name = shared.get("model")
    # A bare name, which cannot point elsewhere.
    if not isinstance(name, str) or Path(name).name != name or name in ("", ".."):
        return None
    beside = folder.parent / name / REPLAY_FILE
    return beside if beside.is_file() and sha256_of(beside) == shared.get("sha256") else None


def _crop_size(patch_size: Sequence[int], *, channels: int) -> list[int]:
    allowed = _MAX_VALUES / ((REHEARSAL_CROPS + SENTINEL_CROPS) * channels)
    axes = sum(extent > 1 for extent in patch_size) or 1
    scale = min(1.0, (allowed / prod(patch_size)) ** (1 / axes))
    return [max(1, int(extent * scale)) for extent in patch_size]


def _crop(case: PreparedCase, size: Sequence[int], rng: np.random.Generator) -> PreparedCase:
    """Return a window around a labelled voxel, shifted by up to a quarter, inside the image."""
    centre = case.foreground[int(rng.integers(len(case.foreground)))].tolist()
    window = []
    for position, extent, whole in zip(centre, size, case.labels.shape, strict=True):
        length = min(extent, whole)
        shift = int(rng.integers(-(length // 4), length // 4 + 1))
        first = min(max(position + shift - length // 2, 0), whole - length)
        window.append(slice(first, first + length))
    depth, height, width = window
    labels = case.labels[depth, height, width].clone()
    return PreparedCase(
        id=case.id,
        image=case.image[:, depth, height, width].clone(),
        padding=case.padding,
        labels=labels,
        foreground=(labels > 0).nonzero().to(torch.int16),
    )


def _pack(crop: PreparedCase, levels: int) -> tuple[dict[str, Tensor], dict[str, Any]]:
    image = crop.image.numpy()
    ranges = [_range_of(channel) for channel in image]
    steps = np.stack([_quantise(channel, limits, levels) for channel, limits in zip(image, ranges, strict=True)])
    packed = {
        # Neighbours are similar: differences deflate far better than values.
        "image": _deflate(np.diff(steps, axis=-1, prepend=np.uint8(0))),
        "labels": _deflate(crop.labels.numpy().astype("<i2")),
    }
    entry = {"case": crop.id, "shape": list(image.shape), "padding": crop.padding.tolist(), "ranges": ranges}
    return packed, entry


def _range_of(channel: Array) -> list[float] | None:
    """Return the lowest and highest quantised value, or None for a missing channel."""
    if not np.isfinite(channel).all():
        return None
    low, high = (float(value) for value in np.percentile(channel, _PERCENTILES))
    return [low, max(high, low + 1e-6)]


def _quantise(channel: Array, limits: list[float] | None, levels: int) -> Array:
    if limits is None:
        return np.zeros(channel.shape, dtype=np.uint8)
    share = (channel.astype(np.float64) - limits[0]) / (limits[1] - limits[0])
    return np.rint(np.clip(share, 0, 1) * (levels - 1)).astype(np.uint8)


def _unpack(bytes_of: dict[str, Array], entry: dict[str, Any], levels: int) -> PreparedCase:
    shape = tuple(int(extent) for extent in entry["shape"])
    if len(shape) != 4 or min(shape) < 1 or prod(shape) > _MAX_VALUES or len(entry["ranges"]) != shape[0]:
        raise ValueError(f"crops of {shape} are not possible")
    differences = np.frombuffer(_inflate(bytes_of["image"], prod(shape)), dtype=np.uint8).reshape(shape)
    steps = np.cumsum(differences, axis=-1, dtype=np.uint8)
    labels = np.frombuffer(_inflate(bytes_of["labels"], 2 * prod(shape[1:])), dtype="<i2").reshape(shape[1:])
    image = np.full(shape, np.nan, dtype=np.float32)
    for channel, limits in enumerate(entry["ranges"]):
        if limits is not None:
            image[channel] = limits[0] + steps[channel] * ((limits[1] - limits[0]) / (levels - 1))
    target = torch.from_numpy(labels.astype(np.int16))
    return PreparedCase(
        id=str(entry["case"]),
        image=torch.from_numpy(image),
        padding=torch.tensor(entry["padding"], dtype=torch.float32),
        labels=target,
        foreground=(target > 0).nonzero().to(torch.int16),
    )


def _deflate(array: Array) -> Tensor:
    return torch.frombuffer(bytearray(zlib.compress(np.ascontiguousarray(array).tobytes(), 9)), dtype=torch.uint8)


def _inflate(packed: Array, size: int) -> bytes:
    # Never inflate more than expected, whatever the file says.
    content = zlib.decompressobj().decompress(packed.tobytes(), size + 1)
    if len(content) != size:
        raise ValueError(f"a crop holds {len(content)} bytes instead of {size}")
    return content
