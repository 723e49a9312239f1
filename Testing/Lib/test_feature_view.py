"""Feature maps lie where the volume's features are."""

import numpy as np
import pytest
import torch

from UNetSegmentationLib.core.errors import InputError
from UNetSegmentationLib.image.geometry import Volume
from UNetSegmentationLib.inference.feature_maps import FeatureReader, list_feature_maps, view_features
from UNetSegmentationLib.inference.predictor import Predictor
from UNetSegmentationLib.networks import NETWORKS, build_network

TINY = {"num_classes": 4, "dimensions": 2, "features_per_stage": [4, 6, 8]}


def build(name, **options):
    torch.manual_seed(0)
    channels = 4 if name == "brain_tumour" else 1
    return build_network(name, {**TINY, "in_channels": channels, **options}).eval()


@pytest.mark.parametrize("name", NETWORKS)
def test_maps_of_every_network_can_be_read_on_the_image_s_grid(name):
    network = build(name)
    image = torch.randn(2, network.config.in_channels, 9, 7)
    maps = list_feature_maps(network)
    read = FeatureReader(network)(image)
    assert len(maps) >= 1
    assert len({entry.name for entry in maps}) == len(maps)
    assert read.shape == (2, len(maps), 9, 7)
    assert read.isfinite().all()
    assert read.flatten(2).std(dim=2).min() > 0


def test_reading_leaves_no_trace_in_the_network():
    network = build("attention_unet")
    image = torch.randn(1, 1, 8, 8)
    before = network(image)
    FeatureReader(network)(image)
    assert torch.equal(network(image), before)
    assert not any(module._forward_hooks for module in network.modules())


def test_a_skip_is_what_the_encoder_hands_over():
    network = build("unet")
    image = torch.randn(1, 1, 8, 8)
    first, second, _ = network.encoder(image)
    read = FeatureReader(network, names=["skip 0"])(image)
    torch.testing.assert_close(read[:, 0], first.square().mean(dim=1).sqrt())
    read = FeatureReader(network, names=["skip 1"], channel=2)(image)
    # Inside, linear enlargement by two keeps the mean of each block of a constant gradient.
    torch.testing.assert_close(read.mean(), second[:, 2].mean(), rtol=0.2, atol=0.1)
    assert read.max() <= second[:, 2].max()


def test_gates_are_weights():
    maps = [entry for entry in list_feature_maps(build("attention_unet")) if entry.kind == "gate"]
    assert [(entry.name, entry.stride) for entry in maps] == [("gate 0", (1, 1)), ("gate 1", (2, 2))]
    read = FeatureReader(build("attention_unet"), names=["gate 0", "gate 1"])(torch.randn(1, 1, 16, 16))
    assert 0 < read.min() < read.max() < 1


def test_what_is_not_there_cannot_be_read():
    with pytest.raises(InputError, match="no feature map gate 0: it has skip 0, skip 1"):
        FeatureReader(build("unet"), names=["gate 0"])
    with pytest.raises(InputError, match="channels 0 to 3, not 7"):
        FeatureReader(build("unet"), names=["skip 0"], channel=7)(torch.randn(1, 1, 8, 8))
    with pytest.raises(InputError, match="no feature map at all"):
        FeatureReader(build("unet", features_per_stage=[4]))


@pytest.mark.parametrize("flips", [(1, 1, 1), (-1, 1, -1)])
def test_features_of_a_volume_lie_on_its_own_grid(tiny_model, flips):
    predictor = Predictor(tiny_model(patch_size=(16, 16, 16)), device="cpu")
    array = np.random.default_rng(0).normal(size=(1, 12, 14, 20)).astype(np.float32) * 0.01
    array[0, 2:6, 8:12, 13:18] = 5.0
    # Stored as (A, S, R), in half as fine steps as the network wants.
    affine = np.zeros((4, 4))
    affine[1, 0], affine[2, 1], affine[0, 2], affine[3, 3] = *np.multiply(flips, 0.5), 1.0
    volume = Volume(array, affine)
    views = view_features(predictor, volume, names=["skip 0"])
    assert list(views) == ["skip 0"]
    view = views["skip 0"]
    assert view.array.shape == array.shape
    assert np.array_equal(view.affine_ras, volume.affine_ras)
    strength = np.abs(view.array[0] - np.median(view.array))
    centre = np.argwhere(strength > 0.3 * strength.max()).mean(axis=0)
    assert np.abs(centre - (3.5, 9.5, 15.0)).max() < 1.5
