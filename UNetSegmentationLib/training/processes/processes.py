"""Training in several processes started by `torchrun`, on one host or many, as if one process had the whole batch.

The result of a single process is reproduced, not approximated. The outputs and labels of all processes are gathered
before the loss, so that every loss covers the whole batch, whether or not it is a mean over images; each process
sends the gradient of its images back, and the gradients are summed. Batch norm computes its statistics over the
whole batch. Gathered logits cost memory; torch's DistributedDataParallel would average the losses of the parts instead,
which is a different loss if voxels are ignored or counts run over the batch.

Only dropout differs: each process draws it for its images.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from time import monotonic, sleep
from typing import Any, Protocol, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ...backends.parts.devices import choose_device
from ...core.errors import CancelledError, InputError
from ...core.task import Event, Task
from ...networks import SegmentationNetwork
from .shared_batch_norm import take_statistics_together

VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
# The others wait while the first validates. If one ends, torchrun or the closed connection reports it at once.
_PATIENCE = timedelta(hours=24)
_JOINING = timedelta(minutes=5)
# The process that failed first reports why; the others give it time before torchrun stops all.
_HEARING_S = 1.0
# It may have to clean up files first.
_UNWINDING_S = 60.0
_FAILURE = "failure"

Value = TypeVar("Value")


class _Store(Protocol):
    """Interface of torch's stores: a table shared by all processes."""

    def compare_set(self, key: str, expected_value: str, desired_value: str) -> bytes:
        """Set a value if it is as expected, and return the resulting value."""


class OtherProcessError(RuntimeError):
    """Another process of the training failed first; the message repeats its reason."""


@dataclass(frozen=True, kw_only=True)
class Processes:
    """The processes of one training; by default only this one, for which every method is trivial.

    Attributes:
        count: Number of processes.
        rank: Rank of this process; 0 writes all files.
        local_rank: Rank on its host.
    """

    count: int = 1
    rank: int = 0
    local_rank: int = 0
    _store: _Store | None = field(default=None, repr=False)

    @property
    def is_first(self) -> bool:
        """Whether this is the process that writes files, validates and reports."""
        return self.rank == 0

    def choose_device(self, name: str) -> torch.device:
        """Return the torch device for a name; on CUDA each of several processes uses the GPU of its local rank.

        Raises:
            InputError: This machine has no such device, or none for this process.
        """
        if self.count == 1:
            return choose_device(name)
        if name not in ("auto", "cpu", "cuda"):
            raise InputError(f"device is '{name}', but each of several processes picks its own: use auto, cpu or cuda")
        device = choose_device(name)
        if device.type == "mps":
            raise InputError("several processes cannot share this computer's GPU: use --device cpu, or train in one")
        if device.type != "cuda":
            return device
        if self.local_rank >= torch.cuda.device_count():
            raise InputError(
                f"process {self.local_rank} of this host has no GPU to itself, there are {torch.cuda.device_count()}: "
                "start one process per GPU (torchrun --nproc-per-node), or use --device cpu"
            )
        torch.cuda.set_device(self.local_rank)
        return torch.device("cuda", self.local_rank)

    def part_of(self, batch_size: int) -> range:
        """Return which patches of a batch this process draws.

        Raises:
            InputError: The batch cannot be shared evenly.
        """
        if batch_size % self.count:
            fitting = [count for count in range(1, batch_size + 1) if batch_size % count == 0]
            raise InputError(
                f"the training began with {batch_size} patches a step, which {self.count} processes cannot share "
                f"evenly: resume with one of {', '.join(map(str, fitting))} processes"
            )
        size = batch_size // self.count
        return range(self.rank * size, (self.rank + 1) * size)

    def share(self, make: Callable[[], Value]) -> Value:
        """Do something in the first process only; return its result, or raise its error, in all.

        Args:
            make: Returns plain JSON values.

        Raises:
            InputError: Raised by the first process.
            CancelledError: Raised by the first process.
            OtherProcessError: The first process failed for another reason.
        """
        if self.count == 1:
            return make()
        if not self.is_first:
            heard: Value = _hear()["value"]
            return heard
        with _telling_errors():
            value = make()
        _tell({"value": value})
        return value

    def share_work(self, work: Callable[[Task], Value], task: Task) -> Value:
        """Do some work in the first process only; all get its events, result or error.

        All processes follow the events in step, so that cancelling any of them stops the work.

        Args:
            work: Takes the task to report to; its events and result are plain JSON values.
            task: Told the events in its process, and checked for cancellation in every process before each.

        Raises:
            InputError: Raised by the first process.
            CancelledError: Raised by the first process.
            OtherProcessError: The first process failed for another reason.
        """
        if self.count == 1:
            return work(task)
        is_asked = self.any(task.is_cancelled)
        if not self.is_first:
            while "value" not in (answer := _hear()):
                task.report(answer["event"])
                self.any(task.is_cancelled)
            heard: Value = answer["value"]
            return heard

        def tell(event: Event) -> None:
            nonlocal is_asked
            _tell({"event": event})
            try:
                task.report(event)
            finally:  # the others check for cancellation here, and get the error afterwards
                is_asked = self.any(task.is_cancelled)

        with _telling_errors():
            value = work(Task(tell, lambda: is_asked or task.is_cancelled))
        _tell({"value": value})
        return value

    def share_bytes(self, read: Callable[[], bytes | None]) -> bytes | None:
        """Read something in the first process only and return it in all."""
        if self.count == 1:
            return read()
        content: list[bytes | None] = [None]

        def read_first() -> bool:
            content[0] = read()
            return content[0] is not None

        return _broadcast_bytes(content[0]) if self.share(read_first) else None

    def any(self, claim: bool) -> bool:
        """Return whether the claim holds in any process."""
        if self.count == 1:
            return claim
        claims = torch.tensor([int(claim)])
        dist.all_reduce(claims, op=dist.ReduceOp.MAX)
        return bool(claims)

    def agreed(self, number: float) -> float:
        """Return the first process's number."""
        if self.count == 1:
            return number
        agreed = torch.tensor([number], dtype=torch.float64)
        dist.broadcast(agreed, src=0)
        return float(agreed)

    def check_same(self, what: str, values: Sequence[str]) -> None:
        """Raise InputError if this process sees other values than the first."""
        digest = hashlib.sha256("\0".join(values).encode()).hexdigest()
        if self.share(lambda: digest) != digest:
            raise InputError(f"process {self.rank} sees a different {what} than process 0: use the same on all hosts")

    def join(self, network: SegmentationNetwork, *, has_fixed_statistics: bool = False) -> None:
        """Prepare a network for training: equal weights everywhere, batch norm over the whole batch.

        Raises:
            InputError: The network accepts missing channels and has batch norm.
        """
        if self.count == 1:
            return
        norms = [module for module in network.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
        if norms and not has_fixed_statistics:
            if network.accepts_missing_channels:
                # One process would wait for statistics of an encoder for which another has no image.
                raise InputError(
                    "a network that accepts missing channels cannot share its batch norm's statistics among "
                    "several processes: train it with norm=instance, or in one process"
                )
            take_statistics_together(network)
        for value in network.state_dict().values():
            first = value.contiguous()
            dist.broadcast(first, src=0)
            value.copy_(first)

    def gather(self, outputs: Tensor | list[Tensor], labels: Tensor) -> tuple[Tensor | list[Tensor], Tensor]:
        """Return outputs and labels of the whole batch; gradients flow back to this process's outputs."""
        if self.count == 1:
            return outputs, labels
        gathered = [_gather(level, self) for level in ([outputs] if isinstance(outputs, Tensor) else outputs)]
        return gathered[0] if isinstance(outputs, Tensor) else gathered, _gather(labels, self)

    def sum_gradients(self, network: nn.Module) -> None:
        """Sum each weight's gradient over the processes; a weight without any gradient keeps none."""
        if self.count == 1:
            return
        weights = [weight for weight in network.parameters() if weight.requires_grad]
        # As one vector: a network has hundreds of weights, and each message costs a round trip.
        flat = torch.cat(
            [torch.zeros_like(weight).flatten() if weight.grad is None else weight.grad.flatten() for weight in weights]
            + [weights[0].new_tensor([float(weight.grad is not None) for weight in weights])]
        )
        dist.all_reduce(flat)
        *sums, counts = torch.split(flat, [*(weight.numel() for weight in weights), len(weights)])
        for weight, total, is_reached in zip(weights, sums, counts.tolist(), strict=True):
            weight.grad = total.view_as(weight).clone() if is_reached else None

    def is_first_to_fail(self, error: BaseException) -> bool:
        """Report an error to the other processes, unless another came first; return whether this one was first."""
        said = f"process {self.rank}: {str(error) or type(error).__name__}"
        return self.count == 1 or self._first_failure(said) == said

    def wait_for_failure(self) -> str:
        """Return the message of the process that failed first, after giving it time to tell the user."""
        end = monotonic() + _UNWINDING_S
        while not (said := self._first_failure("")) and monotonic() < end:
            sleep(_HEARING_S / 10)
        sleep(_HEARING_S)
        return said

    def _first_failure(self, said: str) -> str:
        assert self._store is not None
        try:
            return str(self._store.compare_set(_FAILURE, "", said).decode())
        except RuntimeError:  # the store ended with the process that hosted it
            return "another process has ended"


ALONE = Processes()
_ERRORS: Mapping[str, type[Exception]] = {"InputError": InputError, "CancelledError": CancelledError}


@contextmanager
def join_processes() -> Iterator[Processes]:
    """Join the processes that torchrun started with this one; without torchrun yield this process alone.

    Raises:
        InputError: The environment is incomplete, or the others cannot be reached.
        OtherProcessError: Instead of the error of the block if another process failed first.
    """
    values = read_environment(os.environ)
    if values is None:
        yield ALONE
        return
    processes = _join(values)
    try:
        yield processes
    except BaseException as error:
        if _is_heard(error) or not processes.is_first_to_fail(error):
            raise OtherProcessError(processes.wait_for_failure()) from error
        raise
    else:
        dist.destroy_process_group()


def _is_heard(error: BaseException | None) -> bool:
    """Return whether an error repeats that of another process."""
    while error is not None and not isinstance(error, OtherProcessError):
        error = error.__cause__
    return error is not None


def read_environment(environment: Mapping[str, str]) -> dict[str, str] | None:
    """Return the environment variables of torchrun, or None if it did not start this process, or only this one.

    Raises:
        InputError: A variable is missing or not a number.
    """
    if environment.get("WORLD_SIZE", "1") == "1":
        return None
    missing = [name for name in VARIABLES if name not in environment]
    if missing:
        raise InputError(
            f"WORLD_SIZE is {environment['WORLD_SIZE']} but {', '.join(missing)} is not set: start the processes with "
            "torchrun, or remove WORLD_SIZE from the environment to train in one"
        )
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_PORT"):
        if not environment[name].isdigit():
            raise InputError(
                f"{name} is '{environment[name]}', which is not a number: start the processes with torchrun"
            )
    return {name: environment[name] for name in VARIABLES}


def refuse_several_processes(task: str) -> None:
    """Raise InputError if torchrun started more than one process for a single-process task."""
    if read_environment(os.environ) is not None:
        raise InputError(f"{task} runs in a single process: start it without torchrun")


class _Gather(torch.autograd.Function):
    """The tensors of all processes in the order of their ranks.

    Every process computes the same loss of the whole batch; hence the gradient of its part is already complete.
    """

    @staticmethod
    def forward(context: Any, part: Tensor, processes: Processes) -> Tensor:
        context.own = slice(processes.rank * len(part), (processes.rank + 1) * len(part))
        parts = [torch.empty_like(part) for _ in range(processes.count)]
        dist.all_gather(parts, part)
        return torch.cat(parts)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient[context.own], None


def _gather(part: Tensor, processes: Processes) -> Tensor:
    whole: Tensor = _Gather.apply(part.contiguous(), processes)  # type: ignore[no-untyped-call]
    return whole


def _tell(message: dict[str, Any]) -> None:
    """Send a message from the first process to all others."""
    _broadcast_bytes(json.dumps(message).encode())


@contextmanager
def _telling_errors() -> Iterator[None]:
    """Send an error in the block from the first process to all others, which wait for a message."""
    try:
        yield
    except Exception as error:
        _tell({"error": type(error).__name__, "message": str(error)})
        raise


def _hear() -> dict[str, Any]:
    """Return the message of the first process.

    Raises:
        InputError: Reported by the first process.
        CancelledError: Reported by the first process.
        OtherProcessError: Any other error of the first process.
    """
    message: dict[str, Any] = json.loads(_broadcast_bytes(None))
    if "error" in message:
        heard = OtherProcessError(message["message"])
        if message["error"] in _ERRORS:
            raise _ERRORS[message["error"]](message["message"]) from heard
        raise heard
    return message


def _broadcast_bytes(content: bytes | None) -> bytes:
    """Return the content of the first process in all processes."""
    size = torch.tensor([0 if content is None else len(content)])
    dist.broadcast(size, src=0)
    values = torch.empty(int(size), dtype=torch.uint8) if content is None else _as_tensor(content)
    if len(values):
        dist.broadcast(values, src=0)
    return values.numpy().tobytes()


def _as_tensor(content: bytes) -> Tensor:
    return torch.frombuffer(bytearray(content), dtype=torch.uint8) if content else torch.empty(0, dtype=torch.uint8)


def _join(values: Mapping[str, str]) -> Processes:
    """Return the processes once all have joined.

    Raises:
        InputError: They cannot reach each other.
    """
    if not dist.is_available():
        raise InputError("this build of torch cannot train in several processes: start it without torchrun")
    from torch.distributed.distributed_c10d import PrefixStore
    from torch.distributed.rendezvous import rendezvous

    # Coordination stays on the CPU, so that it does not wait for a GPU.
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() and dist.is_nccl_available() else "gloo"
    try:
        store, rank, count = next(iter(rendezvous("env://", timeout=_JOINING)))
        own = PrefixStore("unetseg", store)
        dist.init_process_group(backend, store=own, rank=rank, world_size=count, timeout=_PATIENCE)
    except (RuntimeError, ValueError) as error:
        address = f"{values['MASTER_ADDR']}:{values['MASTER_PORT']}"
        raise InputError(
            f"process {values['RANK']} of {values['WORLD_SIZE']} cannot join the others at {address} "
            f"({str(error).splitlines()[0]}): start as many as torchrun was told, on hosts that reach that address"
        ) from error
    return Processes(count=count, rank=rank, local_rank=int(values["LOCAL_RANK"]), _store=own)
