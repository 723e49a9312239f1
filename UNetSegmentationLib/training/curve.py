"""Training curve: loss, learning rate and validation figures over steps, drawn from the record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

import numpy as np

from ..core.errors import InputError
from ..core.event_log import TrainingRecord, follow_resumes
from ..core.files import atomic_path
from ..core.task import Event

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FORMATS = (".png", ".svg")
METRICS = {"dice": "Dice", "iou": "IoU", "hd_mm": "Hausdorff (mm)", "hd95_mm": "HD95 (mm)"}
_SMOOTHED_SHARE = 0.05
_LINES = ("-", "--", ":", "-.")
Points = tuple[Sequence[float], Sequence[float]]


def draw_curve(
    record_path: Path | str, picture_path: Path | str, *, label_names: Mapping[int, str] | None = None
) -> None:
    """Draw the current record into an image file, which is replaced atomically.

    Args:
        record_path: File of a `TrainingRecord`.
        picture_path: A .png or .svg; the same record yields the same bytes.
        label_names: Names by label value, for the legend.

    Raises:
        InputError: No record, an unsupported file format, or matplotlib is not installed.
    """
    picture = Path(picture_path)
    if picture.suffix.lower() not in FORMATS:
        raise InputError(f"cannot draw {picture.name}: use a name ending in {' or '.join(FORMATS)}")
    events = follow_resumes(TrainingRecord.read(record_path))
    try:
        import matplotlib as mpl
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise InputError("drawing a curve needs matplotlib: install it with pip install matplotlib") from error
    series = {name: points for name in METRICS if (points := validation_series(events, name))}
    # Identifiers and dates would make files of equal curves differ.
    with mpl.rc_context({"svg.hashsalt": "training curve"}), atomic_path(picture) as temporary:
        figure = Figure(figsize=(10, 3 + 2.6 * -(-len(series) // 2)), layout="constrained")
        FigureCanvasAgg(figure)
        _draw_all(figure, events, series, label_names or {})
        metadata = {"Date": None} if picture.suffix.lower() == ".svg" else {"Software": None}
        figure.savefig(temporary, format=picture.suffix.lower()[1:], dpi=110, metadata=metadata)


class LiveCurve:
    """Keeps a curve up to date while a record grows, at most once every `every_s` seconds.

    Args:
        record_path: File of a `TrainingRecord`.
        picture_path: A .png or .svg.
        every_s: Shortest time between two updates; one takes a few tenths of a second.
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
        """Draw if due, and always for the last update; return whether it was drawn."""
        if not is_last and monotonic() - self._drawn_at < self.every_s:
            return False
        draw_curve(self.record_path, self.picture_path, label_names=self.label_names)
        self._drawn_at = monotonic()
        return True


def step_series(events: Sequence[Event], name: str) -> Points:
    """Return steps and values of entry `name` of the step events, omitting those without a value."""
    rows = [
        (event["step"], event[name]) for event in events if event.get("event") == "step" and event.get(name) is not None
    ]
    return [step for step, _ in rows], [value for _, value in rows]


def validation_series(events: Sequence[Event], metric: str) -> dict[int, Points]:
    """Return steps and mean values of a metric for every label, omitting labels without any value."""
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


def _draw_all(
    figure: Figure, events: Sequence[Event], series: Mapping[str, Mapping[int, Points]], names: Mapping[int, str]
) -> None:
    """Draw the loss over the whole width, two metrics per row below it, and one legend."""
    grid = figure.add_gridspec(1 + -(-len(series) // 2), 2)
    top = figure.add_subplot(grid[0, :])
    _draw_loss(top, events)
    last = max((event.get("step", 0) for event in events), default=0)
    axes = [top]
    for index, (name, by_label) in enumerate(series.items()):
        axes.append(figure.add_subplot(grid[1 + index // 2, index % 2]))
        _draw_metric(axes[-1], name, by_label, names)
    for axis in axes:
        axis.set_xlim(0, max(1, last) * 1.02)
        axis.grid(alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
    for axis in axes[-2:]:
        axis.set_xlabel("step")
    if len(axes) > 1:
        handles, titles = axes[1].get_legend_handles_labels()
        figure.legend(handles, titles, loc="outside lower center", ncols=min(len(titles), 5), frameon=False)


def _draw_loss(axis: Axes, events: Sequence[Event]) -> None:
    steps, losses = step_series(events, "loss")
    axis.plot(steps, losses, color="0.75", linewidth=0.8)
    axis.plot(steps, smooth(losses), color="C0")
    axis.set_ylabel("loss")
    steps, rates = step_series(events, "learning_rate")
    if rates:
        twin = axis.twinx()
        twin.plot(steps, rates, color="0.5", linestyle=":", linewidth=1)
        twin.set_ylabel("learning rate (dotted)", color="0.4")
        twin.tick_params(axis="y", colors="0.4")
        twin.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))
        twin.set_ylim(bottom=0)
        twin.spines["top"].set_visible(False)


def _draw_metric(axis: Axes, metric: str, by_label: Mapping[int, Points], names: Mapping[int, str]) -> None:
    largest = 0.0
    for index, (label, (steps, values)) in enumerate(by_label.items()):
        # Ten colours, then the same with other line styles.
        style = _LINES[index // 10 % len(_LINES)]
        title = names.get(label, f"label {label}")
        axis.plot(
            steps, values, f"C{index % 10}", linestyle=style, marker="o", markersize=4, clip_on=False, label=title
        )
        largest = max(largest, *values)
    axis.set_ylabel(METRICS[metric])
    axis.set_ylim(0, 1 if metric in ("dice", "iou") else 1.1 * largest or 1)


def smooth(values: Sequence[float]) -> list[float]:
    """Return the mean of each value and those before it, over a twentieth of their number."""
    width = max(1, int(len(values) * _SMOOTHED_SHARE))
    sums = np.cumsum([0.0, *values])
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(ends - width, 0)
    means: list[float] = ((sums[ends] - sums[starts]) / (ends - starts)).tolist()
    return means
