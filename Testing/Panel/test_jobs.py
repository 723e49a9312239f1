"""A job ends exactly once, whatever comes in which order, and at most one runs."""

from pathlib import Path

import pytest
import slicer
from panel_driver import spheres, spin


class FakeWorker:
    """Takes requests and says nothing by itself."""

    def __init__(self, *, isReady=True):
        self.ready = {"devices": []} if isReady else {}
        self.requests = []
        self.cancelled = []
        self.isReleased = False

    def request(self, operation, fields, listener):
        self.requests.append((operation, fields, listener))
        return len(self.requests)

    def cancel(self, requestId):
        self.cancelled.append(requestId)
        if not self.ready:
            self.say("cancelled", requestId=requestId)

    def say(self, event, *, requestId=1, **fields):
        self.requests[requestId - 1][2]({"id": requestId, "event": event, **fields})

    def release(self):
        self.isReleased = True
        for requestId in range(1, len(self.requests) + 1):
            self.say("cancelled", requestId=requestId)


class Record:
    """What a job tells, in the order in which it does."""

    def __init__(self):
        self.progress = []
        self.outcomes = []

    @property
    def kinds(self):
        return [outcome.kind for outcome in self.outcomes]


@pytest.fixture
def record(module):  # noqa: ARG001
    """What the jobs of a test tell; none of them may leave a folder."""
    yield Record()
    assert spin(lambda: not list(Path(slicer.app.temporaryPath).glob("UNetSegmentation-*")), 2.0)


@pytest.fixture
def worker():
    return FakeWorker()


@pytest.fixture
def makeJob(module, record):  # noqa: ARG001
    """Return a function that makes a job of a new kind, which has a folder and ends with the worker's number."""
    from UNetSegmentationPanel.jobs.job import Outcome
    from UNetSegmentationPanel.jobs.worker_job import WorkerJob

    class CountJob(WorkerJob):
        kind = "count"

        def whyWait(self):
            return "Wait for the count."

        def _begin(self):
            folder = self._makeFolder()
            (folder / "input").write_text("1 2 3")
            self.folder = folder
            self._send("count", {"folder": str(folder)}, stage="Counting", share=(0.2, 0.6))

        def _onResult(self, message):
            self._finish(
                Outcome(kind="done", message=str(message["count"]), warnings=tuple(message.get("warnings", ())))
            )

    def make(worker, kind=CountJob):
        return kind(worker=worker, onProgress=record.progress.append, onFinished=record.outcomes.append)

    make.CountJob = CountJob
    return make


def folderIsGone(job):
    return spin(lambda: not job.folder.exists(), 2.0)


def test_a_result_ends_a_job_which_then_leaves_no_files(makeJob, worker, record):
    job = makeJob(worker)
    job.start()
    assert job.isRunning
    assert job.folder.exists()
    worker.say("progress", fraction=0.5, stage="Half")
    worker.say("result", count=3, warnings=["one is missing"])
    assert [(round(one.fraction, 6), one.stage) for one in record.progress] == [(0.2, "Counting"), (0.4, "Half")]
    assert [(one.kind, one.message, one.warnings) for one in record.outcomes] == [("done", "3", ("one is missing",))]
    assert not job.isRunning
    assert folderIsGone(job)


@pytest.mark.parametrize(
    ("first", "second", "kind"),
    [
        (("result", {"count": 3}), ("error", {"message": "the worker stopped", "details": "crash"}), "done"),
        (("result", {"count": 3}), ("result", {"count": 4}), "done"),
        (("cancelled", {}), ("result", {"count": 3}), "cancelled"),
        (("error", {"message": "no"}), ("cancelled", {}), "failed"),
    ],
    ids=["crash after result", "second result", "result after cancelled", "cancelled after error"],
)
def test_only_the_first_of_two_ends_counts(makeJob, worker, record, first, second, kind):
    job = makeJob(worker)
    job.start()
    for event, fields in (first, second):
        worker.say(event, **fields)
    worker.say("progress", fraction=0.9, stage="Late")
    assert record.kinds == [kind]
    assert "Late" not in [one.stage for one in record.progress]
    assert folderIsGone(job)


def test_a_crash_while_the_result_is_brought_in_does_not_end_the_job(makeJob, worker, record):
    from UNetSegmentationPanel.jobs.job import Outcome

    class SlowJob(makeJob.CountJob):
        def _onResult(self, message):
            self._runSteps(
                self._work(),
                stage="Bringing in",
                share=(0.6, 1.0),
                onDone=lambda count: self._finish(Outcome(kind="done", message=str(count + message["count"]))),
            )

        def _work(self):
            yield 0.5
            return 1

    job = makeJob(worker, SlowJob)
    job.start()
    worker.say("result", count=3)
    worker.say("error", message="the worker stopped")
    assert record.kinds == []
    assert spin(lambda: record.kinds)
    assert [one.message for one in record.outcomes] == ["4"]
    assert record.progress[-1].fraction == pytest.approx(0.8)


def test_a_result_that_comes_before_the_worker_obeys_a_cancel_counts(makeJob, worker, record):
    job = makeJob(worker)
    job.start()
    job.cancel()
    assert worker.cancelled == [1]
    assert record.progress[-1].stage == "Cancelling"
    assert record.kinds == []
    worker.say("result", count=3)
    worker.say("cancelled")
    job.cancel()
    assert record.kinds == ["done"]
    assert worker.cancelled == [1]


def test_an_abandoned_job_ends_at_once_and_keeps_its_files_until_the_worker_has_let_go(makeJob, worker, record):
    job = makeJob(worker)
    job.start()
    job.abandon("The scene was closed.")
    assert [(one.kind, one.message) for one in record.outcomes] == [("cancelled", "The scene was closed.")]
    assert worker.cancelled == [1]
    worker.say("progress", fraction=0.5, stage="Late")
    assert not spin(lambda: not job.folder.exists(), 0.1)
    worker.say("result", count=3)
    assert len(record.outcomes) == 1
    assert "Late" not in [one.stage for one in record.progress]
    assert folderIsGone(job)


def test_an_abandoned_job_says_why_even_where_the_worker_is_still_starting(makeJob, record):
    job = makeJob(FakeWorker(isReady=False))
    job.start()
    assert record.progress[-1].stage == "Starting the worker"
    job.abandon("The scene was closed.")
    assert [one.message for one in record.outcomes] == ["The scene was closed."]
    assert folderIsGone(job)


def test_an_exception_in_steps_ends_the_job_as_failed(makeJob, worker, record, caplog):
    class BrokenJob(makeJob.CountJob):
        def _begin(self):
            self.folder = self._makeFolder()
            self._runSteps(self._work(), stage="Reading", share=(0.0, 0.1), onDone=lambda _nothing: None)

        def _work(self):
            yield 0.1
            raise ValueError("no such thing")

    job = makeJob(worker, BrokenJob)
    job.start()
    assert spin(lambda: record.kinds)
    assert record.kinds == ["failed"]
    assert "no such thing" in record.outcomes[0].message
    assert "ValueError" in caplog.text
    assert folderIsGone(job)


def test_a_job_that_is_cancelled_before_it_has_asked_the_worker_asks_no_more(makeJob, worker, record):
    class ReadingJob(makeJob.CountJob):
        def _begin(self):
            self.folder = self._makeFolder()
            self._runSteps(endlessWork(), stage="Reading", share=(0.0, 0.1), onDone=lambda _nothing: None)

    job = makeJob(worker, ReadingJob)
    job.start()
    job.cancel()
    assert [(one.kind, one.message) for one in record.outcomes] == [("cancelled", "Cancelled; nothing was changed.")]
    assert worker.requests == []
    assert folderIsGone(job)


def endlessWork():
    while True:
        yield 0.0


def makeJobs(worker):
    from UNetSegmentationPanel.jobs.jobs import Jobs

    return Jobs(worker)


def test_one_object_says_what_is_running_and_ends_it(makeJob, worker, record):
    jobs = makeJobs(worker)
    assert (jobs.current, jobs.currentKind, jobs.isRunning, jobs.whyWait()) == (None, "", False, "")
    job = makeJob(worker)
    jobs.start(job)
    assert (jobs.current, jobs.currentKind, jobs.isRunning) == (job, "count", True)
    assert jobs.whyWait() == "Wait for the count."
    with pytest.raises(RuntimeError, match=r"a job is running \(count\): cancel it first"):
        jobs.start(makeJob(worker))
    assert len(worker.requests) == 1
    jobs.cancel()
    worker.say("cancelled")
    assert record.kinds == ["cancelled"]
    assert (jobs.current, jobs.currentKind) == (None, "")
    jobs.start(makeJob(worker))
    assert jobs.isRunning
    jobs.cleanup()
    assert record.kinds == ["cancelled", "cancelled"]
    assert worker.isReleased


@pytest.mark.parametrize("usesScene", [True, False])
def test_only_a_job_on_the_scene_goes_with_the_scene(makeJob, worker, record, usesScene):
    jobs = makeJobs(worker)
    makeJob.CountJob.usesScene = usesScene
    jobs.start(makeJob(worker))
    assert jobs.isSceneInUse == usesScene
    jobs.abandonSceneJob("The scene was closed.")
    assert record.kinds == (["cancelled"] if usesScene else [])
    jobs.cleanup()


def test_a_job_ends_with_what_it_works_on(makeJob, worker, record, clean_scene):  # noqa: ARG001
    volume = slicer.util.addVolumeFromArray(spheres(8))

    class VolumeJob(makeJob.CountJob):
        usesScene = True

        def hasLostInput(self):
            return slicer.mrmlScene.GetNodeByID(self.volumeId) is None

    jobs = makeJobs(worker)
    job = makeJob(worker, VolumeJob)
    job.volumeId = volume.GetID()
    jobs.start(job)
    slicer.mrmlScene.RemoveNode(slicer.util.addVolumeFromArray(spheres(8)))
    assert jobs.isRunning
    slicer.mrmlScene.RemoveNode(volume)
    assert [one.message for one in record.outcomes] == ["Cancelled: the volume was removed."]
    jobs.cleanup()


def test_a_job_that_cannot_be_stopped_now_is_not_cancelled(makeJob, worker, record):
    class StubbornJob(makeJob.CountJob):
        @property
        def canCancel(self):
            return False

    jobs = makeJobs(worker)
    jobs.start(makeJob(worker, StubbornJob))
    jobs.cancel()
    assert worker.cancelled == []
    worker.say("result", count=1)
    assert record.kinds == ["done"]
    jobs.cleanup()


def test_the_panel_knows_a_segmentation_an_import_and_an_installation_by_their_kinds(module):  # noqa: ARG001
    from UNetSegmentationPanel.jobs.import_job import ImportJob
    from UNetSegmentationPanel.jobs.job import Job
    from UNetSegmentationPanel.jobs.segment_job import SegmentJob
    from UNetSegmentationPanel.jobs.worker_job import WorkerJob
    from UNetSegmentationPanel.setup.installation import Installation

    kinds = (SegmentJob, ImportJob, Installation)
    assert len({kind.kind for kind in kinds}) == len(kinds)
    assert [kind.__name__ for kind in kinds if kind.usesScene] == ["SegmentJob"]
    assert issubclass(SegmentJob, WorkerJob)
    assert issubclass(ImportJob, WorkerJob)
    assert issubclass(Installation, Job)
