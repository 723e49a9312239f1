"""Kernels are rounded so that what is lost in one weight is made up for in the next."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from UNetSegmentationLib.backends.parts.kernel_rounding import round_kernels, with_rounded_kernel


@pytest.mark.parametrize("kernel", [(3, 3), (3, 3, 3), (1, 3, 3), (5, 1, 2)])
def test_rounded_weights_are_those_of_bfloat16_and_keep_the_sum_of_each_kernel(kernel):
    weight = torch.randn(6, 5, *kernel, generator=torch.Generator().manual_seed(0))
    rounded = round_kernels(weight)
    assert torch.equal(rounded.bfloat16().float(), rounded)
    # Half a step of bfloat16 is 1/512 of a power of two; a weight takes over what its neighbour lost.
    step = weight.abs().max() / 256
    assert (rounded - weight).abs().max() <= step
    assert (rounded - weight).flatten(2).sum(-1).abs().max() <= step / 2
    assert (weight.bfloat16().float() - weight).flatten(2).sum(-1).abs().max() > step / 2


def test_features_that_vary_little_are_convolved_more_exactly():
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(8, 8, 3, 3, 3, generator=generator)
    coarse = torch.randn(1, 8, 6, 6, 6, generator=generator)
    smooth = F.interpolate(coarse, size=(24, 24, 24), mode="trilinear")

    def error(approximate):
        return float(F.conv3d(smooth, approximate - weight).square().mean())

    assert error(round_kernels(weight)) < 0.2 * error(weight.bfloat16().float())


def test_what_has_no_neighbour_in_its_kernel_stays():
    for layer in (nn.Conv3d(2, 3, 1), nn.ConvTranspose2d(2, 3, 1), nn.Linear(2, 3), nn.InstanceNorm3d(2)):
        assert with_rounded_kernel(layer) is None


@pytest.mark.parametrize("layer", [nn.Conv2d(2, 3, 3), nn.ConvTranspose3d(2, 3, 2, stride=2)])
def test_the_layer_itself_keeps_its_weights(layer):
    before = layer.weight.detach().clone()
    copy = with_rounded_kernel(layer)
    assert torch.equal(copy.weight, round_kernels(before))
    assert copy.bias is not None
    assert torch.equal(layer.weight, before)
