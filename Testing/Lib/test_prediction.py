"""A result lies where its volume lies, whatever the geometry, and bad volumes are refused in words."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from UNetSegmentationLib.backends.parts import devices
from UNetSegmentationLib.conventions import contract
from UNetSegmentationLib.core.errors import CancelledError, InputError
from UNetSegmentationLib.core.files import sha256_of
from UNetSegmentationLib.core.task import Task
from UNetSegmentationLib.image.geometry import AxisOrder, Volume
from UNetSegmentationLib.image.labels import Label
from UNetSegmentationLib.inference.predictor import Predictor
from UNetSegmentationLib.models.description import Channel, ModelDescription, read_description, write_description
from UNetSegmentationLib.networks import build_network
from UNetSegmentationLib.networks.parts.weights import load_network, save_weights
from UNetSegmentationLib.planning.plan import Normalization, Plan

LABELS = (Label(value=1, name="A", color=(255, 0, 0)), Label(value=4, name="B", color=(0, 255, 0)))


def model_folder(
    folder,
    *,
    dimensions=3,
    channels=1,
    preset="mri",
    spacing_mm=(1.0, 1.0, 1.0),
    orientation="RAS",
    name="unet",
    scheme="zscore",
):
    config = {"in_channels": channels, "num_classes": 3, "dimensions": dimensions, "features_per_stage": [4, 8]}
    torch.manual_seed(0)
    network = build_network(name, config)
    folder.mkdir()
    save_weights(folder / "weights.safetensors", network)
    plan = Plan(
        dimensions=dimensions,
        spacing_mm=spacing_mm,
        patch_size=(8, 8, 8) if dimensions == 3 else (1, 16, 16),
        batch_size=1,
        orientation=orientation,
        normalization=(Normalization(scheme=scheme),) * channels,
        mirror_axes=(0, 1, 2),
    )
    description = ModelDescription(
        id="tiny",
        title="Tiny",
        network=name,
        network_config=config,
        plan=plan,
        preset=preset,
        channels=tuple(Channel(name=f"c{index}") for index in range(channels)),
        labels=LABELS,
        weights_sha256=sha256_of(folder / "weights.safetensors"),
    )
    write_description(folder, description)
    return folder


@pytest.fixture
def model(tmp_path):
    return model_folder(tmp_path / "model")


def volume_of(shape=(9, 10, 11), affine=None, channels=1, seed=0):
    smooth = torch.randn(channels, 1, 4, 4, 4, generator=torch.Generator().manual_seed(seed))
    array = torch.nn.functional.interpolate(smooth, size=shape, mode="trilinear")[:, 0].numpy()
    return Volume(array, np.eye(4) if affine is None else affine)


def test_the_result_lies_on_the_volumes_grid_with_the_models_values(model):
    result = Predictor(model, device="cpu").segment(volume_of())
    assert result.labelmap.shape == (9, 10, 11)
    assert set(np.unique(result.labelmap)) <= {0, 1, 4}
    assert len(np.unique(result.labelmap)) > 1
    assert result.duration_s["total"] > 0
    assert result.provenance["model_id"] == "tiny"


@pytest.mark.parametrize("axes", [(0, 1, 2), (2, 0, 1), (1, 2, 0), (2, 1, 0)])
@pytest.mark.parametrize("flips", [(False, False, False), (True, False, True)])
def test_the_order_of_stored_axes_does_not_change_the_result_in_space(model, axes, flips):
    predictor = Predictor(model, device="cpu")
    canonical = volume_of()
    order = AxisOrder(axes, flips)
    affine = canonical.affine_ras.copy()
    for axis in range(3):
        step = canonical.affine_ras[:3, 2 - axis]
        affine[:3, 2 - axes[axis]] = -step if flips[axis] else step
        if flips[axis]:
            affine[:3, 3] += step * (canonical.shape[axis] - 1)
    stored = Volume(np.ascontiguousarray(order.undo(canonical.array)), affine)
    expected = predictor.segment(canonical).labelmap
    np.testing.assert_array_equal(order.apply(predictor.segment(stored).labelmap), expected)


def test_a_rotation_of_the_patient_changes_nothing_but_the_affine(model):
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xyz", (10, -15, 20), degrees=True).as_matrix()
    affine[:3, 3] = (100, -50, 7)
    predictor = Predictor(model, device="cpu")
    expected = predictor.segment(volume_of()).labelmap
    np.testing.assert_array_equal(predictor.segment(volume_of(affine=affine)).labelmap, expected)


def test_an_anisotropic_volume_comes_back_on_its_own_grid(model):
    result = Predictor(model, device="cpu").segment(volume_of((3, 10, 30), np.diag((0.4, 1.5, 4.0, 1.0))))
    assert result.labelmap.shape == (3, 10, 30)


def test_probabilities_agree_with_the_labelmap(model):
    result = Predictor(model, device="cpu").segment(volume_of(), with_probabilities=True)
    classes = np.array([0, 1, 4])[result.probabilities.argmax(axis=0)]
    top = np.sort(result.probabilities.astype(np.float32), axis=0)
    is_clear = top[-1] - top[-2] > 0.01
    np.testing.assert_array_equal(classes[is_clear], result.labelmap[is_clear])


def test_averaging_over_mirrored_copies_changes_the_scores_not_the_grid(model):
    predictor = Predictor(model, device="cpu")
    plain, averaged = (predictor.segment(volume_of(), tta=tta, with_probabilities=True) for tta in (False, True))
    assert averaged.labelmap.shape == plain.labelmap.shape
    assert not np.array_equal(averaged.probabilities, plain.probabilities)


def test_nan_is_taken_as_background_with_a_warning(model):
    volume = volume_of()
    gaps = volume.array.copy()
    gaps[0, :2] = np.nan
    gaps[0, 5, 5, 5] = np.inf
    filled = np.where(np.isfinite(gaps), gaps, gaps[np.isfinite(gaps)].min())
    predictor = Predictor(model, device="cpu")
    result = predictor.segment(Volume(gaps, volume.affine_ras))
    assert any("221 voxels of c0 were NaN" in warning for warning in result.warnings)
    expected = predictor.segment(Volume(filled, volume.affine_ras)).labelmap
    np.testing.assert_array_equal(result.labelmap, expected)


def test_spacing_far_from_the_training_is_warned_about(model):
    result = Predictor(model, device="cpu").segment(volume_of((4, 5, 6), np.diag((5.0, 5.0, 5.0, 1.0))))
    assert any("5 x 5 x 5 mm" in warning for warning in result.warnings)


@pytest.mark.parametrize(
    ("volume", "words"),
    [
        (volume_of(channels=2), "has 2 channels or time points, but model 'tiny' needs 1"),
        (volume_of((1, 20, 20)), "is 2D, but model 'tiny' needs a 3D volume"),
        (Volume(np.full((1, 4, 4, 4), np.nan), np.eye(4)), "no finite value"),
        (Volume(np.full((1, 4, 4, 4), 7.0), np.eye(4)), "every voxel is 7"),
    ],
)
def test_volumes_that_do_not_fit_are_refused(model, volume, words):
    with pytest.raises(InputError, match=words):
        Predictor(model, device="cpu").segment(volume)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int32, np.float32, np.float64, ">i2", ">f4"])
def test_every_voxel_type_is_taken(model, dtype):
    volume = volume_of()
    array = ((volume.array - volume.array.min()) * 50).astype(dtype)
    assert Predictor(model, device="cpu").segment(Volume(array, volume.affine_ras)).labelmap.any()


def test_a_volume_of_few_voxels_is_segmented(model):
    assert Predictor(model, device="cpu").segment(volume_of((2, 3, 2))).labelmap.shape == (2, 3, 2)


def test_a_2d_model_takes_a_picture_and_refuses_a_stack_for_radiographs(tmp_path):
    folder = model_folder(tmp_path / "flat", dimensions=2, preset="xray", orientation="stored")
    predictor = Predictor(folder, device="cpu")
    assert predictor.segment(volume_of((1, 30, 41))).labelmap.shape == (1, 30, 41)
    with pytest.raises(InputError, match="has 5 slices"):
        predictor.segment(volume_of((5, 20, 20)))


def test_progress_rises_through_named_stages_to_one(model):
    seen = []
    Predictor(model, device="cpu").segment(
        volume_of(), task=Task(lambda now: seen.append((now["fraction"], now["stage"])))
    )
    shares = [share for share, _ in seen]
    assert shares == sorted(shares)
    assert shares[-1] == 1
    assert list(dict.fromkeys(stage for _, stage in seen)) == ["Preparing the image", "Segmenting", "Finishing"]


def test_a_cancelled_job_raises_and_the_predictor_goes_on(model):
    predictor = Predictor(model, device="cpu")
    with pytest.raises(CancelledError):
        predictor.segment(volume_of(), task=Task(is_cancelled=lambda: True))
    assert predictor.segment(volume_of()).labelmap.shape == (9, 10, 11)


def test_half_precision_weights_give_nearly_the_same_scores(tmp_path, model):
    network, description = load_network(model)
    half = tmp_path / "half"
    half.mkdir()
    save_weights(half / "weights.safetensors", network, is_half=True)
    write_description(half, replace(description, weights_sha256=sha256_of(half / "weights.safetensors")))
    sizes = [(folder / "weights.safetensors").stat().st_size for folder in (model, half)]
    assert sizes[1] < 0.7 * sizes[0]
    full, halved = (Predictor(f, device="cpu").segment(volume_of(), with_probabilities=True) for f in (model, half))
    assert not np.array_equal(full.probabilities, halved.probabilities)
    np.testing.assert_allclose(full.probabilities, halved.probabilities, atol=0.01)


def test_damaged_or_foreign_weights_are_refused(model):
    weights = model / "weights.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="are damaged"):
        Predictor(model)
    weights.write_bytes(whole[:-4] + b"\x00\x00\x40\x40")
    with pytest.raises(InputError, match=r"do not match its model\.json"):
        Predictor(model)
    weights.unlink()
    with pytest.raises(InputError, match="has no weights"):
        Predictor(model)


def test_an_unknown_device_is_refused(model):
    with pytest.raises(InputError, match="machine has no device 'abacus'"):
        Predictor(model, device="abacus")


def test_the_first_of_several_gpus_has_two_names(monkeypatch):
    names = ("cuda", "cuda:1", "cpu")
    monkeypatch.setattr(devices, "list_devices", lambda: [devices.Device(id=name, title=name) for name in names])
    assert [str(devices.choose_device(name)) for name in ("auto", "cuda:0", "cuda:1", "cpu")] == [
        "cuda",
        "cuda",
        "cuda:1",
        "cpu",
    ]
    with pytest.raises(InputError, match="machine has no device 'cuda:2': choose auto or one of cuda, cuda:1, cpu"):
        devices.choose_device("cuda:2")


def test_mirrored_copies_of_a_model_that_never_saw_any_are_left_out_and_it_is_said(model):
    description = read_description(model)
    write_description(model, replace(description, plan=replace(description.plan, mirror_axes=())))
    plain, mirrored = (Predictor(model, device="cpu").segment(volume_of(), tta=tta) for tta in (False, True))
    assert np.array_equal(plain.labelmap, mirrored.labelmap)
    assert [text for text in mirrored.warnings if text not in plain.warnings] == [
        "the model was not trained with mirroring: test-time averaging over mirrored copies was skipped"
    ]


def test_nothing_found_is_said(model, monkeypatch):
    monkeypatch.setattr(contract, "labelmap_of_slabs", lambda _, __, shape, **___: np.zeros(shape, np.uint8))
    result = Predictor(model, device="cpu").segment(volume_of())
    assert any("nothing was found: the model segments A, B" in warning for warning in result.warnings)


def test_steps_of_both_kinds_are_taken_and_a_misspelt_one_is_noticed_first(model):
    predictor = Predictor(model, device="cpu")
    plain = predictor.segment(volume_of())
    refined = predictor.segment(volume_of(), postprocess=("dense_crf:iterations=2", "keep_largest_component"))
    assert not np.array_equal(plain.labelmap, refined.labelmap)
    seen = []
    with pytest.raises(InputError, match="unknown post-processing step 'smoth': choose one of dense_crf, "):
        predictor.segment(volume_of(), postprocess=("smoth",), task=Task(seen.append))
    assert not seen


def test_a_missing_channel_is_refused_or_told_of(tmp_path):
    volume = volume_of(channels=2)
    volume.array[1] = np.nan
    strict = Predictor(model_folder(tmp_path / "unet", channels=2), device="cpu")
    with pytest.raises(InputError, match="channel c1 contains no finite value"):
        strict.segment(volume)
    lenient = Predictor(model_folder(tmp_path / "fusion", channels=2, name="sequence_fusion"), device="cpu")
    result = lenient.segment(volume)
    assert result.warnings[0].startswith("c1 is missing")
    assert len(np.unique(result.labelmap)) > 1
    refined = lenient.segment(volume, postprocess=("dense_crf:iterations=2",), with_probabilities=True)
    assert np.isfinite(refined.probabilities).all()
    with pytest.raises(InputError, match="the image contains no finite value"):
        lenient.segment(Volume(np.full_like(volume.array, np.nan), volume.affine_ras))


def test_networks_that_want_hounsfield_units_get_them(tmp_path):
    folder = model_folder(tmp_path / "hu", name="hu_prior", scheme="none")
    predictor = Predictor(folder, device="cpu")
    seen = []
    predictor.engine.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    predictor.segment(Volume(np.linspace(-1000, 500, 5 * 6 * 7).reshape(1, 5, 6, 7), np.eye(4)))
    # The volume is smaller than the patch: what is added is air, not water.
    assert float(seen[0].min()) == -1000
    assert float(seen[0][0, 0, 0, 0, 0]) == -1000
    assert float(seen[0].max()) == 500
