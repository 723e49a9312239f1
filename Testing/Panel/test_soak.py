"""The short version of the soak; `make soak` runs 200 with the real worker."""

from soak import EVENTS, Report, faults, soak


def test_runs_with_cancels_closed_scenes_and_reloads_leave_nothing(panel):
    report = soak(panel, 10, seed=5, model="plain", slowModel="slow")
    assert set(report.events) == set(EVENTS)
    assert faults(report) == [], report


def test_a_leak_is_told(panel):
    report = soak(panel, 1, seed=5, model="plain", slowModel="slow")
    report.last.nodes += 1
    report.last.processes = 2
    report.memory_mb = [100.0] * 20 + [200.0] * 20
    assert len(faults(report)) == 3
    assert isinstance(report, Report)
