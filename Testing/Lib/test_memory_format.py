"""Channels-last features give the same numbers as channels-first ones, and stay channels-last."""

import pytest
import torch
from torch.nn import functional as F

from UNetSegmentationLib.networks import NETWORKS, build_network
from UNetSegmentationLib.networks.parts.blocks import InstanceNorm
from UNetSegmentationLib.networks.parts.memory_format import (
    FORMATS,
    is_channels_last,
    to_channels_first,
    to_channels_last,
)


def draw(*shape, dtype=torch.float32):
    features = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=dtype) * 3 + 5
    return features.contiguous(memory_format=FORMATS[len(shape)])


@pytest.mark.parametrize("shape", [(2, 3, 4, 5, 6), (3, 5, 7, 6)])
def test_the_norm_equals_torchs_in_value_and_gradient(shape):
    features = draw(*shape, dtype=torch.float64).requires_grad_()
    weight = torch.rand(shape[1], dtype=torch.float64, requires_grad=True)
    bias = torch.rand(shape[1], dtype=torch.float64, requires_grad=True)
    norm = InstanceNorm(shape[1]).double()
    norm.weight, norm.bias = torch.nn.Parameter(weight), torch.nn.Parameter(bias)
    inputs = (features, norm.weight, norm.bias)
    gradient = torch.randn_like(features)
    expected = F.instance_norm(features, weight=norm.weight, bias=norm.bias)
    normed = norm(features)
    torch.testing.assert_close(normed, expected)
    assert is_channels_last(normed)
    for ours, theirs in zip(
        torch.autograd.grad(normed, inputs, gradient), torch.autograd.grad(expected, inputs, gradient), strict=True
    ):
        torch.testing.assert_close(ours, theirs)


def test_the_norm_keeps_half_precision_and_format():
    features = draw(2, 4, 6, 6, 6).bfloat16()
    norm = InstanceNorm(4)
    normed = norm(features)
    assert normed.dtype == torch.bfloat16
    assert is_channels_last(normed)
    torch.testing.assert_close(normed.float(), norm(features.float()), rtol=0.02, atol=0.02)


def test_a_far_mean_does_not_spoil_the_variance():
    features = draw(1, 2, 8, 8, 8) + 1e4
    expected = F.instance_norm(features.double()).float()
    torch.testing.assert_close(InstanceNorm(2)(features), expected, rtol=1e-3, atol=2e-3)


@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_gives_the_same_logits_and_gradients_in_both_formats(name):
    torch.manual_seed(0)
    channels = 4 if name == "brain_tumour" else 1
    options = {} if name == "brain_tumour" else {"in_channels": channels, "num_classes": 3}
    network = build_network(name, {**options, "dimensions": 2, "dropout": 0.0} if name != "primus_unet" else options)
    network.eval().double()
    dimensions = network.config.dimensions
    image = torch.randn(2, channels, *(32,) * dimensions, dtype=torch.float64)

    def answer(image):
        network.zero_grad()
        logits = network(image)
        logits.square().mean().backward()
        gradients = [None if p.grad is None else p.grad.clone() for p in network.parameters()]
        return logits.detach(), gradients

    first, gradients = answer(image)
    to_channels_last(network)
    assert any(is_channels_last(value) for value in network.parameters())
    last, gradients_last = answer(image.contiguous(memory_format=FORMATS[image.ndim]))
    torch.testing.assert_close(last, first)
    for ours, theirs in zip(gradients_last, gradients, strict=True):
        assert (ours is None) == (theirs is None)
        if ours is not None:
            torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-9)
    to_channels_first(network)
    assert all(value.is_contiguous() for value in network.state_dict().values())
