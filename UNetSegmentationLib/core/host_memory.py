"""Memory of the computer, or the limit of the container or job that this process runs in."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

_PROC = Path("/proc")


@dataclass(frozen=True, kw_only=True)
class HostMemory:
    """Memory in bytes, or None if the system does not report it.

    Attributes:
        total: Memory of the computer, or the lowest limit of this process's control groups.
        available: Memory that can be allocated without swapping or exceeding a limit.
    """

    total: int | None
    available: int | None


def host_memory(proc: Path = _PROC) -> HostMemory:
    """Return the host memory that this process can use.

    Args:
        proc: The proc file system, with the control groups of the process.
    """
    total, available = _of_computer(proc)
    for limit, used in _limits(proc):
        total = limit if total is None else min(total, limit)
        left = max(0, limit - used)
        available = left if available is None else min(available, left)
    return HostMemory(total=total, available=available)


def _of_computer(proc: Path) -> tuple[int | None, int | None]:
    try:
        import psutil
    except ImportError:  # Slicer's Python only has it after the extension has installed its packages
        return _without_psutil(proc)
    memory = psutil.virtual_memory()
    return int(memory.total), int(memory.available)


def _without_psutil(proc: Path) -> tuple[int | None, int | None]:
    try:
        lines = (proc / "meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return _total_by_sysconf(), None
    values = {name: int(rest.split()[0]) * 1024 for name, _, rest in (line.partition(":") for line in lines)}
    return values.get("MemTotal"), values.get("MemAvailable")


def _total_by_sysconf() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # Windows has no sysconf
        return None


def _limits(proc: Path) -> Iterator[tuple[int, int]]:
    """Yield (limit, bytes in use that cannot be reclaimed) of each control group that limits this process."""
    try:
        groups = (proc / "self/cgroup").read_text(encoding="utf-8").splitlines()
        mounts = (proc / "self/mountinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for group in groups:
        number, controllers, path = group.split(":", 2)
        if number == "0" or "memory" in controllers.split(","):
            yield from _limits_up_from(PurePosixPath(path), mounts, is_v2=number == "0")


def _limits_up_from(group: PurePosixPath, mounts: list[str], *, is_v2: bool) -> Iterator[tuple[int, int]]:
    """Yield (limit, used) of a group and of its visible parents."""
    for mount in mounts:
        # "31 23 0:28 ROOT POINT options ... - TYPE source super-options", see proc_pid_mountinfo(5)
        before, _, after = mount.partition(" - ")
        kind, _, options = (*after.split(" ", 2), "", "")[:3]
        if kind != ("cgroup2" if is_v2 else "cgroup") or not (is_v2 or "memory" in options.split(",")):
            continue
        root, point = (_unescaped(entry) for entry in before.split(" ")[3:5])
        # In a container the path may be that of the host, of which the mount shows only the end.
        is_shown = group.is_relative_to(root) and ".." not in group.parts
        inner = group.relative_to(root) if is_shown else PurePosixPath()
        read = _read_v2 if is_v2 else _read_v1
        for folder in (inner, *inner.parents):
            found = read(Path(point) / folder)
            if found is not None:
                yield found


def _read_v2(folder: Path) -> tuple[int, int] | None:
    limits = [
        _number(folder / name) for name in ("memory.max", "memory.high")
    ]  # above "high" the process is slowed down
    used = _number(folder / "memory.current")
    given = [limit for limit in limits if limit is not None]
    if not given or used is None:
        return None
    statistics = _statistics(folder)
    return min(given), used - sum(statistics.get(f"{kind}_file", 0) for kind in ("active", "inactive"))


def _read_v1(folder: Path) -> tuple[int, int] | None:
    limit, used = (_number(folder / f"memory.{name}_in_bytes") for name in ("limit", "usage"))
    if limit is None or used is None:
        return None
    statistics = _statistics(folder)
    # Includes the limits of groups outside the container, which are not visible.
    limit = min(limit, statistics.get("hierarchical_memory_limit", limit))
    return limit, used - sum(statistics.get(f"total_{kind}_file", 0) for kind in ("active", "inactive"))


def _number(path: Path) -> int | None:
    """Return the number in a file, or None if there is none or it is "max"."""
    try:
        return int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None


def _statistics(folder: Path) -> dict[str, int]:
    try:
        lines = (folder / "memory.stat").read_text(encoding="ascii").splitlines()
    except OSError:
        return {}
    return {name: int(value) for name, value in (line.split(" ", 1) for line in lines)}


def _unescaped(text: str) -> str:
    """Return a path of mountinfo with its octal escapes (spaces and the like) decoded."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), text)
