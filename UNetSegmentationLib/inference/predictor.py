"""From a volume in scanner geometry to a labelmap in the same geometry."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch

from .. import __version__
from ..backends.parts.devices import choose_device
from ..backends.parts.engine import Engine
from ..backends.parts.store import identity_of
from ..conventions import OVERLAP, PreparedVolume, conventions_of
from ..core.errors import InputError
from ..core.messages import sentence
from ..core.task import UNWATCHED, Task
from ..image.geometry import Array, Volume
from ..image.labels import Label
from ..image.missing_values import fill_gaps
from ..models.description import find_previous
from ..models.fit import check_image_fits, lowest_value, spacing_warning, value_warning
from ..networks.parts.weights import load_network
from ..postprocess import apply_steps
from ..postprocess.parts.steps import FinishingSteps, refine_logits, sort_steps
from .memory import Workload
from .memory_ladder import Foresight, apply_network, foresee

# Shares of the progress bar: (start, end).
_PREPARING, _PREDICTING, _FINISHING = (0.0, 0.05), (0.05, 0.9), (0.9, 1.0)
# The first stage of a cascade uses coarser voxels and is faster.
_FIRST_STAGE_SHARE = 0.3
_FIRST_STAGE = sentence("First stage")


@dataclass(frozen=True, kw_only=True)
class Segmentation:
    """A result on the grid of its volume.

    Attributes:
        labelmap: Label values (D, H, W), uint8 or uint16.
        labels: All labels of the model, found or not.
        probabilities: (K, D, H, W) float16, background first, or None if not requested.
        duration_s: Seconds by stage, and "total".
        warnings: Sentences for the user.
        provenance: Model, checksum, device, settings and versions.
    """

    labelmap: Array
    labels: tuple[Label, ...]
    probabilities: Array | None = None
    duration_s: dict[str, float] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    provenance: dict[str, Any] = field(default_factory=dict)


class Predictor:
    """A model in memory, ready for one volume after another.

    Args:
        folder: Model folder.
        device: "auto", "cpu", "cuda" or "mps".
        backend: One of BACKENDS; by default that of the environment variable UNETSEG_BACKEND, or the fastest.

    Raises:
        InputError: The folder is not a valid model, or the machine has no such device or cannot use that backend.
    """

    def __init__(self, folder: Path | str, *, device: str = "auto", backend: str | None = None) -> None:
        self.folder = Path(folder)
        self.device = choose_device(device)
        network, self.description = load_network(self.folder)
        self.conventions = conventions_of(self.description.plan)
        self.network = network.to(self.device)
        self.engine = Engine(
            self.network,
            device=self.device,
            folder=self.folder,
            identity=identity_of(self.description),
            backend=backend,
        )
        previous = find_previous(self.folder, self.description)
        self.previous = None if previous is None else Predictor(previous, device=device, backend=backend)

    def segment(
        self,
        volume: Volume,
        *,
        tta: bool = False,
        overlap: float | None = None,
        postprocess: tuple[str, ...] | None = None,
        with_probabilities: bool = False,
        task: Task = UNWATCHED,
    ) -> Segmentation:
        """Segment a volume.

        Args:
            volume: A volume with the model's channels.
            tta: Average over mirrored copies along the axes that the model was trained to mirror.
            overlap: Overlap of neighbouring tiles as a fraction, or None for the default of the model's conventions.
            postprocess: Steps as `name` or `name:option=value,...`, or None for the model's own.
            with_probabilities: Also return probabilities.
            task: Receives progress and stage; polled for cancellation.

        Raises:
            InputError: The volume does not fit the model.
            CancelledError: The task was cancelled.
        """
        plan, output = self.description.plan, self.description.output
        overlap = self.conventions.overlap if overlap is None else overlap
        names = self.description.postprocess if postprocess is None else postprocess
        steps = sort_steps(names, output=output)
        found_first = self._find_first(volume, tta=tta, overlap=overlap, task=task.part(0, _FIRST_STAGE_SHARE))
        clock = _Clock(task, first=found_first)
        with clock.stage("Preparing the image", _PREPARING):
            clean, warnings = self.check(volume)
            task.check()
            prepared = self._prepare(clean, found_first, task=task)
        with clock.stage("Segmenting", _PREDICTING) as segmenting:
            logits, classes, shortage = apply_network(
                self.engine,
                self.description,
                prepared,
                self._workload(volume, prepared.grid_shape, steps, tta=tta, with_probabilities=with_probabilities),
                tiling=self.conventions.tiling(
                    prepared.grid_shape, self.network.alignment, overlap=overlap, is_mirrored=tta
                ),
                task=self.engine.begin_run(segmenting),
            )
        warnings += [shortage] if shortage else []
        if tta and not plan.mirror_axes:
            warnings.append(
                "the model was not trained with mirroring: test-time averaging over mirrored copies was skipped"
            )
        with clock.stage("Finishing", _FINISHING):
            if logits is not None:
                logits = self._refined(logits, prepared, steps, channels=volume.channels)
                task.check()
                classes = prepared.classes_on_image([logits], output=output, task=task)
            assert classes is not None
            labelmap = prepared.restore(self._label_values(classes))
            for step in steps.on_labelmap:
                task.check()
                labelmap = apply_steps(labelmap, volume.spacing_mm, (step,))
            probabilities = None
            if with_probabilities and logits is not None:
                probabilities = self._probabilities(logits, prepared)
        clock.finish()
        if not labelmap.any():
            looked_for = ", ".join(label.name for label in self.description.labels)
            warnings.append(f"nothing was found: the model segments {looked_for}")
        return Segmentation(
            labelmap=labelmap,
            labels=self.description.labels,
            probabilities=probabilities,
            duration_s=clock.duration_s,
            warnings=tuple(warnings),
            provenance=self._provenance(tta=tta, overlap=overlap, postprocess=names),
        )

    def foresee(
        self,
        volume: Volume,
        *,
        tta: bool = False,
        with_probabilities: bool = False,
    ) -> Foresight:
        """Return how a volume would be segmented with the currently free memory; for a cascade, its last stage.

        Args:
            volume: A volume, of which only the geometry and the voxel type are used.
            tta: As for `segment`.
            with_probabilities: Likewise.

        Raises:
            InputError: The volume does not fit the model.
        """
        check_image_fits(self.description, channels=volume.channels, shape=volume.shape)
        steps = sort_steps(self.description.postprocess, output=self.description.output)
        shape = self.conventions.foreseen_shape(volume)
        workload = self._workload(volume, shape, steps, tta=tta, with_probabilities=with_probabilities)
        return foresee(self.engine, self.description, workload)

    def _workload(
        self,
        volume: Volume,
        shape: tuple[int, int, int],
        steps: FinishingSteps,
        *,
        tta: bool,
        with_probabilities: bool,
    ) -> Workload:
        """Return the workload for a volume of size `shape` (D, H, W) on the network's grid."""
        # Only these need all logits at once; otherwise labels are computed while the network is still running.
        is_whole = with_probabilities or bool(steps.on_probabilities) or self.conventions.needs_all_logits
        return Workload(source=(volume.channels, *volume.shape), shape=shape, is_whole=is_whole, is_mirrored=tta)

    def prepare(self, volume: Volume, *, task: Task = UNWATCHED) -> PreparedVolume:
        """Return a volume prepared for the network, including the result of a cascade's first stage.

        Args:
            volume: Volume without NaN and infinity, as returned by `check`.
            task: Polled for cancellation.

        Raises:
            InputError: The volume does not fit the model.
            CancelledError: The task was cancelled.
        """
        found_first = self._find_first(volume, tta=False, overlap=OVERLAP, task=task.observed_by(None))
        return self._prepare(volume, found_first, task=task)

    def _find_first(
        self,
        volume: Volume,
        *,
        tta: bool,
        overlap: float,
        task: Task,
    ) -> Segmentation | None:
        """Return the result of a cascade's first stage, or None if the model is not a cascade.

        Its warnings are dropped: the second stage warns about the same image, and may find what the first one missed.
        """
        if self.previous is None:
            return None
        check_image_fits(self.description, channels=volume.channels, shape=volume.shape)
        return self.previous.segment(volume, tta=tta, overlap=overlap, task=task.part(0, 1, stage=_FIRST_STAGE))

    def _prepare(self, volume: Volume, found_first: Segmentation | None, *, task: Task) -> PreparedVolume:
        if found_first is None or self.description.previous_stage is None:
            return self.conventions.prepare(volume, task=task)
        return self.conventions.prepare(
            volume,
            found_first=found_first.labelmap,
            label_values=self.description.previous_stage.label_values,
            task=task,
        )

    def check(self, volume: Volume) -> tuple[Volume, list[str]]:
        """Return the volume without NaN and infinity, and warnings.

        Raises:
            InputError: Wrong number of channels or dimensions, or no finite or no varying values.
        """
        check_image_fits(self.description, channels=volume.channels, shape=volume.shape)
        names = [channel.name for channel in self.description.channels]
        array, warnings = _without_gaps(volume.array, names, may_be_missing=self.network.accepts_missing_channels)
        warnings += [
            value_warning(self.description.preset, lowest=lowest_value(array)),
            spacing_warning(self.description, volume.spacing_mm),
        ]
        return Volume(array, volume.affine_ras), [warning for warning in warnings if warning]

    def _refined(
        self, logits: torch.Tensor, prepared: PreparedVolume, steps: FinishingSteps, *, channels: int
    ) -> torch.Tensor:
        """Return the logits after the steps on probabilities, which use the available channels."""
        image = prepared.image[:channels]
        present = ~image.flatten(1).isnan().any(dim=1)
        return refine_logits(
            logits,
            image[present],
            spacing_mm=prepared.spacing_mm,
            names=steps.on_probabilities,
        )

    def _label_values(self, classes: Array) -> Array:
        """Map class numbers 0..K-1 to the model's label values."""
        values = [0, *(label.value for label in self.description.labels)]
        if values == list(range(len(values))):
            return classes
        return np.array(values, dtype=np.uint8 if max(values) < 256 else np.uint16)[classes]

    def _probabilities(self, logits: torch.Tensor, prepared: PreparedVolume) -> Array:
        probabilities = prepared.probabilities_on_image(logits, output=self.description.output)
        return prepared.restore(probabilities, outside=(1, *(0,) * (len(probabilities) - 1)))

    def _identity(self) -> dict[str, str]:
        return {
            "model_id": self.description.id,
            "weights_sha256": self.description.weights_sha256,
            "network": self.description.network,
        }

    def _provenance(self, **settings: Any) -> dict[str, Any]:
        return {
            **self._identity(),
            **({"first_stage": self.previous._identity()} if self.previous else {}),
            "device": str(self.engine.computed_on),
            "backend": ", ".join(self.engine.used),
            "precision": ", ".join(dict.fromkeys(self.engine.used.values())),
            "settings": settings,
            "versions": {
                "unetsegmentation": __version__,
                "torch": torch.__version__,
                "python": platform.python_version(),
            },
        }


class _Clock:
    """Times the stages and gives each its part of the task."""

    def __init__(self, task: Task, *, first: Segmentation | None = None) -> None:
        self._task = task.part(_FIRST_STAGE_SHARE, 1) if first else task
        self.duration_s = {_FIRST_STAGE: first.duration_s["total"]} if first else {}

    @contextmanager
    def stage(self, name: str, share: tuple[float, float]) -> Iterator[Task]:
        """Time a stage that covers `share` of the task, and yield the task of the stage."""
        self._task.check()
        stage = self._task.part(*share, stage=name)
        stage.progress(0.0)
        began = perf_counter()
        yield stage
        self.duration_s[name] = perf_counter() - began
        stage.progress(1.0)

    def finish(self) -> None:
        """Add the total."""
        self.duration_s["total"] = sum(self.duration_s.values())


def _without_gaps(array: Array, channels: Sequence[str], *, may_be_missing: bool) -> tuple[Array, list[str]]:
    """Return (C, D, H, W) with NaN and infinity filled, and warnings.

    NaN and infinity become the channel's smallest value; a channel without finite values is missing, and stays NaN.

    Raises:
        InputError: A required channel is missing, or all voxels of a channel are the same.
    """
    filled, gaps = zip(*(fill_gaps(channel) for channel in array), strict=True)
    if sum(gaps) == array.size:
        raise InputError("the image contains no finite value (all NaN or infinite): export it again")
    warnings: list[str] = []
    for name, channel, count in zip(channels, filled, gaps, strict=True):
        if count == channel.size:
            if not may_be_missing:
                raise InputError(f"channel {name} contains no finite value (all NaN or infinite): export it again")
            every = ", ".join(channels)
            warnings.append(f"{name} is missing: the result is less certain than with all of {every}")
        elif channel.min() == channel.max():
            raise InputError(f"channel {name} is empty: every voxel is {channel.flat[0]:g}; use another image")
        elif count:
            warnings.append(f"{count} voxels of {name} were NaN or infinite and were treated as background")
    return (np.stack(filled) if warnings else array), warnings
