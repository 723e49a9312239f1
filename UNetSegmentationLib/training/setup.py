"""The plan of a training: fingerprint, raw channels, augmentation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ..augmentation import AugmentationConfig
from ..backends.parts.devices import choose_device
from ..cases.dataset import Case, name_channels, read_fingerprint
from ..core.task import UNWATCHED, Task
from ..image.labels import Label, names_a_side
from ..planning.fingerprint import Fingerprint
from ..planning.plan import Normalization, Plan, read_plan
from ..presets import PRESETS
from .budget import budget_of, plan_for
from .job import TrainingJob


def augmentation_for(plan: Plan, labels: Sequence[Label]) -> AugmentationConfig:
    """Return the augmentation of a plan; without mirroring if a label names a side."""
    mirror_axes = () if names_a_side(label.name for label in labels) else plan.mirror_axes
    spacing_mm = plan.spacing_mm if all(plan.spacing_mm) else (1.0, 1.0, 1.0)
    raw_channels = tuple(index for index, scheme in enumerate(plan.normalization) if scheme.scheme == "none")
    return AugmentationConfig(
        spacing_mm=spacing_mm, mirror_axes=mirror_axes, outside_label=0, raw_channels=raw_channels
    )


def plan_cases(job: TrainingJob, cases: Sequence[Case], labels: Sequence[Label], *, task: Task = UNWATCHED) -> Plan:
    """Return the plan for the training cases of a job: the job's file, or one made for them.

    Args:
        job: Training job.
        cases: Training cases.
        labels: Labels of the data set.
        task: Told the events of fingerprint_for, and checked for cancellation after each case.

    Raises:
        InputError: The plan or a case cannot be read, or no plan fits the device.
        CancelledError: The task was cancelled.
    """
    if job.plan is not None:
        return read_plan(job.plan)
    fingerprint = fingerprint_for(job, cases, labels, task=task)
    return plan_job(job, fingerprint, labels)


def fingerprint_for(
    job: TrainingJob, cases: Sequence[Case], labels: Sequence[Label], *, task: Task = UNWATCHED
) -> Fingerprint:
    """Return the fingerprint of the training cases of a job.

    Args:
        job: Training job.
        cases: Training cases.
        labels: Labels of the data set.
        task: Gets {"event": "stage", "message": ...} and the events of read_fingerprint, and checked for
            cancellation after each case.

    Raises:
        InputError: A case cannot be read, or no case has a labelled voxel.
        CancelledError: The task was cancelled.
    """
    orientation = "stored" if PRESETS[job.preset].dimensions == (2,) else "RAS"
    names = name_channels(job.dataset, cases, job.channels)
    task.report({"event": "stage", "message": f"Reading {len(cases)} cases for planning"})
    fingerprint = read_fingerprint(cases, orientation=orientation, channel_names=names, task=task)
    return replace(fingerprint, label_names=tuple(label.name for label in labels))


def plan_job(
    job: TrainingJob,
    fingerprint: Fingerprint,
    labels: Sequence[Label],
    *,
    resolution: str = "full",
    dimensions: int | None = None,
) -> Plan:
    """Return the plan for a job's network on its device; see budget.plan_for."""
    return plan_for(
        job.network,
        fingerprint,
        job.preset,
        budget=budget_of(choose_device(job.device)),
        num_classes=len(labels) + 1,
        network_options=job.network_options,
        resolution=resolution,
        dimensions=dimensions,
    )


def leave_raw(plan: Plan, channels: Sequence[int]) -> Plan:
    """Return the plan with some channels not normalised."""
    schemes = [
        Normalization(scheme="none") if index in channels else scheme for index, scheme in enumerate(plan.normalization)
    ]
    return replace(plan, normalization=tuple(schemes))
