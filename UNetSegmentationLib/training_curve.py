"""The picture of a training: loss, learning rate and validation figures over steps, drawn from its record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import InputError
from .files import atomic_path
from .training_record import Event, TrainingRecord, follow_resumes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FORMATS = (".png", ".svg")
METRICS = {"dice": "Dice", "iou": "IoU", "hd_mm": "Hausdorff (mm)", "hd95_mm": "HD95 (mm)"}
_SMOOTHED_SHARE = 0.05
Points = tuple[Sequence[float], Sequence[float]]


def draw_curve(
    record_path: Path | str, picture_path: Path | str, *, label_names: Mapping[int, str] | None = None
) -> None:
    """Draw the record as it stands into a picture, which is replaced as a whole.

    Args:
        record_path: File of a `TrainingRecord`.
        picture_path: A .png or .svg; the same record gives the same bytes.
        label_names: Names by label value, for the legend.

    Raises:
        InputError: No record, another kind of picture, or matplotlib is not installed.
    """
    picture = Path(picture_path)
    if picture.suffix.lower() not in FORMATS:
        raise InputError(f"cannot draw {picture.name}: give a name that ends in {' or '.join(FORMATS)}")
    events = follow_resumes(TrainingRecord.read(record_path))
    try:
        import matplotlib as mpl
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise InputError("drawing a curve needs matplotlib: install it with pip install matplotlib") from error
    series = {name: points for name in METRICS if (points := validation_series(events, name))}
    # Identifiers and dates that change from run to run would make equal pictures differ.
    with mpl.rc_context({"svg.hashsalt": "training curve"}), atomic_path(picture) as temporary:
        figure = Figure(figsize=(8, 2.6 * (1 + len(series))), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots(1 + len(series), squeeze=False, sharex=True)[:, 0]
        _draw_loss(axes[0], events)
        for axis, (name, by_label) in zip(axes[1:], series.items(), strict=True):
            _draw_metric(axis, name, by_label, label_names or {})
        axes[-1].set_xlabel("step")
        metadata = {"Date": None} if picture.suffix.lower() == ".svg" else {"Software": None}
        figure.savefig(temporary, format=picture.suffix.lower()[1:], dpi=110, metadata=metadata)


class LiveCurve:
    """Keeps a picture up to date while a record grows, at most once in `every_s` seconds.

    Args:
        record_path: File of a `TrainingRecord`.
        picture_path: A .png or .svg.
        every_s: Shortest time between two drawings; one takes a few tenths of a second.
        label_names: Names by label value, for the legend.
    """

    def __init__(
        self,
        record_path: Path | str,
        picture_path: Path | str,
        *,
        every_s: float = 15.0,
        label_names: Mapping[int, str] | None = None,
    ) -> None:
        self.record_path = record_path
        self.picture_path = picture_path
        self.every_s = every_s
        self.label_names = label_names
        self._drawn_at = -float("inf")

    def update(self, *, is_last: bool = False) -> bool:
        """Draw if it is time, or in any case the last time; return whether it was drawn."""
        if not is_last and monotonic() - self._drawn_at < self.every_s:
            return False
        draw_curve(self.record_path, self.picture_path, label_names=self.label_names)
        self._drawn_at = monotonic()
        return True


def step_series(events: Sequence[Event], name: str) -> Points:
    """Return steps and values of entry `name` of the step events, those without a value left out."""
    rows = [
        (event["step"], event[name]) for event in events if event.get("event") == "step" and event.get(name) is not None
    ]
    return [step for step, _ in rows], [value for _, value in rows]


def validation_series(events: Sequence[Event], metric: str) -> dict[int, Points]:
    """Return steps and mean values of a metric for every label, labels without any value left out."""
    series: dict[int, tuple[list[float], list[float]]] = {}
    for event in events:
        if event.get("event") != "validation":
            continue
        for label, value in _means(event, metric).items():
            if value is not None:
                steps, values = series.setdefault(label, ([], []))
                steps.append(event["step"])
                values.append(value)
    return dict(sorted(series.items()))


def _means(event: Event, metric: str) -> dict[int, Any]:
    """Return the mean of a metric by label; a bare list of values stands for labels 1, 2, ..."""
    if "labels" in event:
        return {int(label): figures.get(metric) for label, figures in event["labels"].items()}
    return dict(enumerate(event.get(metric) or [], start=1))


def _draw_loss(axis: Axes, events: Sequence[Event]) -> None:
    steps, losses = step_series(events, "loss")
    axis.plot(steps, losses, color="0.75", linewidth=0.8)
    axis.plot(steps, smooth(losses), color="C0")
    axis.set_ylabel("loss")
    axis.grid(alpha=0.3)
    steps, rates = step_series(events, "learning_rate")
    if rates:
        twin = axis.twinx()
        twin.plot(steps, rates, color="C1", linestyle=":", linewidth=1)
        twin.set_ylabel("learning rate", color="C1")
        twin.set_ylim(bottom=0)


def _draw_metric(axis: Axes, metric: str, by_label: Mapping[int, Points], names: Mapping[int, str]) -> None:
    for label, (steps, values) in by_label.items():
        axis.plot(steps, values, marker="o", markersize=3, label=names.get(label, f"label {label}"))
    axis.set_ylabel(METRICS[metric])
    if metric in ("dice", "iou"):
        axis.set_ylim(0, 1)
    else:
        axis.set_ylim(bottom=0)
    axis.grid(alpha=0.3)
    axis.legend(fontsize="small", ncols=3)


def smooth(values: Sequence[float]) -> list[float]:
    """Return the mean of each value and those before it, over a twentieth of their number."""
    width = max(1, int(len(values) * _SMOOTHED_SHARE))
    sums = np.cumsum([0.0, *values])
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(ends - width, 0)
    means: list[float] = ((sums[ends] - sums[starts]) / (ends - starts)).tolist()
    return means
