"""MONAI bundles come in and give what MONAI itself gives."""

from pathlib import Path

import numpy as np
import pytest
import torch
from monai.networks import nets

from UNetSegmentationLib.conventions import prepare
from UNetSegmentationLib.conventions.parts.monai_math import nearest_at
from UNetSegmentationLib.image.geometry import Volume
from UNetSegmentationLib.importers import import_model
from UNetSegmentationLib.importers.monai.networks import network_of
from UNetSegmentationLib.importers.monai.weights import select_outputs
from UNetSegmentationLib.inference.feature_maps import view_features
from UNetSegmentationLib.inference.predictor import Predictor
from UNetSegmentationLib.networks import build_network

FIXTURES = Path(__file__).parents[1] / "Fixtures" / "monai"
NAMES = sorted(path.name for path in FIXTURES.iterdir())
AGREEMENT = 0.9999


def case_in(name: str) -> tuple[Volume, np.ndarray]:
    with np.load(FIXTURES / name / "images.npz") as arrays:
        return Volume(arrays["image"], arrays["affine_ras"]), arrays["labels"]


@pytest.mark.parametrize("name", NAMES)
def test_labels_equal_those_of_monai(name: str, tmp_path: Path) -> None:
    import_model(FIXTURES / name, tmp_path / "model")
    volume, expected = case_in(name)
    labelmap = Predictor(tmp_path / "model", device="cpu").segment(volume).labelmap
    assert labelmap.shape == expected.shape
    assert np.mean(labelmap == expected) >= AGREEMENT
    assert len(np.unique(expected)) > 1


# Networks: theirs, ours and the same weights give the same logits.
GROUPS = ["group", {"num_groups": 8}]
SLOPE = ["leakyrelu", {"negative_slope": 0.2}]
SMALL = {"spatial_dims": 3, "in_channels": 2, "out_channels": 3}
FLAT = {**SMALL, "spatial_dims": 2}
NARROW = {"channels": [4, 6, 8], "strides": [2, 2]}
EIGHTS = {"channels": [8, 16, 24], "strides": [2, [1, 2, 2]]}
DYNAMIC = {
    "kernel_size": [[1, 3, 3], [1, 3, 3], 3],
    "strides": [1, [1, 2, 2], 2],
    "upsample_kernel_size": [[1, 2, 2], 2],
    "filters": [4, 8, 16],
}
NETWORK_CASES = [
    ("UNet", {**SMALL, **NARROW}),
    ("UNet", {**SMALL, **NARROW, "num_res_units": 1, "norm": "batch", "dropout": 0.2}),
    ("UNet", {**SMALL, **NARROW, "num_res_units": 3, "norm": ["instance", {"affine": True}], "act": SLOPE}),
    ("UNet", {**SMALL, **EIGHTS, "out_channels": 8, "num_res_units": 2, "norm": GROUPS}),
    ("UNet", {**SMALL, **EIGHTS, "norm": GROUPS, "bias": False, "act": "relu"}),
    ("UNet", {**FLAT, **NARROW, "num_res_units": 2, "kernel_size": 5, "up_kernel_size": 5, "adn_ordering": "NA"}),
    ("UNet", {**SMALL, **NARROW, "num_res_units": 2, "norm": None, "act": ["elu", {"alpha": 1.0}]}),
    ("SegResNet", {**SMALL, "init_filters": 8, "blocks_down": [1, 2], "blocks_up": [2], "dropout_prob": 0.2}),
    ("SegResNet", {**SMALL, "init_filters": 8, "blocks_down": [1, 1], "blocks_up": [1], "upsample_mode": "deconv"}),
    ("SegResNet", {**FLAT, "norm": "batch", "act": "PRELU"}),
    ("BasicUNet", {**SMALL, "features": [4, 4, 8, 16, 32, 4], "bias": False}),
    ("BasicUNet", {**FLAT, "features": [8, 8, 16, 32, 64, 8], "norm": GROUPS, "act": "relu"}),
    ("BasicUNetPlusPlus", {**SMALL, "features": [2, 2, 4, 8, 16, 2], "norm": "batch"}),
    ("DynUNet", {**SMALL, **DYNAMIC, "deep_supervision": True}),
    ("DynUNet", {**SMALL, **DYNAMIC, "norm_name": "batch", "trans_bias": True, "act_name": "relu"}),
    ("AttentionUnet", {**SMALL, **NARROW}),
    ("AttentionUnet", {**FLAT, "channels": [4, 8], "strides": [2], "up_kernel_size": 5}),
    ("VNet", {**FLAT, "act": "prelu", "bias": True}),
]


def shaken(network: torch.nn.Module) -> torch.nn.Module:
    """Move weights and running statistics off the values that they start with."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, value in network.state_dict().items():
            if value.is_floating_point():
                drawn = torch.rand(value.shape, generator=generator) * value.abs().mean().clamp(min=0.02)
                value.add_(drawn if name.endswith("running_var") else 0.5 * drawn)
    return network.eval()


@pytest.mark.parametrize(("name", "options"), NETWORK_CASES, ids=[name for name, _ in NETWORK_CASES])
def test_logits_equal_those_of_the_network_of_monai(name: str, options: dict) -> None:
    torch.manual_seed(0)
    # Double: shaken norms make some logits huge, in which float32 leaves the last digits to the order of sums.
    theirs = shaken(getattr(nets, name)(**options)).double()
    plan = network_of({"_target_": f"monai.networks.nets.{name}", **options})
    ours = build_network(plan.network, plan.config).eval().double()
    ours.load_state_dict(plan.translate(theirs.state_dict()))
    image = torch.randn(
        1, 2, *(32, 32, 16)[: options["spatial_dims"]], generator=torch.Generator().manual_seed(2)
    ).double()
    with torch.no_grad():
        expected = theirs(image)
        expected = expected[0] if isinstance(expected, list) else expected
        torch.testing.assert_close(ours(image), expected, atol=1e-4, rtol=1e-4)
        assert expected.std() > 1e-3


ORDER_CASES = [NETWORK_CASES[index] for index in (0, 1, 2, 6, 7, 10, 12, 13, 15, 17)]


@pytest.mark.parametrize(("name", "options"), ORDER_CASES, ids=[name for name, _ in ORDER_CASES])
def test_logits_can_be_put_in_another_order_beside_one_that_is_zero(name: str, options: dict) -> None:
    theirs = shaken(getattr(nets, name)(**options))
    plan = network_of({"_target_": name, **options})
    state = plan.translate(theirs.state_dict())
    image = torch.randn(1, 2, *(16, 16, 16)[: options["spatial_dims"]], generator=torch.Generator().manual_seed(2))
    ours, turned = (build_network(plan.network, {**plan.config, "num_classes": k}).eval() for k in (3, 4))
    ours.load_state_dict(state)
    turned.load_state_dict(select_outputs(state, plan.class_axes, (None, 2, 0, 1)))
    with torch.no_grad():
        logits = ours(image)
        expected = torch.cat([torch.zeros_like(logits[:, :1]), logits[:, [2, 0, 1]]], dim=1)
        torch.testing.assert_close(turned(image), expected, atol=1e-4, rtol=1e-4)


# What the parity of labels leaves out.
def test_references_of_the_training_images_are_brought_to_the_grid_of_the_network(tmp_path: Path) -> None:
    description = import_model(FIXTURES / "cropped", tmp_path / "model").description
    volume, _ = case_in("cropped")
    prepared = prepare(volume, description.plan)
    turned = prepared.order.apply(volume.array[0].astype(np.int32))
    labels = prepared.labels_on_grid(torch.from_numpy(np.ascontiguousarray(turned)))
    assert labels.shape == prepared.image.shape[1:]
    nearest = nearest_at(torch.from_numpy(np.ascontiguousarray(turned)), prepared.grid.positions)
    torch.testing.assert_close(labels, prepared.grid.cut(nearest[None])[0])
    # The image itself, interpolated and scaled from 0..300 to 0..1, is near to what lies nearest.
    assert np.corrcoef(labels.flatten(), prepared.image[0].flatten())[0, 1] > 0.95


def test_probabilities_add_up_to_one_and_agree_with_the_labels(tmp_path: Path) -> None:
    for name in ("residual_oblique", "cropped", "nearest_back", "nested_regions"):
        import_model(FIXTURES / name, tmp_path / name)
        volume, _ = case_in(name)
        result = Predictor(tmp_path / name, device="cpu").segment(volume, with_probabilities=True)
        assert result.probabilities is not None
        values = [0, *(label.value for label in result.labels)]
        if name != "nested_regions":
            np.testing.assert_allclose(result.probabilities.astype(np.float32).sum(axis=0), 1, atol=4e-3)
            likeliest = np.array(values)[result.probabilities.argmax(axis=0)]
            assert np.mean(likeliest == result.labelmap) > (0.9 if name == "nearest_back" else 0.998)
        else:
            active = result.probabilities[1:].astype(np.float32) > 0.5
            assert np.mean(active.any(axis=0) == (result.labelmap > 0)) > 0.998


def test_feature_maps_lie_on_the_grid_of_the_image(tmp_path: Path) -> None:
    import_model(FIXTURES / "residual_oblique", tmp_path / "model")
    volume, _ = case_in("residual_oblique")
    maps = view_features(Predictor(tmp_path / "model", device="cpu"), volume)
    assert maps
    assert all(view.shape == volume.shape for view in maps.values())
