"""One task for all long work: events, progress of nested parts, and cancellation."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from Testing.Lib.conftest import events_of
from UNetSegmentationLib.core.errors import CancelledError
from UNetSegmentationLib.core.task import UNWATCHED, Task

SHARES = st.floats(0, 1)
RANGES = st.tuples(SHARES, SHARES).map(sorted)


def test_events_are_told_as_they_are():
    event = {"event": "read", "case": "a", "number": 1, "of": 2}

    def work(task):
        task.report(event)
        task.progress(0.25, "Reading")

    assert events_of(work) == [event, {"event": "progress", "fraction": 0.25, "stage": "Reading"}]


@given(outer=RANGES, inner=RANGES, fraction=SHARES)
def test_progress_of_a_part_lies_within_it_as_often_as_it_is_divided(outer, inner, fraction):
    seen = []
    part = Task(seen.append).part(*outer)
    part.part(*inner).progress(fraction)
    part.progress(inner[0] + (inner[1] - inner[0]) * fraction)
    first, second = (event["fraction"] for event in seen)
    assert (
        first
        == second
        == pytest.approx(outer[0] + (outer[1] - outer[0]) * (inner[0] + (inner[1] - inner[0]) * fraction))
    )
    assert outer[0] - 1e-12 <= first <= outer[1] + 1e-12


@pytest.mark.parametrize(
    ("outer", "inner", "own", "said"),
    [
        ("1 of 3", "First stage", "Segmenting", "1 of 3: First stage: Segmenting"),
        ("1 of 3", "", "Segmenting", "1 of 3: Segmenting"),
        ("", "Segmenting", "", "Segmenting"),
        ("", "", "", ""),
    ],
)
def test_stages_are_told_from_the_outermost_to_the_innermost(outer, inner, own, said):
    (event,) = events_of(lambda task: task.part(0, 0.5, stage=outer).part(0, 0.5, stage=inner).progress(1, own))
    assert event == {"event": "progress", "fraction": 0.25, "stage": said}


def test_other_events_pass_through_a_part_unchanged():
    event = {"event": "step", "step": 3, "share_left": 0.5}
    assert events_of(lambda task: task.part(0.5, 1, stage="Second").report(event)) == [event]


@pytest.mark.parametrize(
    "derive", [lambda task: task, lambda task: task.part(0, 1), lambda task: task.observed_by(None)]
)
def test_a_task_and_all_that_is_derived_from_it_are_cancelled_together(derive):
    is_asked = False
    task = derive(Task(is_cancelled=lambda: is_asked))
    assert (task.is_cancelled, task.can_be_cancelled) == (False, True)
    task.check()
    is_asked = True
    assert task.is_cancelled
    with pytest.raises(CancelledError, match="^cancelled$"):
        task.check()
    with pytest.raises(CancelledError, match="^cancelled while it was read$"):
        task.check("cancelled while it was read")


def test_another_observer_hears_the_events_in_place_of_the_first():
    first, second = [], []
    task = Task(first.append)
    task.observed_by(second.append).report({"event": "read"})
    task.observed_by(None).progress(0.5)
    assert (first, second) == ([], [{"event": "read"}])
    task.report({"event": "done"})
    assert first == [{"event": "done"}]


def test_what_an_observer_raises_ends_the_work():
    def refuse(_event):
        raise KeyError("full")

    with pytest.raises(KeyError, match="full"):
        Task(refuse).part(0, 1).progress(0.5)


def test_work_that_nobody_watches_is_never_cancelled():
    UNWATCHED.progress(0.5, "Reading")
    UNWATCHED.part(0, 1).report({"event": "read"})
    UNWATCHED.check()
    assert (UNWATCHED.is_cancelled, UNWATCHED.can_be_cancelled) == (False, False)
