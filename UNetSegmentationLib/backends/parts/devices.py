"""Devices of this machine on which torch can compute."""

from __future__ import annotations

import errno
import platform
from dataclasses import dataclass

import torch

from ...core.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Device:
    """A device that can be chosen.

    Attributes:
        id: "cpu", "cuda", "cuda:1" or "mps".
        title: Display name.
        memory_mb: Its total memory in MiB; 0 if it uses the computer's memory.
    """

    id: str
    title: str
    memory_mb: int = 0


def list_devices() -> list[Device]:
    """Return the devices of this machine, fastest first."""
    devices = []
    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        properties = torch.cuda.get_device_properties(index)
        name = "cuda" if index == 0 else f"cuda:{index}"
        devices.append(Device(id=name, title=properties.name, memory_mb=properties.total_memory // 2**20))
    if torch.backends.mps.is_available():
        devices.append(Device(id="mps", title="Apple GPU"))
    threads = torch.get_num_threads()
    return [*devices, Device(id="cpu", title=f"CPU ({threads} thread{'s' if threads > 1 else ''})")]


def choose_device(name: str) -> torch.device:
    """Return the torch device for a name; "auto" selects the fastest.

    Raises:
        InputError: This machine has no such device.
    """
    known = [device.id for device in list_devices()]
    chosen = {"auto": known[0], "cuda:0": "cuda"}.get(name, name)
    if chosen not in known:
        raise InputError(f"this machine has no device '{name}': choose auto or one of {', '.join(known)}")
    return torch.device(chosen)


def computes_in_bfloat16(device: torch.device) -> bool:
    """Return whether a device has bfloat16 instructions; without them, emulation is many times slower."""
    if device.type != "cpu":
        return True
    if platform.machine().lower() in ("x86_64", "amd64"):
        return torch.cpu._is_avx512_bf16_supported()
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error means that memory ran out, on a device or in the computer itself."""
    # On the CPU torch raises a bare RuntimeError, recognisable only by its allocator's name.
    is_allocator = type(error) is RuntimeError and "DefaultCPUAllocator" in str(error)
    # Mapping a file can fail too, with the message of the operating system.
    is_system = isinstance(error, OSError) and error.errno == errno.ENOMEM
    return is_allocator or is_system or isinstance(error, MemoryError | torch.OutOfMemoryError)
