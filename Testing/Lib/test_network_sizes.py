"""Published sizes, counted operations and the planner's stages."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from Testing.Docs.paper_configurations import PAPER_CONFIGURATIONS
from UNetSegmentationLib.core.errors import InputError
from UNetSegmentationLib.importers.nnunet.weights import convert_weights
from UNetSegmentationLib.networks import NETWORKS, build_network
from UNetSegmentationLib.networks.parts.cost import format_summaries, summarise_network
from UNetSegmentationLib.planning.encoder_stages import plan_stages

TINY = {"in_channels": 1, "num_classes": 2, "dimensions": 3, "features_per_stage": [4, 8]}


@pytest.mark.parametrize("name", PAPER_CONFIGURATIONS)
def test_a_paper_configuration_has_its_published_size_or_says_why_not(name):
    paper = PAPER_CONFIGURATIONS[name]
    with torch.device("meta"):
        network = build_network(paper.network, dict(paper.config))
    assert sum(parameter.numel() for parameter in network.parameters()) == paper.weights
    assert bool(paper.difference) == (paper.weights != paper.published)
    assert abs(paper.weights - paper.published) < 2e-4 * paper.published


def test_operations_are_those_of_the_layers():
    single = {"in_channels": 1, "num_classes": 2, "dimensions": 3, "features_per_stage": [4], "convs_per_stage": 1}
    summary = summarise_network("unet", single, (5, 6, 7))
    assert summary.weights == 27 * 4 + 4 + 4 + 4 * 2 + 2
    assert summary.flops == 2 * 5 * 6 * 7 * (27 * 4 + 4 * 2)


def test_counting_without_values_agrees_with_a_real_run():
    network = build_network("unet", TINY).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(torch.zeros(1, 1, 16, 16, 16))
    summary = summarise_network("unet", TINY, (16, 16, 16))
    assert summary.flops == counter.get_total_flops()
    assert summary.weights == sum(parameter.numel() for parameter in network.parameters())


def test_peak_memory_lies_between_the_largest_layer_and_all_layers():
    size = (32, 32, 32)
    summary = summarise_network("unet", TINY, size)
    voxels = 4 * 32**3
    # The first decoder stage reads 8 maps of full size and writes 4 while the input is alive.
    assert (8 + 4) * voxels < summary.memory_bytes < 80 * voxels
    twice = summarise_network("unet", TINY, (64, 32, 32))
    assert twice.memory_bytes == pytest.approx(2 * summary.memory_bytes, rel=0.02)


@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_can_be_summarised(name):
    channels = 4 if name == "brain_tumour" else 1
    summary = summarise_network(name, {**TINY, "in_channels": channels, "num_classes": 4}, (16, 16, 16))
    assert min(summary.weights, summary.flops, summary.memory_bytes) > 0
    assert f"`{name}` | 16 x 16 x 16" in format_summaries([summary])


def test_a_size_of_other_dimensions_is_refused():
    with pytest.raises(InputError, match="must be 3 sizes"):
        summarise_network("unet", TINY, (16, 16))


def test_the_planner_halves_isotropic_patches_along_all_axes():
    plan = plan_stages((128, 128, 128), (1.0, 1.0, 1.0))
    assert plan.features_per_stage == (32, 64, 128, 256, 320, 320)
    assert plan.strides == ((1, 1, 1), *((2, 2, 2),) * 5)
    assert set(plan.kernel_sizes) == {(3, 3, 3)}


def test_the_planner_leaves_thick_slices_whole_until_the_plane_is_as_coarse():
    # nnU-Net's own plan for 16 x 320 x 256 at 5 x 0.6 x 0.6 mm.
    plan = plan_stages((16, 320, 256), (5.0, 0.6, 0.6))
    assert plan.strides == ((1, 1, 1), (1, 2, 2), (1, 2, 2), (1, 2, 2), (2, 2, 2), (2, 2, 2), (1, 2, 2))
    assert plan.kernel_sizes == (*((1, 3, 3),) * 3, *((3, 3, 3),) * 4)


@settings(max_examples=60)
@given(st.lists(st.tuples(st.integers(1, 300), st.floats(0.2, 8)), min_size=2, max_size=3))
def test_planned_stages_make_a_network_for_their_patch(axes):
    size, spacing = zip(*axes, strict=True)
    plan = plan_stages(size, spacing)
    config = NETWORKS["nnunet_plain"].Config(
        in_channels=1,
        num_classes=2,
        dimensions=len(axes),
        features_per_stage=plan.features_per_stage,
        strides=plan.strides,
        kernel_sizes=plan.kernel_sizes,
    )
    for patch, wanted, step in zip(plan.patch_size, size, config.total_stride, strict=True):
        assert patch % step == 0
        assert wanted <= patch < wanted + step
        assert step == 1 or patch // step >= 4


def test_a_patch_without_axes_is_refused():
    for size, spacing in (((8,), (1.0,)), ((8, 8), (1.0, 1.0, 1.0)), ((8, 8), (0.0, 1.0)), ((0, 8), (1.0, 1.0))):
        with pytest.raises(InputError, match="give 2 or 3 positive numbers"):
            plan_stages(size, spacing)


def _peer(name, dimensions, *, supervised):
    """Return dynamic-network-architectures' network with random weights, and the configuration of ours."""
    unets = pytest.importorskip("dynamic_network_architectures.architectures.unet")
    peer, blocks = {
        "nnunet_plain": (unets.PlainConvUNet, "n_conv_per_stage"),
        "nnunet_residual": (unets.ResidualEncoderUNet, "n_blocks_per_stage"),
    }[name]
    strides = [[1] * dimensions, [1, 2, 2][-dimensions:], [2] * dimensions]
    convolution, norm = getattr(torch.nn, f"Conv{dimensions}d"), getattr(torch.nn, f"InstanceNorm{dimensions}d")
    network = peer(
        input_channels=2,
        n_stages=3,
        features_per_stage=[4, 6, 8],
        conv_op=convolution,
        kernel_sizes=3,
        strides=strides,
        **{blocks: [2, 1, 2]},
        num_classes=3,
        n_conv_per_stage_decoder=[1, 2],
        conv_bias=True,
        norm_op=norm,
        norm_op_kwargs={"eps": 1e-5, "affine": True},
        nonlin=torch.nn.LeakyReLU,
        deep_supervision=supervised,
    )
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    config = {"in_channels": 2, "num_classes": 3, "dimensions": dimensions, "features_per_stage": [4, 6, 8]}
    return network, {**config, "strides": strides, "encoder_convs": [2, 1, 2], "decoder_convs": [2, 1]}


@pytest.mark.parametrize("name", ["nnunet_plain", "nnunet_residual"])
@pytest.mark.parametrize("dimensions", [2, 3])
def test_nnunets_weights_give_nnunets_logits(name, dimensions):
    torch.manual_seed(0)
    for supervised in (True, False):
        peer, config = _peer(name, dimensions, supervised=supervised)
        network = build_network(name, {**config, "deep_supervision": supervised})
        network.load_state_dict(convert_weights(peer.state_dict(), network))
        image = torch.randn(1, 2, *(8,) * dimensions)
        torch.testing.assert_close(network(image), peer(image), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "others"),
    [
        (
            "nnunet_plain",
            {
                "encoder.stages.1.0.convs.0.conv.weight",
                "decoder.stages.0.convs.1.norm.bias",
                "decoder.transpconvs.0.bias",
                "decoder.seg_layers.0.weight",
            },
        ),
        (
            "nnunet_residual",
            {
                "encoder.stem.convs.0.conv.weight",
                "encoder.stages.1.blocks.0.conv2.norm.weight",
                "encoder.stages.1.blocks.0.skip.1.conv.weight",
            },
        ),
    ],
)
def test_weights_are_asked_for_by_nnunets_names_and_checked(name, others):
    network = build_network(name, {**TINY, "deep_supervision": True})
    recorder = _Recorder(network.state_dict().values())
    assert list(convert_weights(recorder, network)) == list(network.state_dict())
    assert others <= set(recorder.asked)
    with pytest.raises(InputError, match="the weights lack 'encoder"):
        convert_weights({}, network)
    with pytest.raises(InputError, match=r"is \(1,\), the network needs"):
        convert_weights({recorder.asked[0]: torch.zeros(1)}, network)


class _Recorder(dict):
    """Notes which names are asked for, and answers with the given weights in turn."""

    def __init__(self, weights):
        super().__init__()
        self.asked = []
        self._weights = iter(weights)

    def get(self, key):
        self.asked.append(key)
        return next(self._weights)
