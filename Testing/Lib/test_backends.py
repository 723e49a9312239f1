"""Every backend gives eager float32's logits; the layers of the fused one keep torch's values."""

import sys
from importlib.util import find_spec

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from UNetSegmentationLib.backends import BACKENDS, Backend
from UNetSegmentationLib.backends.contract import Computation
from UNetSegmentationLib.backends.parts.fused_layers import BLOCK_BYTES, FusedTransposed, fused_copy, normalise_
from UNetSegmentationLib.backends.parts.network_copy import channels_last_copy
from UNetSegmentationLib.backends.parts.outer_layers import outer_layers
from UNetSegmentationLib.backends.parts.parity import disagreement, make_tile
from UNetSegmentationLib.backends.parts.timing import obstacle
from UNetSegmentationLib.conventions import Tiling
from UNetSegmentationLib.core.errors import CancelledError
from UNetSegmentationLib.core.task import Task
from UNetSegmentationLib.inference.sliding_window import predict_logits
from UNetSegmentationLib.networks import NETWORKS, NetworkConfig, SegmentationNetwork, build_network
from UNetSegmentationLib.networks.parts.ensemble import Ensemble
from UNetSegmentationLib.networks.parts.memory_format import FORMATS

# What makes a network small, beyond the options that all share.
OPTIONS = {
    "brain_tumour": {"in_channels": 4, "num_classes": 4},
    "primus_unet": {"embedding": 24, "heads": 2, "blocks": 2},
    "shape_prior": {"prior_size": 8, "prior_latent": 4},
    "nnunet_residual": {"encoder_convs": [1, 2, 1]},
    "vnet": {"kernel_sizes": [], "encoder_convs": [1, 2, 1]},
    "nodule_unet": {"stem_features": 2},
}
CPU = torch.device("cpu")
SIZE = (9, 11, 13)
ON_CPU = [name for name in BACKENDS if not name.startswith(("cuda", "mps", "compiled"))]


def computation_of(network, size=SIZE, batch=1, **options):
    shape = (batch, network.config.in_channels, *size[: network.config.dimensions])
    return Computation(network=network, shape=shape, device=CPU, **options)


def network_of(name="unet", dimensions=3, **options):
    values = {"in_channels": 2, "num_classes": 3, "dimensions": dimensions, "features_per_stage": [4, 6, 8]}
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        network = build_network(name, {**values, **OPTIONS.get(name, {}), **options})
        for parameter in network.parameters():  # some of the values that they start with hide what follows
            parameter.add_(0.2 * torch.randn(parameter.shape))
    return network.eval()


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("backend", ON_CPU)
@pytest.mark.parametrize("network_name", NETWORKS)
@pytest.mark.parametrize("dimensions", [2, 3])
def test_a_backend_gives_the_logits_of_eager_float32(backend, network_name, dimensions):
    network = network_of(network_name, dimensions)
    if reason := obstacle(backend, network, CPU):
        pytest.skip(reason)
    computation = computation_of(network, batch=2)
    tile = make_tile(computation.shape, raw_channels=network.raw_channels)
    with torch.inference_mode():
        expected = network(tile)
        found = BACKENDS[backend]().build(computation)(tile)
    if BACKENDS[backend].precision == "float32":
        assert disagreement(found, expected, "float32") == ""
    else:
        # Random weights leave classes nearly equal everywhere, so that labels say little.
        assert found.dtype == torch.float32
        assert (found - expected).square().mean().sqrt() < 0.1 * expected.std()


@pytest.mark.parametrize("dimensions", [2, 3])
def test_the_ends_of_a_network_are_its_first_and_last_layers(dimensions):
    network = network_of("unet", dimensions)
    names = {module: name for name, module in network.named_modules()}
    assert {names[layer] for layer in outer_layers(network, computation_of(network).shape)} == {
        "encoder.stages.0.blocks.0.conv",
        "encoder.stages.0.blocks.0.norm",
        "decoder.stages.0.blocks.1.norm",
        "decoder.heads.0",
    }


@pytest.mark.parametrize("network_name", NETWORKS)
def test_every_network_has_ends_to_keep_in_float32(network_name):
    network = network_of(network_name)
    ends = outer_layers(network, computation_of(network).shape)
    assert 2 <= len(ends) < len([module for module in network.modules() if not list(module.children())])


@pytest.mark.parametrize("network_name", ["unet", "shape_prior"])
def test_every_network_inside_has_ends_of_its_own(network_name):
    """The layer of the logits is one, whatever comes after it."""
    members = [network_of(network_name) for _ in range(3)]
    found = outer_layers(Ensemble(members).eval(), computation_of(members[0]).shape)
    inside = [getattr(member, "network", member) for member in members]
    assert {part.decoder.heads[0] for part in inside} <= found
    assert {part.encoder.stages[0].blocks[0].conv for part in inside} <= found


@pytest.mark.parametrize(("convolutions", "needs_values"), [(3, True), (2, False)])
def test_there_are_no_ends_where_none_can_be_told(convolutions, needs_values):
    class Chain(SegmentationNetwork):
        def __init__(self):
            super().__init__(NetworkConfig(in_channels=1, num_classes=2, features_per_stage=(4,)))
            self.layers = nn.Sequential(*(nn.LazyConv3d(2, 1) for _ in range(convolutions)))
            self.layers(torch.zeros(1, 1, 4, 4, 4))

        def forward_aligned(self, image):
            if needs_values:
                image.numpy()
            return self.layers(image)

    assert outer_layers(Chain().eval(), (1, 1, 8, 8, 8)) == set()


@pytest.mark.parametrize("backend", ["bfloat16", "openvino_bfloat16"])
def test_bfloat16_is_more_exact_with_both_ends_in_float32(backend, monkeypatch):
    network = network_of(features_per_stage=[8, 16, 16])
    if reason := obstacle(backend, network, CPU):
        pytest.skip(reason)
    computation = computation_of(network, (32, 32, 32))
    tile = make_tile(computation.shape)

    def error():
        with torch.inference_mode():
            expected = network(tile)
            return float(
                (BACKENDS[backend]().build(computation)(tile) - expected).square().mean().sqrt() / expected.std()
            )

    with_ends = error()
    monkeypatch.setattr("UNetSegmentationLib.backends.bfloat16.outer_layers", lambda *_: set())
    monkeypatch.setattr("UNetSegmentationLib.backends.openvino_cpu.keep_in_float32", lambda content: content)
    assert with_ends < 0.9 * error()


@pytest.mark.parametrize("backend", ON_CPU)
def test_a_backend_keeps_a_tile_that_is_cut_out_of_a_volume_until_it_is_computed(backend, monkeypatch):
    """A copy that is freed too early is overwritten by the next one, and labels are wrong without an error."""
    network = network_of()
    if reason := obstacle(backend, network, CPU):
        pytest.skip(reason)
    monkeypatch.setattr("UNetSegmentationLib.backends.openvino_cpu.PULSE_MS", 0)
    volume = make_tile((1, 2, 40, 40, 40))
    tile = volume[..., 4:36, 4:36, 4:36]
    kept = []
    computation = computation_of(network, tile.shape[2:], pulse=lambda: kept.append(torch.full(tile.shape, torch.nan)))
    with torch.inference_mode():
        found = BACKENDS[backend]().build(computation)(tile)
        assert (found - network(tile)).square().mean().sqrt() < 0.1 * found.std()


@pytest.mark.parametrize("norm", ["instance", "group", "batch", "none"])
@pytest.mark.parametrize("activation", ["leaky_relu", "relu", "elu", "prelu"])
@pytest.mark.parametrize("residual", [True, False])
def test_fused_layers_keep_every_norm_and_activation(norm, activation, residual):
    network = network_of(norm=norm, activation=activation, residual=residual, upsampling="nearest_conv")
    image = make_tile((2, 2, 8, 12, 8))
    with torch.inference_mode():
        assert disagreement(fused_copy(network)(image), network(image), "float32") == ""


@pytest.mark.parametrize("channels", [1, 3, 16])
@pytest.mark.parametrize("mean", [0.0, 300.0])
def test_norm_in_blocks_is_exact_also_where_the_mean_is_large(channels, mean, monkeypatch):
    """Squares of values of 300 with a deviation of 1 lose five of seven digits; deviations from a mean do not."""
    monkeypatch.setattr(
        "UNetSegmentationLib.backends.parts.fused_layers.BLOCK_BYTES", 4 * channels * 100
    )  # ragged blocks
    generator = torch.Generator().manual_seed(0)
    features = torch.randn((2, channels, 7, 9, 11), generator=generator) + mean
    weight, bias = torch.rand(channels, generator=generator), torch.randn(channels, generator=generator)
    expected = F.leaky_relu(F.instance_norm(features.double(), weight=weight.double(), bias=bias.double()), 0.01)
    found = normalise_(
        features.contiguous(memory_format=FORMATS[5]), weight, bias, activate=lambda part: F.leaky_relu_(part, 0.01)
    )
    assert torch.allclose(found.double(), expected, atol=1e-5 if mean == 0 else 2e-4)


def test_norm_of_constant_features_is_the_shift():
    features = torch.full((1, 4, 5, 6, 7), 3.7).contiguous(memory_format=FORMATS[5])
    bias = torch.tensor([0.0, 1.0, -2.0, 5.0])
    found = normalise_(features, torch.ones(4), bias)
    assert torch.allclose(found, bias[None, :, None, None, None].expand_as(found), atol=1e-3)


@pytest.mark.parametrize("kernel", [(2, 2, 2), (1, 2, 2), (3, 1, 2), (2, 2), (1, 3)])
@pytest.mark.parametrize("has_bias", [True, False])
def test_transposed_convolution_by_matrix_products_is_torchs(kernel, has_bias):
    kind = nn.ConvTranspose3d if len(kernel) == 3 else nn.ConvTranspose2d
    layer = kind(3, 5, kernel, stride=kernel, bias=has_bias)
    image = torch.randn(2, 3, *(4, 5, 6)[: len(kernel)])
    with torch.inference_mode():
        assert torch.allclose(FusedTransposed(layer)(image), layer(image), atol=1e-5)


@pytest.mark.parametrize("make_twin", [fused_copy, channels_last_copy])
def test_a_twin_shares_no_hook_and_leaves_the_network_as_it_is(make_twin):
    network = network_of()
    before = {name: (value.clone(), value.stride()) for name, value in network.state_dict().items()}
    calls = []
    handles = [module.register_forward_pre_hook(lambda *_: calls.append(1)) for module in network.modules()]
    twin = make_twin(network)
    image = make_tile((1, 2, 8, 8, 8))
    with torch.inference_mode():
        expected = network(image)
        calls.clear()
        assert torch.allclose(twin(image), expected, atol=1e-4)
    assert calls == []
    for handle in handles:
        handle.remove()
    for module in twin.modules():
        module.register_forward_pre_hook(lambda *_: calls.append(1))
    with torch.inference_mode():
        network(image)
    assert calls == []
    after = network.state_dict()
    assert all(torch.equal(after[name], old) and after[name].stride() == step for name, (old, step) in before.items())


def test_fused_layers_work_through_whole_maps_in_blocks_of_a_mebibyte():
    """A thread's share of the cache; measured, so a change needs a measurement."""
    assert BLOCK_BYTES == 2**20


@pytest.mark.parametrize("backend", ON_CPU)
def test_every_backend_of_the_cpu_can_be_cancelled_within_a_tile(backend):
    network = network_of(features_per_stage=[16, 16])
    if reason := obstacle(backend, network, CPU):
        pytest.skip(reason)
    calls = []

    class Engine(nn.Module):
        def __init__(self):
            super().__init__()
            self.network, self.pulse = network, nn.Identity()
            self.forward = BACKENDS[backend]().build(
                computation_of(network, (96, 96, 96), pulse=lambda: self.pulse(torch.empty(0)))
            )

    def is_cancelled():
        calls.append(1)
        return len(calls) > 2  # once before the tile and once in it

    with pytest.raises(CancelledError):
        predict_logits(
            Engine().eval(),
            torch.zeros(2, 96, 96, 96),
            Tiling(patch_size=(96, 96, 96)),
            task=Task(is_cancelled=is_cancelled),
        )


@pytest.mark.parametrize("name", BACKENDS)
def test_backends_for_other_devices_say_so(name):
    missing = torch.device("meta")
    if name in ("eager", "channels_last"):
        pytest.skip("runs everywhere")
    assert BACKENDS[name]().obstacle(missing)


def test_a_network_that_decides_by_values_is_not_recorded():
    fusion = network_of("sequence_fusion")
    recorded = [name for name in BACKENDS if BACKENDS[name].is_recorded]
    assert {"openvino", "compiled", "cuda_graph"} <= set(recorded)
    assert all("which channels are present" in obstacle(name, fusion, CPU) for name in recorded)


def test_openvino_does_not_report_its_use():
    if not find_spec("openvino"):
        pytest.skip("openvino is not installed")
    from UNetSegmentationLib.backends.openvino_cpu import load_openvino

    load_openvino()
    assert sys.modules.get("openvino_telemetry") is None


def test_parity_names_what_differs():
    reference = torch.randn(1, 3, 20, 20, 20, generator=torch.Generator().manual_seed(0))
    assert disagreement(reference + 1e-5, reference, "float32") == ""
    assert "logits differ by" in disagreement(reference * 1.01, reference, "float32")
    assert disagreement(reference * 1.01, reference, "bfloat16") == ""
    assert "logits differ by" in disagreement(reference * 1.1, reference, "bfloat16")
    assert "NaN" in disagreement(reference / 0, reference, "float32")
    assert "instead of" in disagreement(reference[:, :2], reference, "float32")
    assert "instead of" in disagreement(reference.double(), reference, "float32")
    close = 0.001 * reference + torch.tensor([100.0, 100.0, 0.0])[None, :, None, None, None]
    swapped = close.clone()
    swapped[0, :2, :4, :4, 0] = close[0, [1, 0], :4, :4, 0]
    assert "of the labels" in disagreement(swapped, close, "bfloat16")
    shifted = torch.where(reference.abs() < 0.003, -reference.sign() * 1e-4, reference)
    assert disagreement(shifted, reference, "float32") == ""
    assert "of the labels" in disagreement(shifted, reference, "float32", is_regions=True)


def test_made_tiles_have_air_structure_and_hounsfield_units_where_asked():
    tile = make_tile((1, 2, 24, 24, 24), raw_channels=(1,))
    assert torch.equal(tile, make_tile((1, 2, 24, 24, 24), raw_channels=(1,)))
    assert tile[0, 0, :8, :8, :8].std() == 0
    assert 0.3 < tile[0, 0, 8:].std() < 3
    assert tile[0, 1].std() > 100


def test_every_backend_is_described():
    for name in BACKENDS:
        assert issubclass(BACKENDS[name], Backend)
        assert BACKENDS.title(name)
        assert BACKENDS[name].precision in ("float32", "tf32", "float16", "bfloat16")
