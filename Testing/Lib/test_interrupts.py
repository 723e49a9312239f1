"""Ctrl-C ends a command at once, or with a checkpoint, and without a traceback."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from UNetSegmentationLib.image.geometry import Volume
from UNetSegmentationLib.image.volume_io import write_volume
from UNetSegmentationLib.training.checkpoint import CHECKPOINT_FILE

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.usefixtures("only_our_models")


def one_line(text: str) -> str:
    """Return the only line of what was written to standard error."""
    assert text.startswith("unetseg: "), text
    assert text.count("\n") == 1, text
    return text


def wait_for(condition: Callable[[], bool], *, timeout_s: float = 60) -> None:
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


# A process in the background of a shell, as in many a CI, is born deaf to Ctrl-C, and so would be its children.
HEARING = (
    "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_DFL); "
    "os.execv(sys.executable, [sys.executable, '-m', 'UNetSegmentationLib', *sys.argv[1:]])"
)


@pytest.mark.skipif(sys.platform == "win32", reason="signals are another matter there")
def test_ctrl_c_keeps_the_checkpoint_of_a_training(write_balls, tmp_path):
    dataset, model = write_balls(tmp_path / "data"), tmp_path / "m"
    words = ("train", dataset, "-o", model, "--minutes", 10, "--fold", "0/2", "--device", "cpu", "--quiet")
    with subprocess.Popen(
        [sys.executable, "-c", HEARING, *(str(word) for word in words)],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    ) as process:
        record = model / "training.jsonl"
        wait_for(lambda: record.is_file() and '"event":"step"' in record.read_text(encoding="utf-8"))
        process.send_signal(signal.SIGINT)
        error = process.stderr.read()
    assert process.returncode == 130
    assert "--resume" in one_line(error)
    assert (model / CHECKPOINT_FILE).is_file()


@pytest.mark.skipif(sys.platform != "linux", reason="only there it is known from outside how far a process is")
def test_ctrl_c_ends_a_segmentation_without_a_traceback(tmp_path, tiny_model):
    model, image = tiny_model(), tmp_path / "a.nrrd"
    write_volume(image, Volume(np.zeros((1, 150, 150, 150), np.int16), np.eye(4)))
    words = ("segment", image, "-o", tmp_path / "o.nrrd", "--model", model, "--quiet")
    with subprocess.Popen(
        [sys.executable, "-c", HEARING, *(str(word) for word in words)],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    ) as process:
        # Before torch the interpreter itself is still starting.
        wait_for(lambda: "libtorch_cpu" in Path(f"/proc/{process.pid}/maps").read_text(encoding="utf-8"))
        process.send_signal(signal.SIGINT)
        error = process.stderr.read()
    assert process.returncode == 130
    assert one_line(error) == "unetseg: interrupted\n"
    assert not (tmp_path / "o.nrrd").exists()
