"""Files are written whole or not at all."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from UNetSegmentationLib.core.errors import InputError
from UNetSegmentationLib.core.files import atomic_path, hold_alone, write_text


def test_the_file_appears_only_when_the_block_ends_well(tmp_path):
    target = tmp_path / "new folder" / "ä.nii.gz"
    with atomic_path(target) as temporary:
        assert temporary.name.endswith(".nii.gz")
        temporary.write_text("one")
        assert not target.exists()
    assert target.read_text() == "one"
    assert [path.name for path in target.parent.iterdir()] == [target.name]


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path):
    target = tmp_path / "x.json"
    write_text(target, "old")
    with pytest.raises(ZeroDivisionError), atomic_path(target) as temporary:
        temporary.write_text("half")
        raise ZeroDivisionError
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_the_mode_is_that_of_an_ordinary_new_file(tmp_path):
    (tmp_path / "plain").write_text("")
    write_text(tmp_path / "ours", "")
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_folder_that_cannot_be_made_gives_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write .* choose another folder"):
        write_text(tmp_path / "file" / "x.txt", "text")


def test_what_is_held_keeps_others_out_until_the_end(tmp_path):
    path = tmp_path / "new" / "log"
    with hold_alone(path, task="training"):
        with pytest.raises(InputError, match="another training is running in"), hold_alone(path, task="training"):
            pytest.fail("two are in")
        path.write_text("line")
    with hold_alone(path, task="training"):
        assert path.read_text() == "line"
    assert path.exists()


def test_a_hold_that_came_to_nothing_leaves_nothing(tmp_path):
    with pytest.raises(ZeroDivisionError), hold_alone(tmp_path / "new" / "log", task="training"):
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


def test_a_process_that_is_killed_leaves_the_old_file_and_holds_nothing(tmp_path):
    target = tmp_path / "x.txt"
    write_text(target, "old")
    code = (
        "import os, signal, sys; from pathlib import Path; from UNetSegmentationLib.core.files import *\n"
        "with hold_alone(Path(sys.argv[1] + '.log'), task='test'), atomic_path(sys.argv[1]) as temporary:\n"
        "    temporary.write_text('half'); os.kill(os.getpid(), getattr(signal, 'SIGKILL', signal.SIGTERM))\n"
    )
    root = Path(__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", code, str(target)], cwd=root, check=False).returncode != 0
    assert target.read_text() == "old"
    with hold_alone(Path(f"{target}.log"), task="test"):
        pass


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs the device that is always full")  # noqa: PTH110
def test_a_full_disk_gives_one_sentence(tmp_path):
    target = tmp_path / "x.txt"
    write_text(target, "old")
    with pytest.raises(InputError, match="no space left"), atomic_path(target), open("/dev/full", "w") as full:  # noqa: PTH123
        full.write("x" * 10_000)
    assert target.read_text() == "old"
