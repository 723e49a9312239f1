"""A model of nnU-Net finds here what it finds there, and its files cannot do anything but be read."""

from __future__ import annotations

import io
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
from scipy import ndimage

from UNetSegmentationLib.cli import main
from UNetSegmentationLib.conventions.parts.nnunet_math import content_mask, nearest_planes, plane_axis, resample_spline
from UNetSegmentationLib.core.errors import InputError
from UNetSegmentationLib.image.geometry import Volume
from UNetSegmentationLib.importers import IMPORTERS, ImportOptions, import_model
from UNetSegmentationLib.importers.parts import archive as archives
from UNetSegmentationLib.importers.parts.torch_checkpoint import read_checkpoint
from UNetSegmentationLib.inference.predictor import Predictor
from UNetSegmentationLib.models.description import ModelDescription, read_description
from UNetSegmentationLib.models.installed import bundled_models_folder
from UNetSegmentationLib.planning.plan import Normalization

FIXTURES = Path(__file__).parents[1] / "Fixtures" / "nnunet"
NAMES = sorted(path.name for path in FIXTURES.iterdir())
AGREEMENT = 0.9999


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """Networks this small take longer on several threads than on one."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def results_in(folder: Path) -> Path:
    return next(path for path in folder.iterdir() if path.is_dir())


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Return a copy of a results folder that a test may damage."""
    source = results_in(FIXTURES / "plain3d")
    return Path(shutil.copytree(source, tmp_path / "data" / source.name))


def volume_in(folder: Path) -> tuple[Volume, dict[str, np.ndarray]]:
    arrays = dict(np.load(folder / "images.npz"))
    return Volume(arrays["image"], np.diag([*arrays["spacing_mm"][::-1], 1.0])), arrays


def change(path: Path, **entries: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **entries}))


def change_configuration(results: Path, **entries: object) -> None:
    plans = json.loads((results / "plans.json").read_text())
    plans["configurations"]["3d_fullres"].update(entries)
    (results / "plans.json").write_text(json.dumps(plans))


@pytest.mark.parametrize("name", NAMES)
def test_labels_are_those_of_nnunets_own_predictor(name: str, tmp_path: Path) -> None:
    import_model(FIXTURES / name, tmp_path / "model")
    volume, arrays = volume_in(FIXTURES / name)
    predictor = Predictor(tmp_path / "model", device="cpu")
    assert len(np.unique(arrays["labels"])) > 1
    assert np.mean(predictor.segment(volume).labelmap == arrays["labels"]) >= AGREEMENT
    if "labels_mirrored" in arrays:
        assert np.mean(predictor.segment(volume, tta=True).labelmap == arrays["labels_mirrored"]) >= AGREEMENT


@pytest.mark.parametrize("name", ["plain3d", "regions", "thick_transposed"])
def test_probabilities_lie_on_the_whole_grid_and_agree_with_the_labels(name: str, tmp_path: Path) -> None:
    model = import_model(FIXTURES / name, tmp_path / "model")
    volume, arrays = volume_in(FIXTURES / name)
    found = Predictor(tmp_path / "model", device="cpu").segment(volume, with_probabilities=True)
    probabilities = found.probabilities.astype(np.float32)
    assert probabilities.shape == (1 + len(model.description.labels), *volume.shape)
    if name == "regions":
        for label, probability in zip(model.description.labels, probabilities[1:], strict=True):
            assert (probability[found.labelmap == label.value] >= 0.5).all()
        return
    np.testing.assert_allclose(probabilities.sum(axis=0), 1, atol=2e-3)
    top = np.sort(probabilities, axis=0)
    is_clear = top[-1] - top[-2] > 0.01
    np.testing.assert_array_equal(probabilities.argmax(axis=0)[is_clear], arrays["labels"][is_clear])


def test_an_oblique_image_has_the_result_of_the_straight_one(tmp_path: Path) -> None:
    import_model(FIXTURES / "plain3d", tmp_path / "model")
    volume, arrays = volume_in(FIXTURES / "plain3d")
    angle = np.deg2rad(20)
    rotation = np.eye(4)
    rotation[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    oblique = Volume(volume.array, rotation @ volume.affine_ras)
    labelmap = Predictor(tmp_path / "model", device="cpu").segment(oblique).labelmap
    assert np.mean(labelmap == arrays["labels"]) >= AGREEMENT


def test_folds_become_members_of_one_model(tmp_path: Path) -> None:
    both = import_model(FIXTURES / "two_folds_ignore", tmp_path / "both")
    one = import_model(FIXTURES / "two_folds_ignore", tmp_path / "one", options=ImportOptions(folds=("1",)))
    assert both.description.members == 2
    assert one.description.members == 1
    assert [label.name for label in both.description.labels] == ["front", "back"]
    network, first = (Predictor(tmp_path / name, device="cpu").network for name in ("both", "one"))
    image = torch.randn(1, 1, 16, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        torch.testing.assert_close(network.members[1](image), first(image))
        mean = (network.members[0](image) + network.members[1](image)) / 2
        torch.testing.assert_close(network(image), mean)


def test_the_command_imports_a_zip_archive_and_the_model_is_listed(tmp_path: Path, capsys, monkeypatch) -> None:
    archive = tmp_path / "model.zip"
    with zipfile.ZipFile(archive, "w") as opened:
        for path in (FIXTURES / "slices2d").rglob("*"):
            opened.write(path, path.relative_to(FIXTURES))
    assert main(["import", str(archive), "-o", str(tmp_path / "models" / "slices"), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    description = read_description(tmp_path / "models" / "slices")
    assert ModelDescription.from_dict(document["model"]) == description
    assert description.network == "nnunet_plain"
    assert "fold(s) 0" in (tmp_path / "models" / "slices" / "CARD.md").read_text()
    monkeypatch.setenv("UNETSEG_MODELS", str(tmp_path / "models"))
    assert main(["models", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)["models"]
    assert document["model"]["id"] in [entry["id"] for entry in listed]


def test_a_configuration_is_chosen_among_several(tmp_path: Path) -> None:
    for name in ("plain3d", "lowres_ct"):
        shutil.copytree(results_in(FIXTURES / name), tmp_path / "data" / results_in(FIXTURES / name).name)
    with pytest.raises(InputError, match="--configuration"):
        import_model(tmp_path / "data", tmp_path / "model")
    with pytest.raises(InputError, match="no configuration '2d'"):
        import_model(tmp_path / "data", tmp_path / "model", options=ImportOptions(configuration="2d"))
    model = import_model(tmp_path / "data", tmp_path / "model", options=ImportOptions(configuration="3d_lowres"))
    assert model.description.preset == "ct"


def save_with(results: Path, **entries: object) -> Path:
    path = results / "fold_0" / "checkpoint_final.pth"
    torch.save({**read_checkpoint(path), **entries}, path)
    return path


class Bomb:
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.folder),)


def test_code_in_a_checkpoint_is_refused_by_name_and_never_runs(results: Path, tmp_path: Path) -> None:
    save_with(results, logging=Bomb(tmp_path / "ran"))
    with pytest.raises(InputError, match=r"(posix|nt)\.mkdir"):
        import_model(results, tmp_path / "model")
    assert not (tmp_path / "ran").exists()
    assert not (tmp_path / "model").exists()


def test_objects_of_other_classes_are_refused_by_name(results: Path, tmp_path: Path) -> None:
    save_with(results, logging=Path("x"))
    with pytest.raises(InputError, match=r"pathlib"):
        import_model(results, tmp_path / "model")


def test_numbers_arrays_and_devices_are_read(results: Path, tmp_path: Path) -> None:
    extra = {"a": np.float64(1.5), "b": np.int64(2), "c": np.arange(3.0), "d": torch.device("cpu"), "e": np.bool_(True)}
    path = save_with(results, logging=extra)
    logged = read_checkpoint(path)["logging"]
    assert (logged["a"], logged["b"], list(logged["c"]), logged["d"].type, logged["e"]) == (1.5, 2, [0, 1, 2], "cpu", 1)
    import_model(results, tmp_path / "model")


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.99])
def test_a_checkpoint_that_was_cut_off_is_refused(results: Path, tmp_path: Path, share: float) -> None:
    path = results / "fold_0" / "checkpoint_final.pth"
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(InputError, match="damaged"):
        import_model(results, tmp_path / "model")


def test_weights_of_wrapped_networks_are_unwrapped(results: Path, tmp_path: Path) -> None:
    weights = read_checkpoint(results / "fold_0" / "checkpoint_final.pth")["network_weights"]
    save_with(results, network_weights={f"module._orig_mod.{name}": value for name, value in weights.items()})
    import_model(results, tmp_path / "model")


def test_weights_of_another_network_are_refused(results: Path, tmp_path: Path) -> None:
    path = results / "fold_0" / "checkpoint_final.pth"
    weights = read_checkpoint(path)["network_weights"]
    save_with(results, network_weights={**weights, "encoder.attention.weight": torch.ones(2)})
    with pytest.raises(InputError, match=r"encoder\.attention\.weight"):
        import_model(results, tmp_path / "model")
    save_with(results, network_weights={name: value for name, value in weights.items() if "transpconvs" not in name})
    with pytest.raises(InputError, match="lack"):
        import_model(results, tmp_path / "model")
    save_with(results, network_weights=[1])
    with pytest.raises(InputError, match="no weights"):
        import_model(results, tmp_path / "model")
    torch.save([1], path)
    with pytest.raises(InputError, match="not the dictionary"):
        import_model(results, tmp_path / "model")


def test_an_unknown_trainer_is_warned_of(results: Path, tmp_path: Path) -> None:
    save_with(results, trainer_name="MyTrainer")
    assert any("MyTrainer" in sentence for sentence in import_model(results, tmp_path / "model").warnings)


def test_the_best_checkpoint_stands_in_for_the_final_one(results: Path, tmp_path: Path) -> None:
    (results / "fold_0" / "checkpoint_final.pth").rename(results / "fold_0" / "checkpoint_best.pth")
    assert "checkpoint_best.pth" in import_model(results, tmp_path / "model").warnings[0]


@pytest.mark.parametrize("name", ["plans.json", "dataset.json", "fold_0/checkpoint_final.pth"])
def test_missing_files_are_named(results: Path, tmp_path: Path, name: str) -> None:
    (results / name).unlink()
    with pytest.raises(InputError, match=Path(name).name.replace(".", r"\.")):
        import_model(results, tmp_path / "model")


@pytest.mark.parametrize("text", ["", "[]", "{"])
def test_plans_that_are_no_object_are_refused(results: Path, tmp_path: Path, text: str) -> None:
    (results / "plans.json").write_text(text)
    with pytest.raises(InputError, match=r"plans\.json"):
        import_model(results, tmp_path / "model")


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"preprocessor_name": "Other"}, "prepared by 'Other'"),
        ({"resampling_fn_data": "resample_torch_fornnunet"}, "resample_torch_fornnunet"),
        ({"resampling_fn_probabilities_kwargs": {"order": 3}}, "resampling_fn_probabilities"),
        ({"normalization_schemes": ["Mine"]}, "normalization 'Mine'"),
        ({"inherits_from": "3d_fullres"}, "circle"),
        ({"inherits_from": "gone"}, "no configuration 'gone'"),
        ({"patch_size": "x"}, "patch_size|sense|axes"),
        ({"architecture": {"network_class_name": "os.system", "arch_kwargs": {}}}, "network 'os.system'"),
    ],
)
def test_what_is_not_known_is_refused_by_name(results: Path, tmp_path: Path, entries: dict, message: str) -> None:
    change_configuration(results, **entries)
    with pytest.raises(InputError, match=message):
        import_model(results, tmp_path / "model")


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"squeeze_excitation": True}, "squeeze_excitation"),
        ({"conv_op": "torch.nn.Conv2d"}, "Conv2d"),
        ({"norm_op": "torch.nn.GroupNorm"}, "norm 'GroupNorm'"),
        ({"norm_op_kwargs": {"eps": 1e-3, "affine": True}}, "eps"),
        ({"nonlin": "torch.nn.Tanh"}, "activation 'Tanh'"),
        ({"nonlin_kwargs": {"negative_slope": 0.2}}, "negative_slope"),
        ({"features_per_stage": [4, 6]}, "stages"),
    ],
)
def test_options_of_the_network_that_are_not_known_are_refused(
    results: Path, tmp_path: Path, entries: dict, message: str
) -> None:
    plans = json.loads((results / "plans.json").read_text())
    plans["configurations"]["3d_fullres"]["architecture"]["arch_kwargs"].update(entries)
    (results / "plans.json").write_text(json.dumps(plans))
    with pytest.raises(InputError, match=message):
        import_model(results, tmp_path / "model")


def test_labels_and_readers_that_are_not_known_are_refused(results: Path, tmp_path: Path) -> None:
    change(results / "dataset.json", labels={"background": 0, "a": 1, "b": 3})
    with pytest.raises(InputError, match="without gaps"):
        import_model(results, tmp_path / "model")
    change(results / "dataset.json", labels={"background": 0, "a": [1, 2], "b": 2}, regions_class_order=[1, 1])
    with pytest.raises(InputError, match="regions_class_order"):
        import_model(results, tmp_path / "model")
    change(results / "dataset.json", labels={"background": 0, "a": 1, "b": 2})
    change(results / "plans.json", image_reader_writer="MyReader")
    with pytest.raises(InputError, match="reader of images 'MyReader'"):
        import_model(results, tmp_path / "model")


def test_a_fold_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="fold 3"):
        import_model(FIXTURES / "plain3d", tmp_path / "model", options=ImportOptions(folds=("3",)))


def test_a_model_is_not_written_over(tmp_path: Path) -> None:
    import_model(FIXTURES / "plain3d", tmp_path / "model")
    with pytest.raises(InputError, match="already contains a model"):
        import_model(FIXTURES / "plain3d", tmp_path / "model")


def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        import_model(tmp_path / "none", tmp_path / "model")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="nnU-Net v2 results"):
        import_model(tmp_path / "empty", tmp_path / "model")
    (tmp_path / "file").write_text("text")
    with pytest.raises(InputError, match="neither a folder nor a zip archive"):
        import_model(tmp_path / "file", tmp_path / "model")


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"model/plans.pkl": ""}, "nnU-Net v1"),
        ({"models/model.ts": ""}, "model.ts is TorchScript"),
    ],
)
def test_other_models_are_refused_for_what_they_are(tmp_path: Path, files: dict[str, str], message: str) -> None:
    for name, content in files.items():
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_text(content)
    with pytest.raises(InputError, match=message):
        import_model(tmp_path / "in", tmp_path / "model")


@pytest.mark.parametrize(
    "name", ["../plans.json", "/plans.json", "a/../../plans.json", "..\\plans.json", "C:/plans.json"]
)
def test_an_archive_that_leaves_its_folder_is_refused(tmp_path: Path, name: str) -> None:
    archive = tmp_path / "in" / "model.zip"
    archive.parent.mkdir()
    with zipfile.ZipFile(archive, "w") as opened:
        opened.writestr(zipfile.ZipInfo(name), "{}")
    with pytest.raises(InputError, match="leads out of its folder"):
        archives.extract_safely(archive, tmp_path / "in" / "out")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["in", "model.zip"]


def test_an_archive_that_would_fill_the_disk_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "model.zip", "w", zipfile.ZIP_DEFLATED) as opened:
        opened.writestr("plans.json", b"0" * (archives.MAX_RATIO * 2**20 + 1))
    with pytest.raises(InputError, match="unpack it yourself"):
        archives.extract_safely(tmp_path / "model.zip", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_only_what_belongs_to_a_model_is_unpacked(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "model.zip", "w") as opened:
        for name in ("a/plans.json", "a/run.py", "a/lib.so"):
            opened.writestr(name, "{}")
    archives.extract_safely(tmp_path / "model.zip", tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").rglob("*.*")] == ["plans.json"]


def test_a_damaged_archive_is_refused(tmp_path: Path) -> None:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as opened:
        opened.writestr("plans.json", "{}" * 100)
    damaged = bytearray(content.getvalue())
    damaged[60] ^= 255
    (tmp_path / "model.zip").write_bytes(damaged)
    with pytest.raises(InputError, match="cannot be unpacked"):
        archives.extract_safely(tmp_path / "model.zip", tmp_path / "out")


def test_every_importer_leaves_an_empty_folder_alone(tmp_path: Path) -> None:
    assert not any(IMPORTERS[name].recognises(tmp_path) for name in IMPORTERS)


@pytest.mark.parametrize("shape", [(7, 40, 21), (90, 13, 30), (24, 31, 30), (1, 2, 3)])
def test_splines_are_those_of_scipy(shape: tuple[int, int, int]) -> None:
    image = np.random.default_rng(0).normal(size=(24, 31, 30)).astype(np.float32)
    factors = [new / old for new, old in zip(shape, image.shape, strict=True)]
    points = ndimage.zoom(image.astype(np.float64), factors, order=3, mode="nearest", grid_mode=True)
    assert np.allclose(resample_spline(image, shape, across=None), points.clip(image.min(), image.max()), atol=2e-6)


def test_thick_slices_are_resampled_plane_by_plane() -> None:
    assert plane_axis((5.0, 1.0, 1.0), (1.0, 1.0, 1.0)) == 0
    assert plane_axis((1.0, 1.0, 1.0), (1.0, 4.0, 1.0)) == 1
    assert plane_axis((1.0, 3.0, 1.0), (1.0, 1.0, 1.0)) is None
    assert plane_axis((0.24, 1.25, 1.25 * (1 + 1e-12)), (1.0, 1.0, 9.0)) is None
    image = np.random.default_rng(0).normal(size=(3, 6, 5)).astype(np.float32)
    resampled = resample_spline(image, (9, 6, 5), across=0)
    np.testing.assert_array_equal(resampled, np.repeat(image, 3, axis=0))
    np.testing.assert_array_equal(nearest_planes(4, 2), [1, 3])


def test_splines_reproduce_a_parabola_and_stay_in_the_range() -> None:
    position = (np.arange(40) + 0.5) / 40
    image = np.broadcast_to(position**2, (2, 2, 40)).astype(np.float32)
    resampled = resample_spline(image, (2, 2, 60), across=None)
    expected = ((np.arange(60) + 0.5) / 60) ** 2
    np.testing.assert_allclose(resampled[0, 0, 6:-6], expected[6:-6], atol=1e-4)
    step = np.broadcast_to((position > 0.5).astype(np.float32), (2, 2, 40))
    assert resample_spline(step, (2, 2, 77), across=None).min() == 0
    assert resample_spline(step, (2, 2, 77), across=None).max() == 1


def test_the_content_is_what_is_not_zero_with_its_holes() -> None:
    image = np.zeros((2, 7, 8, 9))
    image[0, 1:6, 1:6, 1:6] = 1
    image[0, 3, 3, 3] = 0
    image[1, 2, 2, 7] = 5
    mask, box = content_mask(image)
    assert box == (slice(1, 6), slice(1, 6), slice(1, 8))
    assert mask.sum() == 5**3 + 1
    with pytest.raises(InputError, match="every voxel"):
        content_mask(np.zeros((1, 2, 2, 2)))


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"transpose": (0, 1, 1)}, "transpose is"),
        ({"conventions": "theirs"}, "conventions is 'theirs'"),
        ({"longest_side": 64}, "longest_side"),
    ],
)
def test_plans_that_contradict_themselves_are_refused(tmp_path: Path, entries: dict, message: str) -> None:
    plan = import_model(FIXTURES / "plain3d", tmp_path / "model").description.plan
    with pytest.raises(InputError, match=message):
        replace(plan, **entries)


def test_a_mask_is_for_zscore_alone() -> None:
    with pytest.raises(InputError, match="use_mask"):
        Normalization(scheme="none", use_mask=True)


@pytest.mark.parametrize("entries", [{"members": 0}, {"output": "both"}])
def test_descriptions_that_make_no_sense_are_refused(tmp_path: Path, entries: dict) -> None:
    description = import_model(FIXTURES / "plain3d", tmp_path / "model").description
    with pytest.raises(InputError, match="members and output"):
        replace(description, **entries)


def test_steps_on_probabilities_are_refused_for_regions_that_overlap(tmp_path: Path) -> None:
    import_model(FIXTURES / "regions", tmp_path / "model")
    predictor = Predictor(tmp_path / "model", device="cpu")
    predictor.engine.register_forward_pre_hook(lambda *_: pytest.fail("refused before a tile is computed"))
    with pytest.raises(InputError, match="overlap"):
        predictor.segment(volume_in(FIXTURES / "regions")[0], postprocess=("dense_crf",))


def test_a_model_of_before_has_one_member_that_gives_labels() -> None:
    description = read_description(bundled_models_folder() / "mri-hippocampus-unet")
    assert (description.members, description.output, description.plan.conventions) == (1, "labels", "own")
