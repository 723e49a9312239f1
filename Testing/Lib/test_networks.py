"""Laws that every registered network keeps, in 2D and 3D."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

from UNetSegmentationLib.core.errors import InputError
from UNetSegmentationLib.networks import NETWORKS, build_network
from UNetSegmentationLib.networks.contract import ACTIVATIONS, NORMS
from UNetSegmentationLib.networks.parts.blocks import UPSAMPLINGS

# What makes an entry small, or free of chance, beyond the options that all share.
OPTIONS = {
    "brain_tumour": {"in_channels": 4, "num_classes": 4, "sequence_dropout": 0.0},
    "sequence_fusion": {"sequence_dropout": 0.0},
    "primus_unet": {"embedding": 24, "heads": 2, "blocks": 2},
    "shape_prior": {"prior_size": 8, "prior_latent": 4},
    "nnunet_residual": {"encoder_convs": [1, 2, 1]},
    "vnet": {"kernel_sizes": [], "encoder_convs": [1, 2, 1]},
    "nodule_unet": {"stem_features": 2},
}
SIZE = (9, 11, 13)
every_network = pytest.mark.parametrize("name", NETWORKS)
every_dimension = pytest.mark.parametrize("dimensions", [2, 3])


def configure(name, dimensions, **options):
    values = {"in_channels": 2, "num_classes": 3, "dimensions": dimensions, "features_per_stage": [4, 6, 8]}
    return {**values, **OPTIONS.get(name, {}), **options}


def build(name, dimensions, *, seed=0, **options):
    torch.manual_seed(seed)
    return build_network(name, configure(name, dimensions, **options))


def draw_image(network, size=SIZE, *, batch=1, seed=1):
    generator = torch.Generator().manual_seed(seed)
    shape = (batch, network.config.in_channels, *size[: network.config.dimensions])
    return torch.randn(shape, generator=generator)


def shake(network):
    """Move every weight off the values that it starts with, some of which block the gradient of others."""
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    return network


@every_network
@every_dimension
@pytest.mark.parametrize("size", [(1, 1, 1), (3, 1, 2), (9, 11, 13), (8, 12, 4)])
def test_logits_lie_on_the_grid_of_an_image_of_any_size(name, dimensions, size):
    network = build(name, dimensions)
    for mode in (True, False):
        logits = network.train(mode)(draw_image(network, size, batch=2))
        assert logits.shape == (2, network.config.num_classes, *size[:dimensions])
        assert logits.isfinite().all()


@every_network
@every_dimension
def test_voxels_beyond_the_far_end_repeat_the_last_ones(name, dimensions):
    network = build(name, dimensions).eval()
    image = draw_image(network)
    missing = [-size % step for size, step in zip(image.shape[2:], network.alignment, strict=True)]
    assert any(missing)
    # Hounsfield masks and present sequences are taken voxel by voxel, so that padding commutes with them.
    padded = F.pad(image, [side for amount in reversed(missing) for side in (0, amount)], mode="replicate")
    with torch.no_grad():
        cropped = network(padded)[(..., *(slice(0, size) for size in image.shape[2:]))]
        assert torch.equal(network(image), cropped)


@every_network
@every_dimension
def test_images_of_a_batch_do_not_see_each_other(name, dimensions):
    network = build(name, dimensions).eval()
    image = draw_image(network, batch=3)
    with torch.no_grad():
        apart = torch.cat([network(entry[None]) for entry in image])
        torch.testing.assert_close(network(image), apart, rtol=1e-4, atol=1e-4)


@every_network
@every_dimension
def test_gradient_reaches_every_weight(name, dimensions):
    network = shake(build(name, dimensions, deep_supervision=True)).train()
    outputs = network(draw_image(network, batch=2))
    sum(output.square().sum() for output in outputs).backward()
    for weight, parameter in network.named_parameters():
        if not parameter.requires_grad:
            assert name == "shape_prior", weight
            assert weight.startswith("prior."), weight
        elif name.startswith("nnunet") and ("conv.bias" in weight and "ups" not in weight):
            # nnU-Net keeps the biases that its instance norm takes away again.
            assert parameter.grad is not None
        else:
            assert parameter.grad is not None, weight
            assert parameter.grad.abs().max() > 0, weight


@every_network
@every_dimension
def test_a_few_steps_of_training_lower_the_loss(name, dimensions):
    network = build(name, dimensions).train()
    image = draw_image(network, (8, 8, 8), batch=2)
    labels = (image[:, 0] > 0).long()
    weights = [parameter for parameter in network.parameters() if parameter.requires_grad]
    optimizer = torch.optim.Adam(weights, lr=1e-2)
    losses = []
    for _ in range(10):
        loss = F.cross_entropy(network(image), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0]


@every_network
@every_dimension
def test_deep_supervision_answers_at_every_decoder_level_in_training_alone(name, dimensions):
    strides = [[1] * dimensions, [1, 2, 2][-dimensions:], [2] * dimensions]
    network = build(name, dimensions, deep_supervision=True, strides=strides)
    image = draw_image(network)
    outputs = network.train()(image)
    assert len(outputs) == 2
    assert outputs[0].shape[2:] == image.shape[2:]
    padded = [-(-size // step) * step for size, step in zip(image.shape[2:], network.alignment, strict=True)]
    stride = [1] * dimensions if name == "unet_plus_plus" else strides[1]
    assert list(outputs[1].shape[2:]) == [size // step for size, step in zip(padded, stride, strict=True)]
    assert isinstance(network.eval()(image), torch.Tensor)
    without = build(name, dimensions, strides=strides)
    assert isinstance(without.train()(image), torch.Tensor)


@every_network
@every_dimension
def test_half_precision_stays_finite_and_near(name, dimensions):
    network = build(name, dimensions).eval()
    image = draw_image(network, (8, 12, 16))
    with torch.no_grad():
        exact = network(image)
        with torch.autocast("cpu", torch.bfloat16):
            mixed = network(image)
        half = network.bfloat16()(image.bfloat16())
    for logits in (mixed, half):
        assert logits.isfinite().all()
        assert (logits.float() - exact).abs().mean() < 0.1 * exact.abs().mean()


@every_network
@every_dimension
def test_a_stored_network_answers_bit_for_bit_the_same(name, dimensions, tmp_path):
    network = shake(build(name, dimensions)).eval()
    state = {key: value.contiguous() for key, value in network.state_dict().items()}
    save_file(state, tmp_path / "weights.safetensors")
    copy = build(name, dimensions, seed=9).eval()
    image = draw_image(network)
    with torch.no_grad():
        assert not torch.equal(copy(image), network(image))
        copy.load_state_dict(load_file(tmp_path / "weights.safetensors"))
        assert torch.equal(copy(image), network(image))


@every_network
@every_dimension
def test_a_configuration_survives_json(name, dimensions):
    config = build(name, dimensions).config
    restored = type(config).from_dict(json.loads(json.dumps(config.to_dict())))
    assert restored == config
    assert hash(restored) == hash(config)


@every_network
def test_a_misspelt_option_is_named(name):
    with pytest.raises(InputError, match="has no field featuresperstage: choose from .*features_per_stage"):
        build(name, 3, featuresperstage=[4, 8])


@every_network
def test_values_out_of_range_are_refused(name):
    for options in ({"num_classes": 1}, {"dropout": 1.0}, {"norm": "layer"}, {"strides": [[2, 2], [2, 2], [2, 2]]}):
        with pytest.raises(InputError):
            build(name, 2, **options)


@every_network
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_norm_and_activation_trains_even_on_a_single_voxel(name, norm, activation):
    network = build(name, 2, norm=norm, activation=activation, dropout=0.1, deep_supervision=True).train()
    for size in ((1, 1), (8, 4)):
        outputs = network(draw_image(network, size))
        sum(output.square().sum() for output in outputs).backward()
        assert all(p.grad is None or p.grad.isfinite().all() for p in network.parameters())


@pytest.mark.parametrize("name", ["unet", "attention_unet", "unet_plus_plus", "nodule_unet", "sequence_fusion"])
@every_dimension
@pytest.mark.parametrize("upsampling", UPSAMPLINGS)
@pytest.mark.parametrize("downsampling", ["max_pool", "strided"])
def test_ways_up_and_down_fit_together(name, dimensions, upsampling, downsampling):
    strides = [[1] * dimensions, [3, 2, 1][:dimensions], [2, 1, 3][:dimensions]]
    network = build(name, dimensions, upsampling=upsampling, downsampling=downsampling, residual=True, strides=strides)
    image = draw_image(network, (5, 4, 7))
    assert network(image).shape == (1, 3, *image.shape[2:])


@pytest.mark.parametrize(
    "name", [name for name in NETWORKS if name not in ("unet_plus_plus", "residual_unet", "brain_tumour")]
)
def test_a_single_stage_is_a_network(name):
    options = {key: value for key, value in OPTIONS.get(name, {}).items() if key != "encoder_convs"}
    config = {"in_channels": 1, "num_classes": 2, "dimensions": 2, "features_per_stage": [4], **options}
    network = build_network(name, {**config, "deep_supervision": True})
    (logits,) = network(torch.randn(1, 1, 5, 3))
    assert logits.shape == (1, 2, 5, 3)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("unet", {"downsampling": "stride"}, "downsampling is 'stride'"),
        ("unet", {"upsampling": "cubic"}, "upsampling is 'cubic'"),
        ("unet_plus_plus", {"features_per_stage": [4]}, "needs at least 2"),
        ("residual_unet", {"features_per_stage": [4]}, "needs at least 2"),
        ("residual_unet", {"residual_units": -1}, "must be 0 or more"),
        ("residual_unet", {"up_kernel": 2}, "must be an odd number"),
        ("segresnet", {"encoder_blocks": [1]}, "must be 3 numbers"),
        ("segresnet", {"decoder_blocks": [1, -1]}, "must be 2 numbers"),
        ("segresnet", {"upsampling": "nearest_conv"}, "choose linear or transposed"),
        ("unet_plus_plus", {"pruning_level": 3, "deep_supervision": True}, "must be 0 to 2"),
        ("unet_plus_plus", {"pruning_level": 1}, "needs deep_supervision"),
        ("vnet", {"encoder_convs": [1]}, "must be 3 numbers"),
        ("nnunet_plain", {"decoder_convs": [1]}, "must be 2 numbers"),
        ("nnunet_plain", {"upsampling": "linear"}, "leave both options out"),
        ("nnunet_residual", {"residual": False}, "choose the network 'nnunet_plain'"),
        ("primus_unet", {"embedding": 30}, "multiple of 8"),
        ("primus_unet", {"blocks": 0}, "at least 1"),
        ("nodule_unet", {"stem_kernels": [2]}, "must be odd numbers"),
        ("nodule_unet", {"stem_features": 0}, "must be at least 1"),
        ("sequence_fusion", {"sequences": ["T1"]}, "name one per channel"),
        ("sequence_fusion", {"sequence_dropout": 1.0}, "must be 0 to below 1"),
        ("brain_tumour", {"in_channels": 3}, "choose the network 'sequence_fusion'"),
        ("hu_prior", {"network": "hu_prior"}, "name the network to wrap"),
        ("hu_prior", {"softness_hu": 0.0}, "above 0"),
        ("hu_prior", {"window_hu": [100, -100]}, "lower value first"),
        ("hu_prior", {"ct_channels": []}, "at least one channel"),
        ("hu_prior", {"ct_channels": [2]}, "must be 0 to 1"),
        ("hu_prior", {"tissue_ranges_hu": [["fat", 0, -100]]}, "lower value first"),
        ("shape_prior", {"network": "shape_prior"}, "name the network to wrap"),
        ("shape_prior", {"prior_weight": -1.0}, "must be 0 or more"),
        ("shape_prior", {"gate_strength": -1.0}, "must be 0 or more"),
        ("shape_prior", {"gate_floor": 0.0}, "above 0 to below 1"),
        ("shape_prior", {"gate_margin": 0.5}, "0 to below 0.5"),
        ("shape_prior", {"prior_size": 12}, "multiple of 8"),
        ("shape_prior", {"prior_latent": 0}, "at least 1"),
    ],
)
def test_options_that_make_no_network_are_explained(name, options, message):
    with pytest.raises(InputError, match=message):
        build(name, 2, **options)


def test_a_pruned_nested_network_is_smaller_and_answers_as_the_pruning_level_does():
    network = shake(build("unet_plus_plus", 3, features_per_stage=[4, 6, 8, 10], deep_supervision=True)).eval()
    image = draw_image(network, (8, 16, 8))
    whole = network(image)
    for level in (1, 2, 3):
        pruned = network.pruned(level)
        network.config = replace(network.config, pruning_level=level)
        torch.testing.assert_close(pruned(image), network(image), rtol=0, atol=0)
        network.config = replace(network.config, pruning_level=0)
        sizes = [sum(p.numel() for p in n.parameters()) for n in (pruned, network)]
        assert (sizes[0] < sizes[1]) == (level < 3)
        assert torch.equal(pruned(image), whole) == (level == 3)
    for level in (0, 4):
        with pytest.raises(InputError, match="must be"):
            network.pruned(level)


def test_a_closed_gate_lets_nothing_of_the_skip_through():
    network = build("attention_unet", 2)
    skip, coarser = torch.randn(1, 4, 5, 5), torch.randn(1, 4, 5, 5)
    gate = network.decoder.gates[0]
    with torch.no_grad():
        gate.to_gate.conv.weight.zero_()
        for bias, share in ((-200.0, 0.0), (0.0, 0.5), (200.0, 1.0)):
            gate.to_gate.conv.bias.fill_(bias)
            torch.testing.assert_close(gate(skip, coarser), share * skip)


def test_a_gate_listens_to_the_coarser_signal():
    network = shake(build("attention_unet", 2))
    skip, coarser = torch.randn(1, 4, 5, 5), torch.randn(1, 4, 5, 5, requires_grad=True)
    network.decoder.gates[0](skip, coarser).sum().backward()
    assert coarser.grad.abs().max() > 0


def test_the_branches_of_the_stem_see_three_five_and_seven_voxels():
    network = build("nodule_unet", 2, norm="none", activation="elu")
    for branch, reach in zip(network.stem.branches, (3, 5, 7), strict=True):
        image = torch.randn(1, 2, 15, 15, requires_grad=True)
        branch(image)[0, :, 7, 7].sum().backward()
        seen = image.grad[0].abs().sum(dim=0).nonzero()
        assert (seen.max(dim=0).values - seen.min(dim=0).values + 1).tolist() == [reach, reach]


def test_the_transformer_sees_the_whole_image_from_every_voxel():
    network = shake(build("primus_unet", 2))
    image = torch.randn(1, 2, 32, 32, requires_grad=True)
    network.encoder(image)[-1][0, :, 0, 0].sum().backward()
    assert (F.max_pool2d(image.grad.abs().sum(dim=1), 4) > 0).all()


def test_the_transformer_knows_where_its_tokens_are():
    network = shake(build("primus_unet", 2)).eval()
    image = torch.zeros(1, 2, 16, 16)
    image[:, :, :4, :4] = 1.0
    with torch.no_grad():
        features = network.encoder(image)[-1][0].flatten(1)
    # Without positions all empty tokens would be alike.
    assert (features[:, 1:] - features[:, 1:2]).abs().max() > 1e-3
