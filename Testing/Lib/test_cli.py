"""The command line: what it answers, where, with which exit code, and what it never does to a file."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from UNetSegmentationLib import __version__
from UNetSegmentationLib.cli import main
from UNetSegmentationLib.commands import COMMANDS
from UNetSegmentationLib.commands.parts.terminal import ProgressBar, explain
from UNetSegmentationLib.core.errors import CancelledError
from UNetSegmentationLib.image.geometry import Volume, same_grid
from UNetSegmentationLib.image.volume_io import read_labelmap, read_volume, write_labelmap, write_volume
from UNetSegmentationLib.inference.predictor import Predictor
from UNetSegmentationLib.models.description import read_description, write_description

ROOT = Path(__file__).parents[2]
OBLIQUE = np.array([[0.0, -1.1, 0.3, 10.0], [-1.0, 0.0, 0.0, 20.0], [0.0, 0.3, 1.2, -30.0], [0.0, 0.0, 0.0, 1.0]])

pytestmark = pytest.mark.usefixtures("only_our_models")


def write_image(path: Path, *, shape=(1, 12, 14, 10), affine=OBLIQUE, seed=0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_volume(path, Volume(np.random.default_rng(seed).integers(0, 200, shape).astype(np.int16), affine))
    return path


def run(*words: object) -> int:
    return main([str(word) for word in words])


def run_process(*words: object, **options: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "UNetSegmentationLib", *(str(word) for word in words)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, encoding="utf-8", check=False, **options)


def one_line(text: str) -> str:
    """Return the only line of what was written to standard error."""
    assert text.startswith("unetseg: "), text
    assert text.count("\n") == 1, text
    return text


def test_everything_without_computation_leaves_torch_unloaded():
    program = (
        "import sys; from UNetSegmentationLib.cli import main\n"
        "for words in (['models'], ['--help'], ['--version'], ['segment', '--help'], ['train', '--help']):\n"
        "    try: main(words)\n"
        "    except SystemExit as end: assert not end.code\n"
        "assert 'torch' not in sys.modules"
    )
    answer = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, encoding="utf-8", check=False
    )
    assert answer.returncode == 0, answer.stderr
    assert f"unetseg {__version__}" in answer.stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(name, capsys):
    with pytest.raises(SystemExit) as end:
        run(name, "--help")
    assert end.value.code == 0
    assert f"usage: unetseg {name}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ((), "required: COMMAND"),
        (("dance",), "invalid choice: 'dance'"),
        (("segment", "a.nii"), "required: -o/--output"),
        (("segment", "a.nii", "-o", "b.nii", "--speed", "9"), "unrecognized arguments: --speed 9"),
        (("segment", "a.nii", "-o", "b.nii", "--roi", "-1,2"), "'-1,2' is not a valid box"),
        (("train", "d", "-o", "m", "--fold", "5"), "'5' is not a fold: give K/N"),
        (("train", "-o", "m"), "no data set is given"),
        (("train", "no such data", "-o", "m", "--id", "Größe"), "model id 'Größe' is not allowed"),
        (("train", "d", "-o", "m", "--steps", "2", "--epochs", "3"), "not allowed with"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(words, text, capsys):
    assert run(*words) == 2
    output = capsys.readouterr()
    assert text in one_line(output.err)
    assert output.out == ""


def test_models_are_listed_as_a_table_and_as_json(tiny_model, capsys):
    assert run("models") == 0
    assert "no model is installed" in capsys.readouterr().out
    folder = tiny_model("first")
    assert run("models") == 0
    header, row = capsys.readouterr().out.splitlines()
    assert header.split()[:4] == ["id", "title", "network", "preset"]
    assert "Structure 1, Structure 2" in row
    assert "–" in row.split()  # no figure was measured
    assert run("models", "--json") == 0
    (model,) = json.loads(capsys.readouterr().out)["models"]
    assert (model["id"], model["folder"], model["mean_dice"]) == ("first", str(folder), None)


def test_networks_are_listed_with_their_costs(capsys):
    from UNetSegmentationLib.networks import NETWORKS

    assert run("models", "--networks") == 0
    assert len(capsys.readouterr().out.splitlines()) == 2 + len(NETWORKS)
    assert run("models", "--networks", "--json") == 0
    entries = {entry["name"]: entry for entry in json.loads(capsys.readouterr().out)["networks"]}
    assert entries["unet"]["weights"] > 1e6


def test_a_segmentation_is_the_predictors_on_the_images_own_grid(tmp_path, tiny_model, capsys):
    model, image = tiny_model(), write_image(tmp_path / "Bild größer.nii.gz")
    assert run("segment", image, "-o", tmp_path / "out here" / "ergebnis é.seg.nrrd") == 0
    volume, result = read_volume(image), read_labelmap(tmp_path / "out here" / "ergebnis é.seg.nrrd")
    assert same_grid(volume, result)
    assert np.array_equal(result.array[0], Predictor(model).segment(volume).labelmap)
    output = capsys.readouterr()
    assert "Structure 1" in output.out
    assert "voxels" in output.out
    assert output.err == ""


def test_json_is_one_document_and_nothing_else(tmp_path, tiny_model, monkeypatch):
    model = tiny_model()
    image = write_image(tmp_path / "a b é.nii.gz")
    answer = run_process("segment", image, "-o", tmp_path / "o.nii.gz", "--model", model, "--json")
    assert answer.returncode == 0, answer.stderr
    document = json.loads(answer.stdout)
    (result,) = document["results"]
    labelmap = read_labelmap(tmp_path / "o.nii.gz").array
    assert {label["name"]: label["voxels"] for label in result["labels"]} == {
        f"Structure {value}": np.count_nonzero(labelmap == value) for value in (1, 2)
    }
    voxel_ml = abs(np.linalg.det(OBLIQUE[:3, :3])) / 1000
    assert result["labels"][0]["ml"] == pytest.approx(result["labels"][0]["voxels"] * voxel_ml, abs=1e-3)
    assert result["images"] == [str(image)]
    # What a library prints does not get between.
    monkeypatch.setattr(Predictor, "check", lambda *_: print("noise"))  # noqa: T201
    out = io.StringIO()
    monkeypatch.setattr(sys, "stdout", out)
    assert run("segment", image, "-o", tmp_path / "p.nii.gz", "--json") == 1
    document = json.loads(out.getvalue())
    assert [document["results"], len(document["errors"])] == [[], 1]


@pytest.mark.parametrize(
    "words",
    [
        ("segment", "gone.nrrd", "-o", "o.nrrd", "--json"),
        ("segment", "bad.nrrd", "-o", "o.nrrd", "--json"),
        ("segment", "bad.nrrd", "-o", "o.nrrd", "--model", "none", "--json"),
        ("segment", "--json"),
        ("evaluate", "tiny", "gone", "--json"),
        ("finetune", "tiny", "gone", "-o", "m", "--json"),
    ],
)
def test_json_is_one_document_whatever_goes_wrong(tmp_path, tiny_model, monkeypatch, capsys, words):
    monkeypatch.chdir(tmp_path)
    tiny_model()
    (tmp_path / "bad.nrrd").write_text("no image")
    assert run(*words) == 2
    output = capsys.readouterr()
    (error,) = json.loads(output.out)["errors"]
    assert error["message"] in one_line(output.err)


def test_figures_have_no_more_decimals_than_anybody_reads(tiny_model, capsys):
    folder = tiny_model()
    figures = {"cases": 2, "labels": {name: {"dice": dice} for name, dice in (("a", 0.8933), ("b", 0.8825))}}
    write_description(folder, replace(read_description(folder), figures=figures))
    assert run("models", "--json") == 0
    assert '"mean_dice": 0.8879,' in capsys.readouterr().out


def test_an_image_of_the_wrong_shape_is_named(tmp_path, tiny_model, capsys):
    tiny_model()
    for name, shape, said in (
        ("film", (3, 9, 9, 9), "has 3 channels or time points, but model 'tiny' needs 1 (sequence 1)"),
        ("flat", (1, 1, 9, 9), "is 2D, but model 'tiny' needs a 3D volume"),
    ):
        image = write_image(tmp_path / f"{name}.nii.gz", shape=shape, affine=np.eye(4))
        assert run("segment", image, "-o", tmp_path / "o.nrrd") == 2
        assert f"{image} {said}" in one_line(capsys.readouterr().err)


def test_several_images_go_to_a_folder_and_a_bad_one_does_not_stop_the_rest(tmp_path, tiny_model, capsys):
    tiny_model()
    good = [write_image(tmp_path / f"{name}.nrrd", seed=seed) for seed, name in enumerate("ac")]
    (tmp_path / "b.nrrd").write_text("no image")
    flat = write_image(tmp_path / "flat.nrrd", shape=(1, 1, 9, 9), affine=np.eye(4))
    words = ("segment", good[0], tmp_path / "b.nrrd", tmp_path / "gone.nrrd", flat, good[1], "-o", tmp_path / "out")
    assert run(*words) == 2
    output = capsys.readouterr()
    lines = output.err.splitlines()
    assert len(lines) == 3
    for line, name in zip(lines, ("gone", "b", "flat"), strict=True):
        assert str(tmp_path / f"{name}.nrrd") in line
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.seg.nrrd", "c.seg.nrrd", "segmented.jsonl"]
    assert run(*words, "--json") == 2
    document = json.loads(capsys.readouterr().out)
    assert [len(document["results"]), len(document["errors"])] == [2, 3]


def test_channels_are_found_beside_each_other_or_named_with_commas(tmp_path, tiny_model, capsys):
    two = tiny_model("two", channels=2)
    for name in ("p_0000", "p_0001", "q_0000", "T1", "T2"):
        write_image(tmp_path / f"{name}.nii.gz", seed=len(name) + ord(name[-1]))
    write_image(tmp_path / "both.nii.gz", shape=(2, 9, 9, 9), affine=np.eye(4))
    assert run("segment", tmp_path / "p_0000.nii.gz", tmp_path / "p_0001.nii.gz", "-o", tmp_path / "o") == 0
    assert [path.name for path in (tmp_path / "o").iterdir()] == ["p.seg.nrrd"]
    assert run("segment", tmp_path / "both.nii.gz", "-o", tmp_path / "o") == 0
    assert run("segment", f"{tmp_path}/T1.nii.gz,{tmp_path}/T2.nii.gz", "-o", tmp_path / "o") == 0
    t1, t2 = (read_volume(tmp_path / f"{name}.nii.gz") for name in ("T1", "T2"))
    expected = Predictor(two).segment(Volume(np.concatenate([t1.array, t2.array]), t1.affine_ras))
    assert np.array_equal(read_labelmap(tmp_path / "o" / "T1.seg.nrrd").array[0], expected.labelmap)
    capsys.readouterr()
    assert run("segment", tmp_path / "q_0000.nii.gz", "-o", tmp_path / "o") == 2
    assert "1 channel(s), but model 'two' needs 2 (sequence 1, sequence 2)" in one_line(capsys.readouterr().err)
    assert run("segment", f"{tmp_path}/T1.nii.gz,{tmp_path}/T3.nii.gz", "-o", tmp_path / "o") == 2
    assert "T3.nii.gz does not exist" in one_line(capsys.readouterr().err)


def test_without_a_model_the_only_one_that_takes_the_image_is_used(tmp_path, tiny_model, capsys):
    image = write_image(tmp_path / "a.nrrd")
    assert run("segment", image, "-o", tmp_path / "o.nrrd") == 2
    assert "no model is installed" in one_line(capsys.readouterr().err)
    tiny_model("two", channels=2)
    tiny_model("flat", dimensions=2, patch_size=(1, 16, 16), preset="xray")
    assert run("segment", image, "-o", tmp_path / "o.nrrd") == 2
    assert "no installed model accepts" in one_line(capsys.readouterr().err)
    tiny_model("one")
    assert run("segment", image, "-o", tmp_path / "o.nrrd", "--json") == 0
    assert json.loads(capsys.readouterr().out)["model"] == "one"
    better = tiny_model("better")
    figures = {"cases": 1, "labels": {"Structure 1": {"dice": 0.9}, "Structure 2": {"dice": 0.8}}}
    write_description(better, replace(read_description(better), figures=figures))
    assert run("segment", image, "-o", tmp_path / "o.nrrd", "--json") == 0
    assert json.loads(capsys.readouterr().out)["model"] == "better"
    tiny_model("other", labels=3)
    assert run("segment", image, "-o", tmp_path / "o.nrrd") == 2
    assert "3 models that segment different structures accept" in (error := one_line(capsys.readouterr().err))
    assert "better, one, other" in error
    assert run("segment", image, "-o", tmp_path / "o.nrrd", "--model", "third") == 2
    assert "there is no model 'third'" in one_line(capsys.readouterr().err)


def test_tta_and_overlap_are_what_was_given(tmp_path, tiny_model, capsys):
    tiny_model()
    image = write_image(tmp_path / "a.nrrd", shape=(1, 30, 30, 30))

    def settings(*words):
        assert run("segment", image, "-o", tmp_path / "o.nrrd", "--json", *words) == 0
        used = json.loads(capsys.readouterr().out)["results"][0]["provenance"]["settings"]
        return used["tta"], used["overlap"]

    assert settings() == (False, 0.5)
    assert settings("--overlap", "0.1") == (False, 0.1)
    assert settings("--tta") == (True, 0.5)
    assert settings("--tta", "--overlap", "0.25") == (True, 0.25)


def test_a_demonstration_is_taken_only_by_its_name(tmp_path, tiny_model, capsys):
    image = write_image(tmp_path / "a.nrrd")
    demo = tiny_model("demo")
    write_description(demo, replace(read_description(demo), training={"is_demonstration": True}))
    assert run("segment", image, "-o", tmp_path / "o.nrrd") == 2
    error = one_line(capsys.readouterr().err)
    assert "no model is installed" in error
    assert "for demonstration only, if named explicitly: demo" in error
    tiny_model("flat", dimensions=2, patch_size=(1, 16, 16), preset="xray")
    tiny_model("two", channels=2)
    assert run("segment", image, "-o", tmp_path / "o.nrrd") == 2
    assert "for demonstration only, if named explicitly: demo" in one_line(capsys.readouterr().err)
    assert run("segment", image, "-o", tmp_path / "o.nrrd", "--model", "demo") == 0


def test_a_region_is_segmented_as_its_crop_and_the_rest_is_background(tmp_path, tiny_model, capsys):
    model = tiny_model()
    affine = np.diag((-1.0, -1.0, 2.0, 1.0))
    image = write_image(tmp_path / "a.nrrd", shape=(1, 20, 30, 40), affine=affine)
    words = ("segment", image, "-o", tmp_path / "o.nrrd")
    assert run(*words, "--roi", "-20,-15,20,4.5,3.5,9", "--probabilities", tmp_path / "p.nii.gz") == 0
    inside = (slice(6, 15), slice(12, 19), slice(16, 25))
    crop = Volume(read_volume(image).array[(slice(None), *inside)], affine)
    expected = np.zeros((20, 30, 40), dtype=np.uint8)
    expected[inside] = Predictor(model).segment(crop).labelmap
    assert np.array_equal(read_labelmap(tmp_path / "o.nrrd").array[0], expected)
    probabilities = read_volume(tmp_path / "p.nii.gz")
    assert same_grid(probabilities, read_volume(image))
    assert np.allclose(probabilities.array.sum(axis=0), 1, atol=2e-3)
    assert np.array_equal(probabilities.array.argmax(axis=0)[inside], expected[inside])
    capsys.readouterr()
    assert run(*words, "--roi", "500,0,0,5,5,5") == 2
    assert "is outside the image" in one_line(capsys.readouterr().err)


def test_postprocessing_is_chosen_on_the_command_line(tmp_path, tiny_model, capsys):
    tiny_model()
    image = write_image(tmp_path / "a.nrrd")
    assert run("segment", image, "-o", tmp_path / "o.nrrd", "--postprocess", "keep_largest_component", "--json") == 0
    settings = json.loads(capsys.readouterr().out)["results"][0]["provenance"]["settings"]
    assert settings["postprocess"] == ["keep_largest_component"]
    on_probabilities = ("dense_crf:iterations=1", "keep_largest_component")
    assert run("segment", image, "-o", tmp_path / "o.nrrd", "--postprocess", *on_probabilities) == 0
    capsys.readouterr()
    assert run("segment", image, "-o", tmp_path / "o.nrrd", "--postprocess", "polish") == 2
    assert "unknown post-processing step 'polish'" in one_line(capsys.readouterr().err)


def test_an_image_is_never_overwritten(tmp_path, tiny_model, capsys):
    tiny_model()
    image = write_image(tmp_path / "a.nrrd")
    (tmp_path / "link.nrrd").symlink_to(image)
    before = image.read_bytes()
    for words in (("-o", image), ("-o", tmp_path / "link.nrrd"), ("-o", tmp_path / "o.nrrd", "--probabilities", image)):
        assert run("segment", image, *words) == 2
        assert "would overwrite the image" in one_line(capsys.readouterr().err)
    labels = tmp_path / "b.seg.nrrd"
    write_labelmap(labels, np.arange(8, dtype=np.uint8).reshape(2, 2, 2), affine_ras=np.eye(4))
    assert run("segment", labels, "-o", tmp_path) == 2
    assert "would overwrite the image" in one_line(capsys.readouterr().err)
    assert image.read_bytes() == before


def test_outputs_are_checked_before_anything_is_computed(tmp_path, tiny_model, capsys, monkeypatch):
    tiny_model()
    monkeypatch.setattr(Predictor, "segment", lambda *_, **__: pytest.fail("it was computed"))
    image = write_image(tmp_path / "a.nrrd")
    twin = write_image(tmp_path / "deep" / "A.nrrd")
    (tmp_path / "file").write_text("")
    cases = [
        ((image, "-o", tmp_path / "o.xyz"), "use a name ending in .seg.nrrd"),
        ((image, twin, "-o", tmp_path / "o.nrrd"), "is a single file, but there are 2 images: choose a folder"),
        ((image, twin, "-o", tmp_path / "o"), "would both be written to"),
        ((image, "-o", tmp_path / "file"), "is a file without a suffix"),
        ((image, "-o", tmp_path / "file" / "o.nrrd"), "is a file; choose another folder"),
        ((image, twin, "-o", tmp_path / "o", "--probabilities", "p.nrrd"), "would both be written to"),
        ((image, "-o", tmp_path / "o.nrrd", "--probabilities", "p.txt"), "cannot write probabilities to p.txt"),
        ((image, "-o", tmp_path / "o.nrrd", "--overlap", "1"), "--overlap is 1.0: give a number from 0 to below 1"),
        ((image, "-o", tmp_path / "o.nrrd", "--device", "abacus"), "this machine has no device 'abacus'"),
    ]
    for words, text in cases:
        assert run("segment", *words) == 2
        assert text in one_line(capsys.readouterr().err)
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize(
    ("name", "content", "text"),
    [
        ("empty.nii.gz", b"", "is empty (0 bytes)"),
        ("text.nii.gz", b"hello", "cannot be read"),
        ("cut.nii.gz", None, "truncated"),
        ("cut.nrrd", None, "truncated"),
        ("picture.png", b"\x89PNG\r\n\x1a\n", "cannot be read"),
        ("folder", None, "contains no DICOM images"),
    ],
)
def test_damaged_images_are_told_in_one_line(tmp_path, tiny_model, capsys, name, content, text):
    tiny_model()
    path = tmp_path / name
    if name == "folder":
        path.mkdir()
    elif content is None:
        whole = write_image(path, shape=(1, 20, 20, 20)).read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
    else:
        path.write_bytes(content)
    assert run("segment", path, "-o", tmp_path / "o.nrrd") == 2
    assert text in one_line(capsys.readouterr().err)
    assert not (tmp_path / "o.nrrd").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="there is no limit on the size of files")
def test_a_full_disk_leaves_the_old_result(tmp_path, tiny_model):
    import resource

    model = tiny_model()
    image = write_image(tmp_path / "a.nrrd", shape=(1, 40, 40, 40))
    (tmp_path / "o.seg.nrrd").write_text("old")
    limit = (4096, 4096)
    answer = run_process(
        *("segment", image, "-o", tmp_path / "o.seg.nrrd", "--model", model),
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limit),
    )
    assert answer.returncode == 2, answer.stderr
    assert "disk is full" in answer.stderr
    assert (tmp_path / "o.seg.nrrd").read_text() == "old"
    assert not list(tmp_path.glob(".*"))


def test_a_fault_of_ours_has_exit_code_1_and_its_traceback_on_demand(tmp_path, tiny_model, capsys, monkeypatch):
    tiny_model()
    image = write_image(tmp_path / "a.nrrd")

    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError("by nothing")

    monkeypatch.setattr(Predictor, "segment", fail)
    assert run("segment", image, "-o", tmp_path / "o.nrrd") == 1
    error = one_line(capsys.readouterr().err)
    assert "ZeroDivisionError: by nothing" in error
    assert "--debug" in error
    assert run("segment", image, "-o", tmp_path / "o.nrrd", "--debug") == 1
    assert "Traceback" in capsys.readouterr().err


def test_the_exit_code_tells_whose_error_it_is():
    assert explain(MemoryError())[0] == 2
    assert "not enough memory" in explain(MemoryError())[1]
    assert explain(KeyboardInterrupt()) == (130, "interrupted")
    assert explain(CancelledError("cancelled; go on with --resume"))[0] == 130


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_reader_that_goes_away_is_no_error(tiny_model):
    tiny_model()
    with subprocess.Popen(
        [sys.executable, "-m", "UNetSegmentationLib", "models", "--json"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 141


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_the_time_that_is_left_is_that_of_the_part_at_work(monkeypatch):
    clock = iter((0, 10, 40, 41, 51, 61))
    monkeypatch.setattr("UNetSegmentationLib.commands.parts.terminal.monotonic", lambda: next(clock))
    monkeypatch.setattr(sys, "stderr", Terminal())
    bar = ProgressBar()
    for number in (1, 4):
        bar.show_case({"event": "read", "number": number, "of": 4})
    # A training that goes on from its half.
    for share in (0.5, 0.6, 0.7):
        bar(share, "step")
    shown = [re.search(r"\] +(.*)\x1b", line)[1] for line in sys.stderr.getvalue().split("\r")[1:]]
    assert shown == [
        "25% read case 1 of 4, 30 s left",
        "100% read case 4 of 4, 0 s left",
        "50% step",
        "60% step, 40 s left",
        "70% step, 30 s left",
    ]


def test_the_bar_is_for_terminals_only(monkeypatch):
    monkeypatch.setattr("UNetSegmentationLib.commands.parts.terminal.REPORT_S", 60)
    for stream, is_shown in ((io.StringIO(), False), (Terminal(), True)):
        monkeypatch.setattr(sys, "stderr", stream)
        with ProgressBar() as bar:
            bar(0.5, "Segmenting")
        assert ("50% Segmenting" in stream.getvalue()) == is_shown
        assert stream.getvalue().endswith("\r\x1b[K" if is_shown else "")


def test_without_a_terminal_a_line_now_and_then_tells_that_it_goes_on(
    write_balls, tmp_path, tiny_model, monkeypatch, capsys
):
    monkeypatch.setattr("UNetSegmentationLib.commands.parts.terminal.REPORT_S", 0.002)
    image = write_image(tmp_path / "a.nrrd", shape=(1, 40, 40, 40), affine=np.eye(4))
    tiny_model("tiny", labels=1)
    dataset = write_balls(tmp_path / "data", count=2)
    train = ("train", dataset, "--steps", 2, "--fold", "0/2", "-o")
    for words, said in (
        (("segment", image, "-o", tmp_path / "o.nrrd", "--model", "tiny", "--json"), "Segmenting"),
        (("evaluate", "tiny", dataset, "--json"), "case0"),
        ((*train, tmp_path / "a"), "step "),
    ):
        assert run(*words) == 0
        output = capsys.readouterr()
        lines = [line for line in output.err.splitlines() if re.fullmatch(r"unetseg: +\d+% .+, \d+ s", line)]
        assert any(said in line for line in lines), output.err
        assert "%" not in output.out
    assert run("evaluate", "tiny", dataset, "--json", "--quiet") == 0
    assert "%" not in capsys.readouterr().err


def test_figures_that_are_undefined_are_dashes_and_null(write_balls, tmp_path, tiny_model, capsys):
    tiny_model("tiny", labels=2)
    dataset = write_balls(tmp_path / "data", count=1)
    image = read_volume(dataset / "images" / "case0.nii.gz")
    # Neither the model nor the reference holds label 2 where every voxel is one of the others.
    labelmap = np.where(Predictor(tmp_path / "models" / "tiny").segment(image).labelmap == 2, 2, 0).astype(np.uint8)
    write_labelmap(dataset / "labels" / "case0.nii.gz", labelmap, affine_ras=np.eye(4))
    assert run("evaluate", "tiny", dataset, "--json") == 0
    first, second = json.loads(capsys.readouterr().out)["cases"][0]["labels"].values()
    assert second["dice"] == 1.0
    assert first["dice"] == 0.0
    assert first["hd_mm"] is None
    assert run("evaluate", "tiny", dataset, "--held-back") == 2
    assert "has no record of held-back cases" in one_line(capsys.readouterr().err)
