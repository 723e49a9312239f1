"""The worker process: requests on standard input, messages on standard output (see protocol).

One thread computes and owns the models, because cuDNN's plans belong to a thread; the main thread listens, so that a
cancel or a closed input is noticed immediately; a third one sends the progress.
"""

from __future__ import annotations

import os
import sys
import threading
import traceback
from contextlib import closing, suppress
from dataclasses import asdict
from queue import Empty, SimpleQueue
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any

from .. import __version__
from ..core.errors import CancelledError, InputError
from ..core.messages import sentence
from ..core.process_environment import settle_environment
from ..core.task import Event, Task
from ..protocol.lines import PROTOCOL_VERSION, LineDecoder, encode, with_templates
from .contract import OPERATIONS

if TYPE_CHECKING:
    from .warm_models import WarmModels

TICK_S = 0.1
HEARTBEAT_S = 0.3
LAST_GRACE_S = 2.0
IDLE_S = 1.0  # without a request, so that a user looking at a result is not slowed down


class Job:
    """A running or waiting request."""

    def __init__(self, number: int, values: dict[str, Any]) -> None:
        self.id = number
        self.values = values
        self.cancelled = threading.Event()
        self.task = Task(self._note, self.cancelled.is_set)
        self._latest = (0.0, sentence("Waiting"))
        self._told = (-1.0, "")
        self._told_at = 0.0

    def _note(self, event: Event) -> None:
        if event["event"] == "progress":  # sent by the heartbeat
            self._latest = (event["fraction"], event["stage"])

    def due_progress(self) -> dict[str, Any] | None:
        """Return the progress message if it has changed or is due for repetition."""
        now = monotonic()
        if self._latest == self._told and now - self._told_at < HEARTBEAT_S:
            return None
        self._told, self._told_at = self._latest, now
        fraction, stage = self._told
        return with_templates({"id": self.id, "event": "progress", "fraction": round(fraction, 4), "stage": stage})


class Worker:
    """State shared by the three threads.

    Args:
        sink: File descriptor to write messages to.
    """

    def __init__(self, sink: int) -> None:
        self._sink = sink
        self._writing = threading.Lock()
        self._open: dict[int, Job] = {}
        self._queue: SimpleQueue[Job | None] = SimpleQueue()

    def listen(self, source: int) -> None:
        """Accept requests from a file descriptor until it closes or "shutdown" arrives."""
        decoder = LineDecoder()
        while data := os.read(source, 1 << 16):
            messages = decoder.feed(data)
            junk, decoder.noise = decoder.noise, []
            for line in junk:
                self._refuse(0, f"'{line[:60]}' is not a JSON object: send one object a line")
            for message in messages:
                if message.get("op") == "shutdown":
                    return
                self._take(message)

    def work(self) -> None:
        """Load torch, send "ready", then run one job after another; None ends the loop."""
        import torch

        from ..backends.parts.devices import list_devices
        from .warm_models import WarmModels

        devices = [asdict(device) for device in list_devices()]
        self._send({"id": 0, "event": "ready", "protocol": PROTOCOL_VERSION, "version": __version__,
                    "pid": os.getpid(), "torch": torch.__version__, "devices": devices})  # fmt: skip
        models = WarmModels()
        while (job := self._next_job(models)) is not None:
            answer = _answer(job, models)
            with self._writing:
                del self._open[job.id]
                self._write(answer)

    def _next_job(self, models: WarmModels) -> Job | None:
        """Return the next request; while idle, look for faster backends for the models."""
        with suppress(Empty):
            return self._queue.get(timeout=IDLE_S)
        with closing(models.improvements()) as improvements:
            for _ in improvements:
                if not self._queue.empty():
                    break
        return self._queue.get()

    def tell_progress(self) -> None:
        """Send every open job's progress when it changes, and repeat it when it does not."""
        while True:
            for job in list(self._open.values()):
                with self._writing:
                    progress = job.due_progress()
                    if progress and job.id in self._open:
                        self._write(encode(progress))
            sleep(TICK_S)

    def close(self) -> None:
        """Cancel all jobs and let the computing thread end."""
        for job in list(self._open.values()):
            job.cancelled.set()
        self._queue.put(None)

    def _take(self, message: dict[str, Any]) -> None:
        number, op = message.get("id"), message.get("op")
        if type(number) is not int or number < 1:
            self._refuse(0, f"the request's id is {number!r}: give a whole number from 1")
        elif op == "cancel":
            job = self._open.get(message["target"]) if type(message.get("target")) is int else None
            if job is not None:
                job.cancelled.set()
        elif not isinstance(op, str) or op not in OPERATIONS.declared:
            self._refuse(number, f"unknown op {op!r}: choose one of {', '.join(OPERATIONS.declared)}, cancel, shutdown")
        elif number in self._open:
            self._refuse(0, f"request {number} is still running: use a new id for each request")
        else:
            self._open[number] = Job(number, message)
            self._queue.put(self._open[number])

    def _refuse(self, number: int, reason: str) -> None:
        self._send(_error(number, "input", reason))

    def _send(self, message: dict[str, Any]) -> None:
        with self._writing:
            self._write(encode(message))

    def _write(self, line: bytes) -> None:
        try:
            while line:
                line = line[os.write(self._sink, line) :]
        except OSError:
            os._exit(1)  # nobody is reading any more


def _answer(job: Job, models: WarmModels) -> bytes:
    """Run a job and return its final message."""
    from ..backends.parts.devices import is_out_of_memory

    try:
        if job.cancelled.is_set():
            raise CancelledError("cancelled before it started")
        fields = OPERATIONS[job.values["op"]](job.values, models, task=job.task)
        return encode(with_templates({**fields, "id": job.id, "event": "result"}))
    except CancelledError:
        return encode({"id": job.id, "event": "cancelled"})
    except InputError as error:
        return encode(_error(job.id, "input", str(error)))
    except Exception as error:  # noqa: BLE001  # the worker goes on; the client gets the error
        details = traceback.format_exc()
        if not is_out_of_memory(error):
            return encode(_error(job.id, "fault", f"the worker failed ({type(error).__name__}: {error})", details))
    _free_memory(models)
    reason = sentence("not enough memory for this image: crop it, choose another device, or close other programs")
    return encode(_error(job.id, "memory", reason, details))


def _free_memory(models: WarmModels) -> None:
    import torch

    models.forget()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _error(number: int, kind: str, message: str, details: str = "") -> dict[str, Any]:
    message = " ".join(message.split())
    return with_templates({"id": number, "event": "error", "kind": kind, "message": message, "details": details})


def _end_with_thread(arguments: threading.ExceptHookArgs) -> None:
    """End the process if a thread fails: otherwise the panel would wait forever."""
    traceback.print_exception(arguments.exc_type, arguments.exc_value, arguments.exc_traceback)
    os._exit(1)


def main() -> None:
    """Serve standard input until it closes, then end the process within seconds, whatever is running."""
    settle_environment()
    # Output of libraries must not get between the messages: redirect file 1 to standard error.
    sink = os.dup(1)
    os.dup2(2, 1)
    threading.excepthook = _end_with_thread
    worker = Worker(sink)
    computing = threading.Thread(target=worker.work, name="computing", daemon=True)
    computing.start()
    threading.Thread(target=worker.tell_progress, name="progress", daemon=True).start()
    status = 0
    try:
        worker.listen(0)
    except KeyboardInterrupt:
        status = 130
    worker.close()
    computing.join(LAST_GRACE_S)
    sys.stderr.flush()
    # Skip the interpreter's shutdown, which would wait for a running computation.
    os._exit(status)
