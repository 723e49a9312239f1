"""Files are written whole or not at all."""

import os

import pytest

from UNetSegmentationLib.errors import InputError
from UNetSegmentationLib.files import atomic_path, write_text


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


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs the device that is always full")  # noqa: PTH110
def test_a_full_disk_gives_one_sentence(tmp_path):
    target = tmp_path / "x.txt"
    write_text(target, "old")
    with pytest.raises(InputError, match="no space left"), atomic_path(target), open("/dev/full", "w") as full:  # noqa: PTH123
        full.write("x" * 10_000)
    assert target.read_text() == "old"
