"""One warm child process; sends it requests and hands its messages to the main thread."""

import logging
import os
import shutil
import signal
import sys
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import qt
import slicer
from slicer.i18n import tr as _

import UNetSegmentationLib
from UNetSegmentationLib.protocol.lines import PROTOCOL_VERSION, LineDecoder, encode

from .worker_messages import translate

GRACE_MS = 900
STOP_MS = 500
FINAL_EVENTS = ("result", "cancelled", "error")

Message = dict[str, Any]
Listener = Callable[[Message], None]


def defaultPython() -> str:
    """Return the program that is Slicer's own Python."""
    ownFolder = str(Path(slicer.app.slicerHome) / "bin")
    return shutil.which("PythonSlicer", path=ownFolder) or shutil.which("PythonSlicer") or sys.executable


def defaultCommand() -> tuple[str, ...]:
    """Return the program and arguments that start the worker with Slicer's own Python."""
    return (defaultPython(), "-u", "-m", "UNetSegmentationLib.worker")


class _Child:
    """A QProcess that speaks the protocol; lives from its start to its end."""

    def __init__(
        self, command: Sequence[str], *, onMessage: Callable[[Message], None], onEnd: Callable[[str], None]
    ) -> None:
        self.ready: Message = {}
        self._onMessage = onMessage
        self._onEnd = onEnd
        self._decoder = LineDecoder()
        self._stderr: deque[str] = deque(maxlen=60)
        self._command = tuple(command)
        self._process = qt.QProcess()
        self._process.setProcessEnvironment(_environment())
        self._slots = {
            "readyReadStandardOutput()": self._read,
            "readyReadStandardError()": self._readErrors,
            "finished(int,QProcess::ExitStatus)": self._finished,
            "errorOccurred(QProcess::ProcessError)": self._failed,
        }
        for name, slot in self._slots.items():
            self._process.connect(name, slot)

    def start(self) -> None:
        """Start the process; where that fails at once, as it does on Windows, `onEnd` is called in here."""
        self._process.start(self._command[0], list(self._command[1:]))

    def send(self, message: Message) -> None:
        self._process.write(encode(message))

    def details(self) -> str:
        """Return the last lines that the process printed outside the protocol."""
        return "\n".join([*self._decoder.noise, *self._stderr]).strip()

    def isOver(self) -> bool:
        return self._process.state() == qt.QProcess.NotRunning

    def end(self, wait_ms: int = 0) -> None:
        """Close its input, which ends it, and kill it if it is still there after `wait_ms`."""
        if self._onEnd is None:
            return
        self._onEnd = None
        self._process.closeWriteChannel()
        if not self.isOver() and not (wait_ms and self._process.waitForFinished(wait_ms)):
            self._kill()
            if wait_ms:
                # The application may be about to end, and then nobody would hear of the process's end.
                self._process.waitForFinished(wait_ms)
        if not self.isOver():
            # A QProcess that is deleted too early waits for its end and holds up the window.
            _ending.append(self)

    def _kill(self) -> None:
        # The process that we started is only a launcher; the worker tells its own id.
        pid = int(self.ready.get("pid", 0))
        if pid > 0 and pid not in (os.getpid(), int(self._process.processId())):
            try:
                os.kill(pid, getattr(signal, "SIGKILL", signal.SIGTERM))
            except OSError:
                logging.debug("The worker process %d was gone already", pid)
        self._process.kill()

    def _read(self) -> None:
        for message in self._decoder.feed(bytes(self._process.readAllStandardOutput().data())):
            if message.get("event") == "ready":
                self.ready = message
            if self._onEnd is not None:
                self._onMessage(translate(message))

    def _readErrors(self) -> None:
        text = bytes(self._process.readAllStandardError().data()).decode("utf-8", "replace")
        self._stderr.extend(line for line in text.splitlines() if line.strip())

    def _failed(self, error: int) -> None:
        if error == qt.QProcess.FailedToStart:
            message = _("The worker could not be started: there is no program '{name}'.")
            self._close(message.format(name=self._command[0]))

    def _finished(self, code: int, status: int) -> None:
        self._read()
        self._readErrors()
        if status == qt.QProcess.CrashExit:
            message = _(
                "The worker was ended by the system (signal {code}), as it is when memory runs out; the next run "
                "starts a new one."
            )
        else:
            message = _("The worker stopped by itself (exit code {code}); the next run starts a new one.")
        self._close(message.format(code=code))

    def _close(self, reason: str) -> None:
        if self in _ending:
            _ending.remove(self)
        if self._slots:
            # Later: a process must not go while its own signal is being told.
            qt.QTimer.singleShot(0, self._disconnect)
        onEnd, self._onEnd = self._onEnd, None
        if onEnd is not None:
            onEnd(reason)

    def _disconnect(self) -> None:
        """Cut the connections: they keep this object, and this object the process, so that neither would ever go."""
        slots, self._slots = self._slots, {}
        for name, slot in slots.items():
            self._process.disconnect(name, slot)


_ending: list[_Child] = []


class WorkerProcess:
    """The warm worker; starts with the first request and again after a crash.

    Args:
        command: Program and arguments; by default Slicer's Python with UNetSegmentationLib.worker.
        grace_ms: How long a cancelled job may go on before the process is killed.
    """

    def __init__(self, command: Sequence[str] | None = None, *, grace_ms: int = GRACE_MS) -> None:
        self.command = None if command is None else tuple(command)
        self.onReady: Callable[[Message], None] | None = None
        self.onStartupFailed: Callable[[str], None] | None = None
        self._grace_ms = grace_ms
        self._child: _Child | None = None
        self._listeners: dict[int, Listener] = {}
        self._cancelled: set[int] = set()
        self._nextId = 1
        self._graceTimer = qt.QTimer()
        self._graceTimer.setSingleShot(True)
        self._graceTimer.connect("timeout()", self._replaceDeafWorker)

    @property
    def ready(self) -> Message:
        """What the running worker said of itself: version, devices; empty before that."""
        return self._child.ready if self._child else {}

    def start(self) -> None:
        """Start the process ahead of the first request, so that it is warm by then."""
        if self._child is None:
            command = self.command or defaultCommand()
            self._child = _Child(command, onMessage=self._dispatch, onEnd=self._ended)
            self._child.start()

    def request(self, op: str, fields: Message, listener: Listener) -> int:
        """Send a request; `listener` gets its messages, the last being a result, cancelled or error.

        Returns:
            Id of the request, for `cancel`.
        """
        requestId = self._nextId
        self._nextId += 1
        self._listeners[requestId] = listener
        self.start()
        if self._child is not None:
            self._child.send({**fields, "id": requestId, "op": op})
        return requestId

    def cancel(self, requestId: int) -> None:
        """Ask the worker to give up a request; it is killed when it does not obey in time."""
        if requestId not in self._listeners or requestId in self._cancelled:
            return
        self._child.send({"id": requestId, "op": "cancel", "target": requestId})
        if not self.ready:
            # It is still loading torch and has touched nothing yet; there is no use in killing it.
            self._tell(requestId, {"event": "cancelled"})
            return
        self._cancelled.add(requestId)
        self._graceTimer.start(self._grace_ms)

    def stop(self) -> None:
        """End the process; open requests end as cancelled."""
        self._graceTimer.stop()
        child, self._child = self._child, None
        if child is not None:
            child.end(STOP_MS)
        self._tellAll({"event": "cancelled"})

    def release(self) -> None:
        """End the process for good; a timer that stays connected would keep this object."""
        self.stop()
        self._graceTimer.disconnect("timeout()", self._replaceDeafWorker)

    def _dispatch(self, message: Message) -> None:
        event = message.get("event")
        if event == "ready":
            self._onReadyMessage(message)
            return
        requestId = message.get("id")
        listener = self._listeners.get(requestId)
        if listener is None:
            return
        if event in FINAL_EVENTS:
            self._forget(requestId)
        listener(message)

    def _onReadyMessage(self, message: Message) -> None:
        version = message.get("protocol")
        if version != PROTOCOL_VERSION:
            message = _("The worker speaks version {its} of the protocol, the panel {ours}: restart Slicer.")
            reason = message.format(its=version, ours=PROTOCOL_VERSION)
            child, self._child = self._child, None
            child.end()
            self._tellAll({"event": "error", "kind": "fault", "message": reason, "details": child.details()})
        elif self.onReady is not None:
            self.onReady(message)

    def _replaceDeafWorker(self) -> None:
        if not self._cancelled & set(self._listeners) or self._child is None:
            return
        logging.info("The worker did not obey within %d ms and is replaced", self._grace_ms)
        child, self._child = self._child, None
        child.end()
        self._tellAll({"event": "cancelled"})
        self.start()

    def _ended(self, reason: str) -> None:
        child, self._child = self._child, None
        self._graceTimer.stop()
        details = child.details() if child else ""
        lastLine = details.splitlines()[-1] if details else ""
        message = _("{reason} Its last words: {words}").format(reason=reason, words=lastLine) if lastLine else reason
        if child is not None and not child.ready and self.onStartupFailed is not None:
            self.onStartupFailed(details)
        for requestId in list(self._listeners):
            if requestId in self._cancelled:
                self._tell(requestId, {"event": "cancelled"})
            else:
                self._tell(requestId, {"event": "error", "kind": "fault", "message": message, "details": details})

    def _tellAll(self, message: Message) -> None:
        for requestId in list(self._listeners):
            self._tell(requestId, message)

    def _tell(self, requestId: int, message: Message) -> None:
        listener = self._forget(requestId)
        if listener is not None:
            listener({"id": requestId, **message})

    def _forget(self, requestId: int) -> Listener | None:
        self._cancelled.discard(requestId)
        return self._listeners.pop(requestId, None)


def _environment() -> Any:
    environment = qt.QProcessEnvironment.systemEnvironment()
    folder = str(Path(UNetSegmentationLib.__file__).resolve().parents[1])
    present = environment.value("PYTHONPATH", "")
    environment.insert("PYTHONPATH", os.pathsep.join([folder, present]) if present else folder)
    environment.insert("PYTHONIOENCODING", "utf-8")
    # Otherwise a random.py or numpy.py in the folder that Slicer was started from would be taken for the real one.
    environment.insert("PYTHONSAFEPATH", "1")
    return environment
