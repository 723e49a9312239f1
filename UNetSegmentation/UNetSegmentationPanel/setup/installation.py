"""pip in a process of its own, so that the window stays alive and a download can be stopped."""

import os
import re
import signal
from collections import deque
from collections.abc import Callable, Sequence

import qt
from slicer.i18n import tr as _

from ..background.worker_process import defaultPython
from ..jobs.job import Outcome, Progress
from .dependencies import PythonStep

# Slicer's Python is started by a launcher: only the process itself can tell which one is to be stopped.
BOOTSTRAP = (
    "import os, runpy, sys; print('pid', os.getpid(), flush=True); sys.argv = sys.argv[1:]; "
    "runpy.run_module(sys.argv[0], run_name='__main__', alter_sys=True)"
)
CAUSES = {
    r"no space left|not enough space": _("The disk is full: make room and try again."),
    r"permission denied|access is denied": _(
        "Slicer's folder cannot be written to, or a file in it is in use: restart Slicer, or move it elsewhere."
    ),
    r"name resolution|getaddrinfo|timed out|connection|proxy|ssl": _(
        "The server cannot be reached: check the network, a proxy or a firewall, and try again."
    ),
}


class Installation:
    """Runs modules of Slicer's Python one after the other.

    `onFinished` is called exactly once, with an outcome of kind "done", "cancelled" or "failed".

    Args:
        steps: What to run.
        python: The program; by default Slicer's Python.
    """

    def __init__(
        self,
        steps: Sequence[PythonStep],
        *,
        onProgress: Callable[[Progress], None],
        onFinished: Callable[[Outcome], None],
        python: str | None = None,
    ) -> None:
        self._steps = deque(steps)
        self._python = python or defaultPython()
        self._onProgress = onProgress
        self._onFinished: Callable[[Outcome], None] | None = onFinished
        self._lines: deque[str] = deque(maxlen=200)
        self._pid = 0
        self._isCancelled = False
        self._stage = _("Starting")
        # Stopped now, packages would be left half there.
        self.canCancel = True
        self._process = qt.QProcess()
        self._process.setProcessChannelMode(qt.QProcess.MergedChannels)
        self._process.connect("readyReadStandardOutput()", self._read)
        self._process.connect("finished(int,QProcess::ExitStatus)", self._finished)
        self._process.connect("errorOccurred(QProcess::ProcessError)", self._failed)

    def start(self) -> None:
        """Start the first step."""
        self._onProgress(Progress(fraction=0.0, stage=self._stage))
        self._next()

    def cancel(self) -> None:
        """Stop, as long as nothing is being changed; the outcome follows soon."""
        if not self.canCancel or self._onFinished is None:
            return
        self._isCancelled = True
        self._steps.clear()
        if self._process.state() == qt.QProcess.NotRunning:
            self._end(Outcome(kind="cancelled", message=_("Cancelled; nothing was installed.")))
            return
        if self._pid:
            try:
                os.kill(self._pid, getattr(signal, "SIGKILL", signal.SIGTERM))
            except OSError:
                self._pid = 0
        self._process.kill()

    def _next(self) -> None:
        if not self._steps:
            self._end(Outcome(kind="done", message=""))
            return
        step = self._steps.popleft()
        self._pid, self.canCancel = 0, True
        self._process.start(self._python, ["-u", "-c", BOOTSTRAP, step.module, *step.arguments])

    def _read(self) -> None:
        while self._process.canReadLine():
            line = bytes(self._process.readLine().data()).decode("utf-8", "replace").strip()
            if line.startswith("pid ") and not self._pid:
                self._pid = int(line[4:])
            elif line:
                self._take(line)

    def _take(self, line: str) -> None:
        share = re.fullmatch(r"Progress (\d+) of (\d+)", line)
        if share:
            done, whole = int(share[1]), int(share[2])
            self._onProgress(Progress(fraction=done / whole if whole else 0.0, stage=self._stage))
            return
        self._lines.append(line)
        stage = _stageOf(line)
        if stage:
            self._stage = stage
            self.canCancel = not line.startswith("Installing collected")
            self._onProgress(Progress(fraction=0.0, stage=stage))

    def _failed(self, error: int) -> None:
        if error == qt.QProcess.FailedToStart:
            message = _("Installing failed: there is no program “{name}”.").format(name=self._python)
            self._end(Outcome(kind="failed", message=message))

    def _finished(self, code: int, status: int) -> None:
        self._read()
        if self._isCancelled:
            self._end(Outcome(kind="cancelled", message=_("Cancelled; nothing was installed.")))
        elif code or status == qt.QProcess.CrashExit:
            text = "\n".join(self._lines)
            self._end(Outcome(kind="failed", message=_describeFailure(list(self._lines)), details=text))
        else:
            self._next()

    def _end(self, outcome: Outcome) -> None:
        onFinished, self._onFinished = self._onFinished, None
        if onFinished is not None:
            onFinished(outcome)


def _stageOf(line: str) -> str:
    """Return what a line of pip's says that it does, in words; empty where it says nothing of the kind."""
    download = re.match(r"Downloading (?:\S*/)?([A-Za-z0-9_.]+?)-\d\S*(?: \((.+?)\))?$", line)
    if download:
        size = f" ({download[2]})" if download[2] else ""
        return _("Downloading {name}{size}").format(name=download[1], size=size)
    if line.startswith("Installing collected packages"):
        return _("Installing; this part cannot be stopped")
    wanted = re.match(r"Collecting ([A-Za-z0-9_.-]+)", line)
    return _("Looking for {name}").format(name=wanted[1]) if wanted else ""


def _describeFailure(lines: list[str]) -> str:
    text = "\n".join(lines)
    advice = next((advice for pattern, advice in CAUSES.items() if re.search(pattern, text, re.IGNORECASE)), "")
    errors = [line for line in lines if line.startswith("ERROR:")]
    last = (errors or lines or [_("it said nothing")])[-1].removeprefix("ERROR:").strip()
    message = _("Installing failed: {reason}").format(reason=last)
    return f"{message} {advice or _('Try again, or see the application log.')}"
