"""A cascade looks twice: what its first stage finds reaches the second where it lies, and both stay one model."""

from __future__ import annotations

import json
import os
import shutil
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from UNetSegmentationLib.cli import main
from UNetSegmentationLib.conventions import prepare
from UNetSegmentationLib.conventions.parts.nnunet_math import resample_labels_by_share
from UNetSegmentationLib.core.errors import CancelledError, InputError
from UNetSegmentationLib.core.task import Task
from UNetSegmentationLib.finetuning.job import FinetuningJob
from UNetSegmentationLib.finetuning.run import run_finetuning
from UNetSegmentationLib.image.geometry import Volume
from UNetSegmentationLib.image.volume_io import write_labelmap, write_volume
from UNetSegmentationLib.importers import ImportOptions, import_model
from UNetSegmentationLib.inference.feature_maps import list_feature_maps, view_features
from UNetSegmentationLib.inference.predictor import Predictor
from UNetSegmentationLib.models.description import ModelDescription, PreviousStage, read_description, write_description
from UNetSegmentationLib.models.installed import bundled_models_folder, list_models
from UNetSegmentationLib.planning.plan import Normalization, Plan
from UNetSegmentationLib.worker.warm_models import WarmModels

FIXTURES = Path(__file__).parents[1] / "Fixtures" / "nnunet"
LOW, CASCADE = (f"nnUNetTrainer__nnUNetPlans__{name}" for name in ("3d_lowres", "3d_cascade_fullres"))


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """Networks this small take longer on several threads than on one."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "cascade"
    import_model(FIXTURES / "cascade_regions", folder)
    return folder


@pytest.fixture
def model(imported: Path, tmp_path: Path) -> Path:
    """Return a copy of a cascade that a test may change."""
    return Path(shutil.copytree(imported, tmp_path / "models" / "cascade"))


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Return a copy of the results of both stages that a test may change."""
    source = FIXTURES / "cascade"
    return Path(shutil.copytree(source, tmp_path / "Dataset998_Cascade", ignore=shutil.ignore_patterns("*.npz")))


def volume_of(name: str = "cascade_regions") -> tuple[Volume, dict[str, np.ndarray]]:
    arrays = dict(np.load(FIXTURES / name / "images.npz"))
    return Volume(arrays["image"], np.diag([*arrays["spacing_mm"][::-1], 1.0])), arrays


def test_both_stages_are_complete_models_and_the_checksums_tie_them(imported: Path) -> None:
    second, first = read_description(imported), read_description(imported / "previous")
    assert second.previous_stage == PreviousStage(label_values=(1, 2), weights_sha256=first.weights_sha256)
    assert first.previous_stage is None
    assert second.network_config["in_channels"] == len(second.channels) + 2
    assert [found.folder for found in list_models([imported.parent])] == [imported]
    assert "3d_lowres" in (imported / "CARD.md").read_text()


def test_the_folds_of_each_stage_become_its_members(results: Path, tmp_path: Path) -> None:
    import_model(results, tmp_path / "all")
    counts = [read_description(folder).members for folder in (tmp_path / "all", tmp_path / "all" / "previous")]
    assert counts == [1, 2]
    import_model(results, tmp_path / "one", options=ImportOptions(folds=("0",)))
    assert read_description(tmp_path / "one" / "previous").members == 1
    shutil.copytree(results / CASCADE / "fold_0", results / CASCADE / "fold_3")
    found = import_model(results, tmp_path / "other", options=ImportOptions(folds=("3",)))
    assert any("has no fold 3" in warning for warning in found.warnings)
    assert found.previous.description.members == 2


def test_the_second_stage_uses_what_the_first_finds(model: Path) -> None:
    volume, arrays = volume_of()
    predictor = Predictor(model, device="cpu")
    with_both = predictor.segment(volume)
    assert with_both.provenance["first_stage"]["model_id"] == predictor.previous.description.id
    assert with_both.duration_s["total"] > with_both.duration_s["First stage"] > 0
    for parameter in predictor.previous.network.parameters():
        parameter.data.zero_()
    changed = predictor.segment(volume).labelmap
    assert np.mean(changed != arrays["labels"]) > 0.02


def test_progress_rises_through_both_stages_to_one(imported: Path) -> None:
    seen: list[tuple[float, str]] = []
    Predictor(imported, device="cpu").segment(
        volume_of()[0], task=Task(lambda now: seen.append((now["fraction"], now["stage"])))
    )
    shares = [share for share, _ in seen]
    assert shares == sorted(shares)
    assert shares[-1] == 1
    stages = ("Preparing the image", "Segmenting", "Finishing")
    assert list(dict.fromkeys(stage for _, stage in seen)) == [*(f"First stage: {name}" for name in stages), *stages]


@pytest.mark.parametrize("stage", ["First stage: Segmenting", "Segmenting"])
def test_either_stage_can_be_cancelled(imported: Path, stage: str) -> None:
    seen: list[str] = []
    with pytest.raises(CancelledError):
        Predictor(imported, device="cpu").segment(
            volume_of()[0], task=Task(lambda now: seen.append(now["stage"]), lambda: stage in seen)
        )
    assert seen[-1] == stage


def test_a_zip_archive_of_both_is_imported(results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    archive = Path(shutil.make_archive(str(tmp_path / "model"), "zip", results.parent, results.name))
    assert main(["import", str(archive), "-o", str(tmp_path / "model"), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["model"]["previous_stage"]["label_values"] == [1, 2]
    assert ModelDescription.from_dict(document["model"]) == read_description(tmp_path / "model")


def test_the_cascade_is_found_among_other_configurations(results: Path, tmp_path: Path) -> None:
    import_model(results / CASCADE, tmp_path / "alone")
    plain = next((FIXTURES / "plain3d").glob("nnUNet*"))
    shutil.copytree(plain, results / plain.name)
    with pytest.raises(InputError, match="several models"):
        import_model(results, tmp_path / "model")
    for name, stages in (("3d_cascade_fullres", 2), ("3d_fullres", 1), ("3d_lowres", 1)):
        found = import_model(results, tmp_path / name, options=ImportOptions(configuration=name))
        assert (found.previous is not None) == (stages == 2)


def test_a_cascade_without_its_first_stage_is_refused_with_what_to_copy(
    results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(results / LOW)
    assert main(["import", str(results), "-o", str(tmp_path / "model")]) == 2
    sentence = capsys.readouterr().err
    assert f"copy the folder {LOW} beside {CASCADE}" in sentence
    assert sentence.count("\n") == 1
    assert not (tmp_path / "model").exists()
    with zipfile.ZipFile(tmp_path / "model.zip", "w") as archive:
        for path in (results / CASCADE).rglob("*"):
            archive.write(path, path.relative_to(results))
    with pytest.raises(InputError, match="or put both into one zip archive"):
        import_model(tmp_path / "model.zip", tmp_path / "model")


def test_a_first_stage_of_another_trainer_is_taken_with_a_warning(results: Path, tmp_path: Path) -> None:
    (results / LOW).rename(results / LOW.replace("nnUNetTrainer", "nnUNetTrainerNoMirroring"))
    options = ImportOptions(configuration="3d_cascade_fullres")
    assert "NoMirroring" in import_model(results, tmp_path / "model", options=options).warnings[0]


def test_stages_of_different_labels_are_refused(results: Path, tmp_path: Path) -> None:
    dataset = json.loads((results / LOW / "dataset.json").read_text())
    dataset["labels"] = {"background": 0, "left": 1, "right": 2}
    (results / LOW / "dataset.json").write_text(json.dumps(dataset))
    with pytest.raises(InputError, match="different channels or labels"):
        import_model(results, tmp_path / "model")


def test_labels_that_are_resampled_in_another_way_are_refused(results: Path, tmp_path: Path) -> None:
    plans = json.loads((results / CASCADE / "plans.json").read_text())
    plans["configurations"]["3d_fullres"]["resampling_fn_seg"] = "resample_torch_simple"
    (results / CASCADE / "plans.json").write_text(json.dumps(plans))
    with pytest.raises(InputError, match="resampling_fn_seg is 'resample_torch_simple'"):
        import_model(results, tmp_path / "model")


def test_a_first_stage_that_is_missing_or_another_is_refused(model: Path) -> None:
    first = read_description(model / "previous")
    write_description(model / "previous", replace(first, weights_sha256="0" * 64))
    with pytest.raises(InputError, match="not the first stage"):
        Predictor(model, device="cpu")
    two = replace(first.plan, normalization=first.plan.normalization * 2)
    write_description(model / "previous", replace(first, plan=two, channels=first.channels * 2))
    with pytest.raises(InputError, match=r"needs 2 channel\(s\), but the cascade 1"):
        Predictor(model, device="cpu")
    shutil.rmtree(model / "previous")
    with pytest.raises(InputError, match="lacks its first stage"):
        Predictor(model, device="cpu")


@pytest.mark.parametrize("values", [(), (1, 1), (0, 1), (1.5,), ("a",)])
def test_a_first_stage_that_finds_no_labels_is_refused(values: tuple[object, ...]) -> None:
    with pytest.raises(InputError, match="label_values of the previous stage"):
        PreviousStage(label_values=values)


def test_misspelt_entries_of_the_first_stage_are_refused(imported: Path) -> None:
    values = read_description(imported).to_dict()
    values["previous_stage"]["folder"] = "elsewhere"
    with pytest.raises(InputError, match="folder"):
        ModelDescription.from_dict(values)


def test_models_without_a_first_stage_are_written_as_before() -> None:
    folder = bundled_models_folder() / "mri-hippocampus-unet"
    assert "previous_stage" not in read_description(folder).to_dict()


def test_a_cascade_is_not_fine_tuned(imported: Path, tmp_path: Path) -> None:
    cases = tmp_path / "cases"
    volume, arrays = volume_of()
    for name in ("a", "b"):
        write_volume(cases / "images" / f"{name}.nii.gz", volume)
        write_labelmap(cases / "labels" / f"{name}.nii.gz", arrays["labels"], affine_ras=volume.affine_ras)
    with pytest.raises(InputError, match="second stage of a cascade"):
        run_finetuning(FinetuningJob(model=str(imported), dataset=cases, folder=tmp_path / "tuned"))


def test_features_of_the_second_stage_can_be_seen(imported: Path) -> None:
    predictor = Predictor(imported, device="cpu")
    volume, _ = volume_of()
    name = list_feature_maps(predictor.network)[0].name
    assert view_features(predictor, volume, names=[name])[name].shape == volume.shape


def test_a_warm_cascade_is_read_again_where_its_first_stage_changes(model: Path) -> None:
    warm = WarmModels()
    before = warm.get(str(model), "cpu")
    assert warm.get(str(model), "cpu") is before
    os.utime(model / "previous" / "model.json", (1, 1))
    assert warm.get(str(model), "cpu") is not before


@pytest.mark.usefixtures("only_our_models")
def test_the_listed_size_is_that_of_both_stages(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "--json"]) == 0
    (entry,) = json.loads(capsys.readouterr().out)["models"]
    sizes = [path.stat().st_size for path in model.rglob("weights.safetensors")]
    assert len(sizes) == 2
    assert entry["size_mb"] == round(sum(sizes) / 1e6, 2)


def plan_of(**entries: object) -> Plan:
    return Plan(
        dimensions=3,
        spacing_mm=(1.0, 1.0, 1.0),
        patch_size=(8, 8, 8),
        batch_size=1,
        orientation="RAS",
        normalization=(Normalization(scheme="zscore"),),
        **entries,
    )


@pytest.mark.parametrize(("conventions", "first"), [("own", 0), ("nnunet", 1)])
def test_found_labels_are_turned_cropped_and_resampled_with_the_image(conventions: str, first: int) -> None:
    """Slabs along one axis, which nothing rounds off: on a grid twice as fine each is twice as many voxels."""
    labels, grey = np.array([0, 0, 1, 1, 4, 0], np.uint8), np.array([0, 3, 5, 5, 9, 3], np.float32)
    slabs = np.ones((3, 4, 1), np.uint8)
    from_left = np.diag([-2.0, -2.0, 2.0, 1.0])
    plan = plan_of(conventions=conventions, transpose=(1, 2, 0))
    prepared = prepare(Volume((slabs * grey)[None], from_left), plan)
    taken = prepared.with_found_labels(slabs * labels, label_values=(4, 1))
    # nnU-Net crops the slab that is empty; right comes before left, and the axis is the second of the network's.
    expected = np.repeat(labels[first:][::-1], 2)
    assert taken.image.shape == (3, 8, len(expected), 6)
    assert taken.padding.tolist() == [0, 0, 0]
    for channel, value in zip(taken.image[1:].numpy(), (4, 1), strict=True):
        np.testing.assert_array_equal(channel, np.broadcast_to((expected == value)[:, None], channel.shape))


def test_resampled_labels_are_those_of_the_largest_share() -> None:
    line = np.array([0, 0, 3, 3, -1, -1])
    volume = np.broadcast_to(line, (2, 2, 6)).astype(np.int32)
    finer = resample_labels_by_share(volume, (2, 2, 12), across=None)
    np.testing.assert_array_equal(finer[0, 0], np.repeat(line, 2))
    # One voxel in a pair of two: both have half of it, and the nearest decides.
    coarser = resample_labels_by_share(np.broadcast_to([0, 5, 5, 0], (1, 1, 4)), (1, 1, 2), across=None)
    assert set(coarser.ravel()) <= {0, 5}
    # Three labels at the corners of a cube: two of them have three of its eight corners, one has two.
    corners = np.array([3, 1, 1, 1, 2, 2, 2, 3]).reshape(2, 2, 2)
    assert resample_labels_by_share(corners, (1, 1, 1), across=None).item() in (1, 2)
    assert resample_labels_by_share(volume, (2, 2, 6), across=None) is volume


def test_labels_of_thick_slices_are_not_mixed_across() -> None:
    slices = np.arange(4, dtype=np.int32)[:, None, None] * np.ones((4, 3, 3), np.int32)
    resampled = resample_labels_by_share(slices, (8, 6, 6), across=0)
    np.testing.assert_array_equal(resampled, np.repeat(np.arange(4), 2)[:, None, None] * np.ones((8, 6, 6)))
