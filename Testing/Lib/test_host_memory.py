"""How much memory there is: of the computer, and of the control groups that limit a process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from UNetSegmentationLib.core import host_memory as module
from UNetSegmentationLib.core.host_memory import HostMemory, host_memory

MEMINFO = "MemTotal:       1000 kB\nMemFree:         100 kB\nMemAvailable:    600 kB\n"
TOTAL, AVAILABLE = 1000 * 1024, 600 * 1024
UNLIMITED_V1 = 2**63 - 4096


@pytest.fixture(autouse=True)
def without_psutil(monkeypatch):
    """The figures of the computer are those of the fake files."""
    monkeypatch.setitem(sys.modules, "psutil", None)


@pytest.fixture
def write(tmp_path):
    """Return a function that writes fake files, {path: text}, and returns the folder to take for /proc."""

    def write_files(files: dict[str, str]) -> Path:
        for name, text in {"proc/meminfo": MEMINFO, **files}.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return tmp_path / "proc"

    return write_files


def mount(point: Path, *, root: str = "/", version: int = 2) -> str:
    kind, options = ("cgroup2", "rw") if version == 2 else ("cgroup", "rw,memory")
    escaped = str(point).replace(" ", r"\040")
    other = "24 1 0:20 / / rw - ext4 /dev/sda rw"
    return f"{other}\n31 23 0:28 {root} {escaped} rw,nosuid shared:9 - {kind} cgroup {options}\n"


def group(folder: str, *, limit: object, used: int, active: int = 0, inactive: int = 0) -> dict[str, str]:
    stat = f"anon 5\nactive_file {active}\ninactive_file {inactive}\nshmem 7\n"
    return {
        f"{folder}/memory.max": f"{limit}\n",
        f"{folder}/memory.current": f"{used}\n",
        f"{folder}/memory.stat": stat,
    }


def group_v1(folder: str, *, limit: int, used: int, cached: int = 0, of_all: int | None = None) -> dict[str, str]:
    stat = f"inactive_file 1\ntotal_inactive_file {cached}\ntotal_active_file 0\n"
    return {
        f"{folder}/memory.limit_in_bytes": f"{limit}\n",
        f"{folder}/memory.usage_in_bytes": f"{used}\n",
        f"{folder}/memory.stat": stat + ("" if of_all is None else f"hierarchical_memory_limit {of_all}\n"),
    }


def test_without_a_limit_it_is_the_computers(write):
    assert host_memory(write({})) == HostMemory(total=TOTAL, available=AVAILABLE)


def test_a_limit_counts_and_cached_files_can_be_given_back(write, tmp_path):
    proc = write(
        {
            "proc/self/cgroup": "0::/\n",
            "proc/self/mountinfo": mount(tmp_path / "a b"),
            **group("a b", limit=9000, used=5000, active=300, inactive=700),
        }
    )
    assert host_memory(proc) == HostMemory(total=9000, available=5000)


@pytest.mark.parametrize("limit", ["max", 10 * TOTAL])
def test_a_limit_beyond_the_computer_is_none(write, tmp_path, limit):
    proc = write(
        {
            "proc/self/cgroup": "0::/\n",
            "proc/self/mountinfo": mount(tmp_path / "cg"),
            **group("cg", limit=limit, used=5000),
        }
    )
    assert host_memory(proc) == HostMemory(total=TOTAL, available=AVAILABLE)


def test_the_soft_limit_of_a_job_counts(write, tmp_path):
    proc = write(
        {
            "proc/self/cgroup": "0::/\n",
            "proc/self/mountinfo": mount(tmp_path / "cg"),
            **group("cg", limit="max", used=1000),
            "cg/memory.high": "4000",
        }
    )
    assert host_memory(proc) == HostMemory(total=4000, available=3000)


@pytest.mark.parametrize(("outer", "inner"), [(3000, 9000), (9000, 3000)])
def test_of_nested_groups_the_tightest_counts(write, tmp_path, outer, inner):
    proc = write(
        {
            "proc/self/cgroup": "0::/job.slice/step: 1\n",
            "proc/self/mountinfo": mount(tmp_path / "cg"),
            **group("cg/job.slice", limit=outer, used=2500),
            **group("cg/job.slice/step: 1", limit=inner, used=2000),
        }
    )
    assert host_memory(proc) == HostMemory(total=3000, available=500 if outer == 3000 else 1000)


def test_what_is_used_beyond_a_limit_leaves_nothing(write, tmp_path):
    proc = write(
        {
            "proc/self/cgroup": "0::/\n",
            "proc/self/mountinfo": mount(tmp_path / "cg"),
            **group("cg", limit=3000, used=3500),
        }
    )
    assert host_memory(proc).available == 0


@pytest.mark.parametrize("root", ["/", "/docker/abc"])
def test_the_first_version_of_control_groups(write, tmp_path, root):
    # In a container the path is often the host's; the mount shows what lies below its root.
    own = "cg/docker/abc" if root == "/" else "cg"
    proc = write(
        {
            "proc/self/cgroup": "5:cpu,memory:/docker/abc\n3:pids:/elsewhere\n0::/\n",
            "proc/self/mountinfo": mount(tmp_path / "cg", root=root, version=1),
            **group_v1("cg", limit=UNLIMITED_V1, used=10**6),
            **group_v1(own, limit=8000, used=5000, cached=1000),
        }
    )
    assert host_memory(proc) == HostMemory(total=8000, available=4000)


def test_the_path_of_the_host_in_a_container_that_does_not_show_it(write, tmp_path):
    proc = write(
        {
            "proc/self/cgroup": "5:memory:/kubepods/pod1/abc\n",
            "proc/self/mountinfo": mount(tmp_path / "cg", root="/another", version=1),
            **group_v1("cg", limit=8000, used=5000, of_all=6000),
        }
    )
    assert host_memory(proc) == HostMemory(total=6000, available=1000)


def test_psutil_tells_what_the_computer_has(write, monkeypatch):
    class Fake:
        @staticmethod
        def virtual_memory():
            return type("Memory", (), {"total": 70, "available": 30})

    monkeypatch.setitem(sys.modules, "psutil", Fake)
    assert host_memory(write({})) == HostMemory(total=70, available=30)


def test_a_system_that_tells_nothing(tmp_path, monkeypatch):
    assert host_memory(tmp_path).available is None
    monkeypatch.delattr(module.os, "sysconf")
    assert host_memory(tmp_path) == HostMemory(total=None, available=None)


def test_this_machine():
    # In a process of its own: psutil is hidden here.
    program = "from UNetSegmentationLib.core.host_memory import *; m = host_memory(); print(m.total, m.available)"
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    total, available = map(int, answer.stdout.split())
    assert 10**8 < available <= total < 2**50
