"""Runs pip in a separate process, so that the window stays responsive and a download can be cancelled."""

import os
import re
import shutil
import signal
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import qt
from slicer.i18n import tr as _

from ..background.worker_process import defaultPython
from ..jobs.job import Job, Outcome, Progress, newFolder
from . import dependencies
from .dependencies import DependencyState, PythonStep

# Slicer's Python is started by a launcher, so the process reports its own ID for cancellation.
BOOTSTRAP = (
    "import os, runpy, sys; print('pid', os.getpid(), flush=True); sys.argv = sys.argv[1:]; "
    "runpy.run_module(sys.argv[0], run_name='__main__', alter_sys=True)"
)
CAUSES = {
    r"no space left|not enough space": _("The disk is full: free some space and try again."),
    r"permission denied|access is denied": _(
        "Slicer's folder is not writable, or a file in it is in use: restart Slicer, or move it elsewhere."
    ),
    r"name resolution|getaddrinfo|timed out|connection|proxy|ssl": _(
        "The server cannot be reached: check the network, proxy and firewall, and try again."
    ),
}


class Installation(Job):
    """Installs what is missing by running Python modules one after the other with Slicer's Python.

    Args:
        state: The current state of the packages.
        onProgress: Called with the progress during the installation.
        onFinished: Called with the outcome, exactly once.
    """

    kind: ClassVar[str] = "install"

    def __init__(
        self,
        state: DependencyState,
        *,
        onProgress: Callable[[Progress], None],
        onFinished: Callable[[Outcome], None],
    ) -> None:
        super().__init__(onProgress=onProgress, onFinished=onFinished)
        self._state = state
        self._python = defaultPython()
        self._folder: Path | None = None
        self._steps: deque[PythonStep] = deque()
        self._lines: deque[str] = deque(maxlen=200)
        self._pid = 0
        self._isCancelled = False
        self._stage = _("Starting")
        self._isChangingPackages = False
        self._process = qt.QProcess()
        self._process.setProcessChannelMode(qt.QProcess.MergedChannels)
        self._process.connect("readyReadStandardOutput()", self._read)
        self._process.connect("finished(int,QProcess::ExitStatus)", self._onProcessFinished)
        self._process.connect("errorOccurred(QProcess::ProcessError)", self._onProcessError)

    @property
    def canCancel(self) -> bool:
        """Whether the installation can be cancelled: not while packages are being changed, to keep them complete."""
        return not self._isChangingPackages

    def whyWait(self) -> str:
        return _("Packages are being installed: wait until this has finished.")

    def start(self) -> None:
        self._report(self._stage, 0.0)
        try:
            self._folder = newFolder()
            constraints = self._folder / "constraints.txt"
            constraints.write_text(dependencies.bundledVersions(), encoding="utf-8")
        except OSError as error:
            self._finish(Outcome(kind="failed", message=_("Installation failed: {error}").format(error=error)))
            return
        self._steps.extend(dependencies.stepsFor(self._state, constraints))
        self._startNextStep()

    def cancel(self) -> None:
        """Cancel unless packages are being changed; the outcome follows soon."""
        if not self.canCancel or not self.isRunning:
            return
        self._isCancelled = True
        self._stop()
        if self._process.state() == qt.QProcess.NotRunning:
            self._finishCancelled()

    def abandon(self, message: str) -> None:
        """Stop now; a step that is changing packages runs to completion in the background."""
        self._stop()
        super().abandon(message)

    def _stop(self) -> None:
        self._steps.clear()
        if not self.canCancel or self._process.state() == qt.QProcess.NotRunning:
            return
        if self._pid:
            try:
                os.kill(self._pid, getattr(signal, "SIGKILL", signal.SIGTERM))
            except OSError:
                self._pid = 0
        self._process.kill()

    def _startNextStep(self) -> None:
        if not self._steps:
            self._finish(Outcome(kind="done", message=""))
            return
        step = self._steps.popleft()
        self._pid, self._isChangingPackages = 0, False
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
            self._report(self._stage, done / whole if whole else 0.0)
            return
        self._lines.append(line)
        stage = _stageOf(line)
        if stage:
            self._stage = stage
            self._isChangingPackages = line.startswith("Installing collected")
            self._report(stage, 0.0)

    def _onProcessError(self, error: int) -> None:
        if error == qt.QProcess.FailedToStart:
            message = _("Installation failed: the program “{name}” was not found.").format(name=self._python)
            self._finish(Outcome(kind="failed", message=message))

    def _onProcessFinished(self, code: int, status: int) -> None:
        self._read()
        if self._isCancelled:
            self._finishCancelled()
        elif code or status == qt.QProcess.CrashExit:
            text = "\n".join(self._lines)
            self._finish(Outcome(kind="failed", message=_describeFailure(list(self._lines)), details=text))
        else:
            self._startNextStep()

    def _finishCancelled(self) -> None:
        self._finish(Outcome(kind="cancelled", message=_("Cancelled; nothing was installed.")))

    def _finish(self, outcome: Outcome) -> None:
        folder, self._folder = self._folder, None
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)
        super()._finish(outcome)


def _stageOf(line: str) -> str:
    """Return the stage that a line of pip's output announces; empty if none."""
    download = re.match(r"Downloading (?:\S*/)?([A-Za-z0-9_.]+?)-\d\S*(?: \((.+?)\))?$", line)
    if download:
        size = f" ({download[2]})" if download[2] else ""
        return _("Downloading {name}{size}").format(name=download[1], size=size)
    if line.startswith("Installing collected packages"):
        return _("Installing (this step cannot be cancelled)")
    wanted = re.match(r"Collecting ([A-Za-z0-9_.-]+)", line)
    return _("Looking for {name}").format(name=wanted[1]) if wanted else ""


def _describeFailure(lines: list[str]) -> str:
    text = "\n".join(lines)
    advice = next((advice for pattern, advice in CAUSES.items() if re.search(pattern, text, re.IGNORECASE)), "")
    errors = [line for line in lines if line.startswith("ERROR:")]
    last = (errors or lines or [_("no output")])[-1].removeprefix("ERROR:").strip()
    message = _("Installation failed: {reason}").format(reason=last)
    return f"{message} {advice or _('Try again, or see the application log.')}"
