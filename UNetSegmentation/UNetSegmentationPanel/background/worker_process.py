"""The worker process: sends requests to it and receives its messages on the main thread."""

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
    """Return the executable of Slicer's Python."""
    ownFolder = str(Path(slicer.app.slicerHome) / "bin")
    return shutil.which("PythonSlicer", path=ownFolder) or shutil.which("PythonSlicer") or sys.executable


def defaultCommand() -> tuple[str, ...]:
    """Return the program and arguments that start the worker with Slicer's Python."""
    return (defaultPython(), "-u", "-m", "UNetSegmentationLib.worker")


class _Child:
    """A QProcess that uses the protocol, from its start to its end."""

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
        """Start the process; if this fails at once, as on Windows, `onEnd` is called before returning."""
        self._process.start(self._command[0], list(self._command[1:]))

    def send(self, message: Message) -> None:
        self._process.write(encode(message))

    def details(self) -> str:
        """Return the last lines printed by the process that are not messages."""
        return "\n".join([*self._decoder.noise, *self._stderr]).strip()

    def isOver(self) -> bool:
        return self._process.state() == qt.QProcess.NotRunning

    def end(self, wait_ms: int = 0) -> None:
        """Close its input, which ends it, and kill it if it still runs after `wait_ms`."""
        if self._onEnd is None:
            return
        self._onEnd = None
        self._process.closeWriteChannel()
        if not self.isOver() and not (wait_ms and self._process.waitForFinished(wait_ms)):
            self._kill()
            if wait_ms:
                # The application may be exiting, and would then miss the end of the process.
                self._process.waitForFinished(wait_ms)
        if not self.isOver():
            # Deleting a QProcess that still runs would block the window until it ends.
            _ending.append(self)

    def _kill(self) -> None:
        # The process that we started is only a launcher; the worker reports its own ID.
        pid = int(self.ready.get("pid", 0))
        if pid > 0 and pid not in (os.getpid(), int(self._process.processId())):
            try:
                os.kill(pid, getattr(signal, "SIGKILL", signal.SIGTERM))
            except OSError:
                logging.debug("The worker process %d had already ended", pid)
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
            message = _("The worker could not be started: the program '{name}' was not found.")
            self._close(message.format(name=self._command[0]))

    def _finished(self, code: int, status: int) -> None:
        self._read()
        self._readErrors()
        if status == qt.QProcess.CrashExit:
            message = _(
                "The worker was terminated by the system (signal {code}), possibly because memory ran out; the next "
                "run starts a new one."
            )
        else:
            message = _("The worker stopped unexpectedly (exit code {code}); the next run starts a new one.")
        self._close(message.format(code=code))

    def _close(self, reason: str) -> None:
        if self in _ending:
            _ending.remove(self)
        if self._slots:
            # Later, because a process must not be deleted while it emits a signal.
            qt.QTimer.singleShot(0, self._disconnect)
        onEnd, self._onEnd = self._onEnd, None
        if onEnd is not None:
            onEnd(reason)

    def _disconnect(self) -> None:
        """Disconnect the signals, which would keep this object and the process alive."""
        slots, self._slots = self._slots, {}
        for name, slot in slots.items():
            self._process.disconnect(name, slot)


_ending: list[_Child] = []


class WorkerProcess:
    """The worker, kept running between requests; starts with the first request and again after a crash.

    Args:
        command: Program and arguments; by default, Slicer's Python running UNetSegmentationLib.worker.
        grace_ms: Time that a cancelled job has to stop before the process is killed.
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
        self._graceTimer.connect("timeout()", self._replaceUnresponsiveWorker)

    @property
    def ready(self) -> Message:
        """The worker's ready message (protocol version, devices); empty until it is received."""
        return self._child.ready if self._child else {}

    def start(self) -> None:
        """Start the process before the first request, so that it is ready in time."""
        if self._child is None:
            command = self.command or defaultCommand()
            self._child = _Child(command, onMessage=self._dispatch, onEnd=self._ended)
            self._child.start()

    def request(self, op: str, fields: Message, listener: Listener) -> int:
        """Send a request; `listener` receives its messages, ending with a result, cancelled or error.

        Returns:
            ID of the request, for `cancel`.
        """
        requestId = self._nextId
        self._nextId += 1
        self._listeners[requestId] = listener
        self.start()
        if self._child is not None:
            self._child.send({**fields, "id": requestId, "op": op})
        return requestId

    def cancel(self, requestId: int) -> None:
        """Ask the worker to cancel a request; the worker is killed if it does not respond in time."""
        if requestId not in self._listeners or requestId in self._cancelled:
            return
        self._child.send({"id": requestId, "op": "cancel", "target": requestId})
        if not self.ready:
            # It is still loading torch and has changed nothing yet, so it need not be killed.
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
        """End the process and disconnect the timer, which would keep this object alive."""
        self.stop()
        self._graceTimer.disconnect("timeout()", self._replaceUnresponsiveWorker)

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
            message = _("The worker uses protocol version {its}, the panel version {ours}: restart Slicer.")
            reason = message.format(its=version, ours=PROTOCOL_VERSION)
            child, self._child = self._child, None
            child.end()
            self._tellAll({"event": "error", "kind": "fault", "message": reason, "details": child.details()})
        elif self.onReady is not None:
            self.onReady(message)

    def _replaceUnresponsiveWorker(self) -> None:
        if not self._cancelled & set(self._listeners) or self._child is None:
            return
        logging.info("The worker did not respond within %d ms and is replaced", self._grace_ms)
        child, self._child = self._child, None
        child.end()
        self._tellAll({"event": "cancelled"})
        self.start()

    def _ended(self, reason: str) -> None:
        child, self._child = self._child, None
        self._graceTimer.stop()
        details = child.details() if child else ""
        lastLine = details.splitlines()[-1] if details else ""
        message = _("{reason} Last output: {words}").format(reason=reason, words=lastLine) if lastLine else reason
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
    # Otherwise a random.py or numpy.py in Slicer's working directory would be imported instead of the real one.
    environment.insert("PYTHONSAFEPATH", "1")
    return environment
