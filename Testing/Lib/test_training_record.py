"""Laws of the training record and its curve: nothing lost, nothing half read, resumed equals uninterrupted."""

from __future__ import annotations

import json
import sys
from math import inf, nan

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from UNetSegmentationLib.core.errors import InputError
from UNetSegmentationLib.core.event_log import TrainingRecord, follow_resumes
from UNetSegmentationLib.evaluation.metrics import evaluate_case
from UNetSegmentationLib.evaluation.validation import describe_validation
from UNetSegmentationLib.training.curve import LiveCurve, draw_curve, smooth, step_series, validation_series

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
events = st.lists(st.dictionaries(st.text(), values, max_size=4), max_size=5)


def write_course(path, *, steps=60, with_distances=True):
    record = TrainingRecord(path)
    record.append({"event": "start", "step": 0, "is_resumed": False})
    for step in range(1, steps + 1):
        record.append({"event": "step", "step": step, "loss": 1 / step, "learning_rate": 0.01 * (1 - step / steps)})
        if step % 20 == 0:
            figures = {"dice": 1 - 1 / step} | ({"hd95_mm": 50 / step} if with_distances else {})
            record.append({"event": "validation", "step": step, **describe_validation({"a": {1: figures, 2: figures}})})
    return record


@given(events=events)
def test_events_come_back_as_they_were(tmp_path_factory, events):
    path = tmp_path_factory.mktemp("record") / "deeper" / "record.jsonl"
    record = TrainingRecord(path)
    for index, event in enumerate(events):
        record.append(event)
        assert TrainingRecord.read(path) == events[: index + 1]


@given(cut=st.integers(0, 200))
def test_a_cut_record_reads_up_to_its_last_whole_line_and_goes_on_there(tmp_path_factory, cut):
    path = tmp_path_factory.mktemp("record") / "record.jsonl"
    written = [{"event": "step", "step": step, "note": "ü\n"} for step in range(4)]
    for event in written:
        TrainingRecord(path).append(event)
    content = path.read_bytes()[:cut]
    path.write_bytes(content)
    whole = written[: content.count(b"\n")]
    assert TrainingRecord.read(path) == whole
    TrainingRecord(path).append({"step": 9})
    assert TrainingRecord.read(path) == [*whole, {"step": 9}]


def test_numbers_of_numpy_are_taken_and_those_json_lacks_become_null(tmp_path):
    record = TrainingRecord(tmp_path / "record.jsonl")
    record.append({"a": np.float32(0.5), "b": [nan, np.float64(inf)], "c": np.arange(2), 3: (1, -inf)})
    line = record.path.read_text(encoding="utf-8")
    assert json.loads(line, parse_constant=pytest.fail) == {"a": 0.5, "b": [None, None], "c": [0, 1], "3": [1, None]}


def test_damage_before_the_end_is_named(tmp_path):
    path = tmp_path / "record.jsonl"
    path.write_text('{"step": 1}\n{"st\n{"step": 3}\n', encoding="utf-8")
    with pytest.raises(InputError, match="line 2"):
        TrainingRecord.read(path)
    path.write_text("[1]\n", encoding="utf-8")
    with pytest.raises(InputError, match="line 1"):
        TrainingRecord.read(path)


def test_a_record_that_cannot_be_read_or_written_is_named(tmp_path):
    with pytest.raises(InputError, match="cannot read a training record"):
        TrainingRecord.read(tmp_path / "none.jsonl")
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write"):
        TrainingRecord(tmp_path / "file" / "record.jsonl").append({})
    with pytest.raises(TypeError):
        TrainingRecord(tmp_path / "record.jsonl").append({"value": object()})


def test_resumed_course_equals_the_uninterrupted_one():
    def steps(first, last):
        return [{"event": "step", "step": step, "loss": 1 / step} for step in range(first, last + 1)]

    start, resumed = {"event": "start", "step": 0}, {"event": "start", "step": 4}
    course = follow_resumes([start, *steps(1, 7), resumed, *steps(5, 9), resumed, *steps(5, 10)])
    assert step_series(course, "loss") == step_series([start, *steps(1, 10)], "loss")


def test_validation_holds_every_case_and_the_means_of_what_is_defined():
    reference = np.zeros((4, 4, 4), np.uint8)
    reference[1:3] = 1
    shifted = np.roll(reference, 1, axis=0)
    cases = {
        "good": evaluate_case(reference, reference, [1, 2], (1, 1, 1)),
        "shifted": evaluate_case(shifted, reference, [1, 2], (1, 1, 1)),
        "missed": evaluate_case(reference * 0, reference, [1, 2], (1, 1, 1)),
    }
    described = json.loads(json.dumps(describe_validation(cases), allow_nan=False))
    assert described["cases"]["shifted"]["1"]["dice"] == pytest.approx(0.5)
    assert described["cases"]["missed"]["1"]["hd_mm"] is None
    assert described["labels"]["1"]["dice"] == pytest.approx((1 + 0.5 + 0) / 3)
    assert described["labels"]["1"]["hd_mm"] == pytest.approx((0 + 1) / 2)
    assert described["labels"]["2"]["dice"] is None
    assert described["undefined"] == {
        "1": {name: int(name.endswith("_mm")) for name in cases["good"][1]},
        "2": {name: 0 if name == "volume_difference_mm3" else 3 for name in cases["good"][1]},
    }


def test_series_follow_the_record(tmp_path):
    record = write_course(tmp_path / "record.jsonl")
    events = TrainingRecord.read(record.path)
    assert step_series(events, "loss") == (list(range(1, 61)), [1 / step for step in range(1, 61)])
    expected = ([20, 40, 60], [pytest.approx(1 - 1 / step) for step in (20, 40, 60)])
    assert validation_series(events, "dice") == {1: expected, 2: expected}
    assert validation_series(events, "iou") == {}


def test_bare_lists_of_dice_stand_for_labels_in_their_order():
    events = [{"event": "validation", "step": 5, "dice": [0.5, None, 0.7]}]
    assert validation_series(events, "dice") == {1: ([5], [0.5]), 3: ([5], [0.7])}


@given(values=st.lists(st.floats(-1e3, 1e3), max_size=80))
def test_smoothing_keeps_length_and_bounds(values):
    smoothed = smooth(values)
    assert len(smoothed) == len(values)
    assert all(min(values) - 1e-6 <= value <= max(values) + 1e-6 for value in smoothed)


@pytest.mark.parametrize("suffix", [".png", ".svg"])
def test_same_record_draws_the_same_picture_and_more_record_another(tmp_path, suffix):
    record = write_course(tmp_path / "record.jsonl")
    pictures = [tmp_path / f"{name}{suffix}" for name in ("one", "two", "three")]
    draw_curve(record.path, pictures[0], label_names={1: "liver"})
    draw_curve(record.path, pictures[1], label_names={1: "liver"})
    record.append({"event": "step", "step": 61, "loss": 5.0})
    draw_curve(record.path, pictures[2], label_names={1: "liver"})
    contents = [picture.read_bytes() for picture in pictures]
    assert contents[0] == contents[1] != contents[2]
    assert contents[0].startswith(b"\x89PNG" if suffix == ".png" else b"<?xml")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([record.path.name, *(p.name for p in pictures)])


@pytest.mark.parametrize("lines", ["", '{"event":"start","step":0}\n', '{"event":"step","step":1,"loss":null}\n'])
def test_a_record_without_figures_draws_too(tmp_path, lines):
    path = tmp_path / "record.jsonl"
    path.write_text(lines)
    draw_curve(path, tmp_path / "curve.png")
    assert (tmp_path / "curve.png").stat().st_size > 1000


def test_live_curve_draws_at_its_pace_and_at_the_end(tmp_path):
    record = write_course(tmp_path / "record.jsonl", steps=5)
    live = LiveCurve(record.path, tmp_path / "curve.png", every_s=1000)
    assert [live.update(), live.update(), live.update(is_last=True)] == [True, False, True]
    eager = LiveCurve(record.path, tmp_path / "curve.png", every_s=0)
    assert eager.update()
    assert eager.update()


def test_wrong_pictures_are_named_and_the_old_one_stays(tmp_path, monkeypatch):
    record = write_course(tmp_path / "record.jsonl", steps=3)
    with pytest.raises(InputError, match=r"\.png or \.svg"):
        draw_curve(record.path, tmp_path / "curve.gif")
    picture = tmp_path / "curve.png"
    picture.write_bytes(b"old")
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(InputError, match="pip install matplotlib"):
        draw_curve(record.path, picture)
    assert picture.read_bytes() == b"old"
