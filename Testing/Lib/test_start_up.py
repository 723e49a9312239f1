"""What the command line loads and how it leaves: no more than the command needs, and nothing lost at the end."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from UNetSegmentationLib.commands import COMMANDS

ROOT = Path(__file__).parents[2]
SAMPLE = ROOT / "Resources/Samples/mri_hippocampus.nii.gz"
MODEL = ROOT / "Resources/Models/mri-hippocampus-unet"
HEAVY = {"torch", "scipy", "SimpleITK", "openvino"}


def python(program: str, *words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", program, *map(str, words)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, encoding="utf-8", check=False, timeout=120)


def loaded_by(*words: object) -> set[str]:
    """Return the modules that a process has loaded at the end of a command."""
    program = (
        "import sys; from UNetSegmentationLib.cli import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit: pass\n"
        "print('modules', *sys.modules)"
    )
    answer = python(program, *words)
    return set(answer.stdout.splitlines()[-1].split())


def commands_in(modules: set[str]) -> set[str]:
    prefix = "UNetSegmentationLib.commands."
    names = {name.removeprefix(prefix) for name in modules if name.startswith(prefix)}
    return {name for name in names if "." not in name} - {"contract", "parts"}


@pytest.mark.parametrize(
    ("words", "commands"),
    [
        (["--help"], set()),
        (["--version"], set()),
        (["dance"], set()),
        (["models"], {"models"}),
        (["models", "--speed"], {"models"}),
        (["segment"], {"segment"}),
        (["segment", "a.nii", "-o", "b.nii", "--speed", "9"], {"segment"}),
    ],
    ids=" ".join,
)
def test_what_computes_nothing_loads_nothing_heavy_and_no_other_command(words, commands):
    modules = loaded_by(*words)
    assert not modules & HEAVY
    assert commands_in(modules) == commands


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_a_command_loads_nothing_heavy(name):
    modules = loaded_by(name, "--help")
    assert not modules & HEAVY
    assert len(commands_in(modules)) == 1


def test_segment_loads_what_it_needs_alone(tmp_path):
    modules = loaded_by("segment", SAMPLE, "--model", MODEL, "-o", tmp_path / "out.seg.nrrd", "--device", "cpu")
    assert (tmp_path / "out.seg.nrrd").is_file()
    assert commands_in(modules) == {"segment"}
    networks = {name.split(".")[2] for name in modules if name.startswith("UNetSegmentationLib.networks.")}
    assert networks == {"contract", "parts", "unet"}
    # nibabel looks whether scipy is there, which loads none of its parts.
    costly = ("UNetSegmentationLib.training", "scipy.ndimage", "scipy.spatial", "scipy.special", "torch._dynamo")
    assert not {name for name in modules if name.startswith(costly)}


def test_importing_the_package_loads_nothing():
    program = "import sys; before = set(sys.modules); import UNetSegmentationLib\nprint(*set(sys.modules) - before)"
    loaded = set(python(program).stdout.split())
    assert {name for name in loaded if name.split(".")[0] not in sys.stdlib_module_names} == {"UNetSegmentationLib"}


ENTER = """
import atexit, os, sys, tempfile, threading, time
from UNetSegmentationLib import cli
from UNetSegmentationLib.commands import COMMANDS, Command
def run(arguments, out):
    {work}
    out.write("the answer")
    return 3
COMMANDS.register("models", title="")(Command(add_arguments=lambda parser: None, run=run, description="x"))
sys.argv = ["unetseg", "models"]
{before}
cli.enter()
"""


# Told when the interpreter takes down its modules, which `enter` leaves out.
FAREWELL = """
class Ended:
    def __del__(self, write=os.write): write(2, b"farewell")
ended = Ended()
"""


def test_leaving_at_once_loses_nothing(tmp_path):
    work = (
        f"global kept; kept = tempfile.TemporaryDirectory(dir={str(tmp_path)!r})\n"
        "    atexit.register(lambda: print('at the end', file=sys.stderr))\n"
        "    sys.stderr.write('unfinished line ')"
    )
    answer = python(ENTER.format(work=work, before=FAREWELL))
    assert (answer.returncode, answer.stdout) == (3, "the answer")
    assert "at the end" in answer.stderr
    assert "unfinished line" in answer.stderr
    assert "farewell" not in answer.stderr
    assert list(tmp_path.iterdir()) == []  # the temporary folder was taken away


@pytest.mark.parametrize(
    ("work", "before"),
    [
        ("pass", "sys.setprofile(lambda *_: None)"),
        ("threading.Thread(target=lambda: (time.sleep(0.3), print('done', file=sys.stderr))).start()", ""),
    ],
    ids=["profiler", "thread"],
)
def test_whoever_needs_the_interpreters_end_gets_it(work, before):
    answer = python(ENTER.format(work=work, before=FAREWELL + before))
    assert (answer.returncode, answer.stdout) == (3, "the answer")
    assert "farewell" in answer.stderr
    assert "thread" not in work.lower() or "done" in answer.stderr


@pytest.mark.parametrize(("words", "status"), [(["models"], 0), (["dance"], 2)])
def test_the_process_ends_with_the_code_of_the_command(words, status):
    command = [sys.executable, "-m", "UNetSegmentationLib", *words]
    assert subprocess.run(command, cwd=ROOT, capture_output=True, check=False, timeout=120).returncode == status
