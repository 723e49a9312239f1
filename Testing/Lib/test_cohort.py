"""Many images in one command: what overlaps, what is left out the second time, and the same by Dask's workers."""

import gc
import json
import os
import sys
import weakref
from dataclasses import replace
from pathlib import Path
from threading import Event

import numpy as np
import pytest
import SimpleITK

from UNetSegmentationLib.cli import main
from UNetSegmentationLib.commands.parts import cohort, image_arguments
from UNetSegmentationLib.commands.parts.image_arguments import find_image
from UNetSegmentationLib.core.errors import CancelledError, InputError
from UNetSegmentationLib.core.task import Task
from UNetSegmentationLib.image.geometry import Volume
from UNetSegmentationLib.image.volume_io import read_labelmap, write_volume
from UNetSegmentationLib.inference.predictor import Predictor
from UNetSegmentationLib.models.description import read_description, write_description
from UNetSegmentationLib.models.installed import InstalledModel

pytestmark = pytest.mark.usefixtures("only_our_models")


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "Bilder é"
    folder.mkdir()
    paths = [folder / f"{name}.nii.gz" for name in "abc"]
    for seed, path in enumerate(paths):
        array = np.random.default_rng(seed).integers(0, 200, (1, 9, 10, 11)).astype(np.int16)
        write_volume(path, Volume(array, np.eye(4)))
    return paths


def run(*words: object) -> int:
    return main(["segment", *(str(word) for word in words)])


@pytest.fixture
def segmented(monkeypatch):
    """Collect what the predictor is asked for."""
    calls: list[Volume] = []
    segment = Predictor.segment

    def counted(self: Predictor, volume: Volume, **options: object) -> object:
        calls.append(volume)
        return segment(self, volume, **options)

    monkeypatch.setattr(Predictor, "segment", counted)
    return calls


def test_what_is_done_is_left_out_until_image_model_options_or_result_change(
    tmp_path, tiny_model, images, segmented, capsys
):
    tiny_model("one")
    out = tmp_path / "out"

    def again(*words: object) -> int:
        segmented.clear()
        assert run(*images, "-o", out, "--resume", *words) == 0
        return len(segmented)

    assert run(*images, "-o", out, "--model", "one") == 0
    assert again("--model", "one") == 0
    assert "3 of 3 images were already done" in capsys.readouterr().out
    assert again() == 0, "the only model is the same whether it is named or not"
    (out / "b.seg.nrrd").unlink()
    assert again() == 1
    os.utime(images[0], ns=(1, 1))
    assert again() == 1
    assert again("--overlap", "0.25") == 3
    assert again("--overlap", "0.25") == 0
    assert run(images[2], "-o", out, "--overlap", "0.1") == 0
    assert again("--overlap", "0.25") == 1, "another call has replaced the result"
    model = tmp_path / "models" / "one"
    write_description(model, replace(read_description(model), postprocess=("fill_holes",)))
    assert again("--overlap", "0.25") == 3, "the same weights with other post-processing"
    tiny_model("two", seed=1)
    assert again("--overlap", "0.25", "--model", "two") == 3
    record = out / cohort.RECORD_FILE
    record.write_text(record.read_text().replace("{", "", 1)[:-30] + "\n[1]\nnull\n")
    assert again("--overlap", "0.25", "--model", "two") == 1, "only the line that was cut off is done again"


def test_a_series_or_a_header_counts_with_its_voxels(tmp_path, tiny_model, images, segmented):
    tiny_model()
    SimpleITK.WriteImage(SimpleITK.ReadImage(images[0]), tmp_path / "h.mhd")
    words = (tmp_path / "h.mhd", images[1], "-o", tmp_path / "out", "--resume")
    for expected in (2, 0):
        segmented.clear()
        assert run(*words) == 0
        assert len(segmented) == expected
    (voxels,) = tmp_path.glob("h.*raw")
    os.utime(voxels, ns=(1, 1))
    segmented.clear()
    assert run(*words) == 0
    assert len(segmented) == 1


def test_nothing_to_segment_and_two_results_in_one_file_are_told(tmp_path, tiny_model, images, capsys):
    tiny_model()
    assert run(tmp_path / "no1.nii", tmp_path / "no2.nii", "-o", tmp_path / "out", "--resume", "--json") == 2
    assert len(json.loads(capsys.readouterr().out)["errors"]) == 2
    both = tmp_path / "r.nii.gz"
    assert run(images[0], "-o", both, "--probabilities", tmp_path / "." / "r.nii.gz") == 2
    assert "are the same file" in capsys.readouterr().err
    assert not both.exists()


def test_what_a_failed_case_held_is_free_before_the_next(tmp_path, tiny_model, images, monkeypatch):
    tiny_model()
    alive, held = weakref.WeakSet(), []

    class Held:
        pass

    def failing(_self, _volume, **_options):
        held.append(len(alive))
        large = Held()
        alive.add(large)
        raise MemoryError

    monkeypatch.setattr(Predictor, "segment", failing)
    gc.disable()
    try:
        assert run(*images, "-o", tmp_path / "out") == 2
    finally:
        gc.enable()
    assert held == [0, 0, 0]


def test_results_named_by_json_and_without_a_record(tmp_path, tiny_model, images, capsys):
    tiny_model()
    assert run(*images[:2], "-o", tmp_path / "out") == 0
    capsys.readouterr()
    assert run(*images, "-o", tmp_path / "out", "--resume", "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert document["done_before"] == [str(tmp_path / "out" / f"{name}.seg.nrrd") for name in "ab"]
    assert [entry["output"] for entry in document["results"]] == [str(tmp_path / "out" / "c.seg.nrrd")]
    assert run(images[0], "-o", tmp_path / "single") == 0
    assert [path.name for path in (tmp_path / "single").iterdir()] == ["a.seg.nrrd"]
    assert run(images[0], "-o", tmp_path / "o.nrrd", "--resume") == 2
    assert "--resume needs a folder of results" in capsys.readouterr().err


def test_an_interrupted_command_keeps_what_it_computed(tmp_path, tiny_model, images, monkeypatch, segmented):
    tiny_model()
    segment = Predictor.segment

    def interrupted(self: Predictor, volume: Volume, **options: object) -> object:
        if len(segmented) == 2:
            raise KeyboardInterrupt
        return segment(self, volume, **options)

    monkeypatch.setattr(Predictor, "segment", interrupted)
    assert run(*images, "-o", tmp_path / "out") == 130
    assert sorted(path.name for path in (tmp_path / "out").glob("*.nrrd")) == ["a.seg.nrrd", "b.seg.nrrd"]
    monkeypatch.setattr(Predictor, "segment", segment)
    assert run(*images, "-o", tmp_path / "out", "--resume") == 0
    assert len(segmented) == 3


def test_cancelled_work_ends_with_the_results_that_it_has(tmp_path, tiny_model, images):
    folder = tiny_model()
    model = InstalledModel(folder=folder, description=read_description(folder))
    cases = [
        cohort.Case(image=find_image(str(path), model.description), target=tmp_path / f"{path.name[0]}.seg.nrrd")
        for path in images
    ]
    seen = []
    task = Task(seen.append, lambda: bool(seen) and seen[-1]["stage"].startswith("3 of 3"))
    predictor = Predictor(folder, device="cpu")
    with pytest.raises(CancelledError):
        list(cohort.segment_all(lambda: predictor, cases, cohort.Settings(), model=model, task=task))
    assert sorted(path.name for path in tmp_path.glob("*.nrrd")) == ["a.seg.nrrd", "b.seg.nrrd"]
    shares = [event["fraction"] for event in seen]
    assert shares == sorted(shares)
    assert {event["stage"][:6] for event in seen} == {"1 of 3", "2 of 3", "3 of 3"}


def test_the_next_image_is_read_and_the_last_result_written_while_one_is_computed(
    tmp_path, tiny_model, images, monkeypatch
):
    tiny_model()
    began = {name: Event() for name in ("read a", "read b", "read c", "write a", "write b", "write c")}
    read, write, segment = cohort._read, cohort._write, Predictor.segment
    computed = iter(("read b", "read c", None))

    def noted_read(image, *rest):
        began[f"read {image.stem}"].set()
        return read(image, *rest)

    def noted_write(case, *rest):
        began[f"write {case.image.stem}"].set()
        return write(case, *rest)

    def waiting(self, volume, **options):
        ahead = next(computed)
        assert ahead is None or began[ahead].wait(20), "the next image is not read meanwhile"
        if ahead != "read b":
            assert began["write a"].wait(20), "the last result is not written meanwhile"
        return segment(self, volume, **options)

    monkeypatch.setattr(cohort, "_read", noted_read)
    monkeypatch.setattr(cohort, "_write", noted_write)
    monkeypatch.setattr(Predictor, "segment", waiting)
    assert run(*images, "-o", tmp_path / "out") == 0
    assert all(event.is_set() for event in began.values())


def test_a_record_that_cannot_be_written_fails_the_case_and_says_so(tmp_path, tiny_model, images, capsys):
    tiny_model()
    (tmp_path / "out" / cohort.RECORD_FILE).mkdir(parents=True)
    assert run(*images[:2], "-o", tmp_path / "out") == 2
    assert "cannot write" in capsys.readouterr().err
    assert (tmp_path / "out" / "a.seg.nrrd").exists()


@pytest.fixture
def dask(tmp_path):
    """Give the address of a scheduler with two workers, each a process of its own."""
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address=None, local_directory=str(tmp_path / "dask")
    ) as cluster:
        yield cluster.scheduler_address


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_dask_workers_find_the_same_and_a_bad_image_fails_alone(tmp_path, tiny_model, images, dask, capsys):
    tiny_model()
    bad = Path(images[0]).with_name("bad.nrrd")
    bad.write_text("no image")
    assert run(*images, "-o", tmp_path / "here") == 0
    capsys.readouterr()
    assert run(*images, bad, "-o", tmp_path / "apart", "--dask", dask) == 2
    assert str(bad) in capsys.readouterr().err
    for name in "abc":
        here, apart = (read_labelmap(tmp_path / folder / f"{name}.seg.nrrd").array for folder in ("here", "apart"))
        assert np.array_equal(here, apart)
    assert run(*images, "-o", tmp_path / "apart", "--dask", dask, "--resume", "--json") == 0
    assert len(json.loads(capsys.readouterr().out)["done_before"]) == 3


def test_without_scheduler_or_package_one_sentence_says_what_to_do(tmp_path, tiny_model, images, monkeypatch, capsys):
    tiny_model()
    monkeypatch.setattr(cohort, "CONNECTION_S", 0.2)
    assert run(*images, "-o", tmp_path / "out", "--dask", "tcp://127.0.0.1:9") == 2
    assert "no response from a Dask scheduler at tcp://127.0.0.1:9" in capsys.readouterr().err
    assert run(*images, "-o", tmp_path / "out", "--dask", "no address") == 2
    assert "no response from a Dask scheduler at no address" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "distributed", None)
    assert run(*images, "-o", tmp_path / "out", "--dask", "tcp://127.0.0.1:9") == 2
    assert "pip install distributed" in capsys.readouterr().err


def test_a_failed_write_is_an_error_of_its_case(tmp_path, tiny_model, images, monkeypatch, capsys):
    tiny_model()
    write = cohort.write_labelmap

    def full(target, *rest, **options):
        if Path(target).name.startswith("b"):
            raise InputError(f"cannot write {target}: No space left on device")
        write(target, *rest, **options)

    monkeypatch.setattr(cohort, "write_labelmap", full)
    assert run(*images, "-o", tmp_path / "out") == 2
    assert "No space left" in capsys.readouterr().err
    assert sorted(path.name for path in (tmp_path / "out").glob("*.nrrd")) == ["a.seg.nrrd", "c.seg.nrrd"]


def test_an_image_that_was_read_to_choose_the_model_is_not_read_again(images, tmp_path, tiny_model, monkeypatch):
    for name in ("one", "two"):
        tiny_model(name)
    reads = []
    read = image_arguments.read_channels
    monkeypatch.setattr(image_arguments, "read_channels", lambda paths: reads.append(paths) or read(paths))
    assert run(images[0], "-o", tmp_path / "chosen.nii.gz") == 0
    assert len(reads) == 1
    assert run(images[0], "-o", tmp_path / "named.nii.gz", "--model", "one") == 0
    chosen, named = (read_labelmap(tmp_path / f"{name}.nii.gz").array for name in ("chosen", "named"))
    assert np.array_equal(chosen, named)


def test_the_help_names_the_record_of_what_is_done(capsys):
    with pytest.raises(SystemExit):
        run("--help")
    assert cohort.RECORD_FILE in capsys.readouterr().out
