"""A missing sequence has no influence, and no subset of sequences breaks the network."""

from itertools import product

import pytest
import torch

from UNetSegmentationLib.core.errors import InputError
from UNetSegmentationLib.networks import build_network
from UNetSegmentationLib.networks.sequence_fusion import drop_sequences, find_present, fuse

every_dimension = pytest.mark.parametrize("dimensions", [2, 3])


def build(dimensions=2, channels=3, **options):
    torch.manual_seed(0)
    values = {"in_channels": channels, "num_classes": 3, "dimensions": dimensions, "features_per_stage": [4, 6, 8]}
    return build_network("sequence_fusion", {**values, "sequence_dropout": 0.0, **options})


def draw_image(dimensions=2, batch=1, channels=3):
    return torch.randn(batch, channels, *(9, 11, 13)[:dimensions], generator=torch.Generator().manual_seed(1))


@every_dimension
def test_what_a_missing_sequence_holds_has_no_influence(dimensions):
    network = build(dimensions).eval()
    image, present = draw_image(dimensions), torch.tensor([[True, False, True]])
    other = image.clone()
    for content in (0.0, 1e6, float("nan"), float("inf")):
        other[:, 1] = content
        assert torch.equal(network(other, present), network(image, present))
    assert not torch.equal(network(image), network(image, present))


def test_a_channel_of_nan_is_a_missing_sequence_even_with_a_margin_of_zeros():
    network = build().eval()
    image, present = draw_image(), torch.tensor([[True, False, True]])
    expected = network(image, present)
    image[:, 1] = torch.nan
    assert torch.equal(network(image), expected)
    assert find_present(image).tolist() == [[True, False, True]] * len(image)
    image[:, 1, :2] = 0.0
    assert torch.equal(network(image), expected)


@pytest.mark.parametrize("norm", ["instance", "batch"])
def test_a_missing_sequence_teaches_its_encoder_nothing(norm):
    network = build(norm=norm).train()
    untouched = {key: value.clone() for key, value in network.encoders[1].state_dict().items()}
    image = draw_image(batch=2).requires_grad_()
    network(image, torch.tensor([[True, False, True]] * 2)).square().sum().backward()
    assert image.grad[:, 1].abs().max() == 0
    assert image.grad[:, 0].abs().max() > 0
    assert all(p.grad is None or p.grad.abs().max() == 0 for p in network.encoders[1].parameters())
    assert all(torch.equal(value, untouched[key]) for key, value in network.encoders[1].state_dict().items())


def test_images_with_different_sequences_share_a_batch():
    network = build().eval()
    image = draw_image(batch=4)
    present = torch.tensor([[True, True, True], [True, False, False], [False, True, True], [False, False, True]])
    apart = [network(image[index, None], present[index, None]) for index in range(4)]
    torch.testing.assert_close(network(image, present), torch.cat(apart), rtol=1e-4, atol=1e-5)


def test_every_subset_gives_finite_logits_and_gradients():
    for subset in product([True, False], repeat=3):
        network = build(deep_supervision=True).train()
        if not any(subset):
            with pytest.raises(InputError, match="at least one is needed"):
                network(draw_image(), torch.tensor([subset]))
            continue
        outputs = network(draw_image(), torch.tensor([subset]))
        sum(output.square().sum() for output in outputs).backward()
        assert all(p.grad is None or p.grad.isfinite().all() for p in network.parameters())


def test_with_a_shared_encoder_the_order_of_sequences_is_of_no_account():
    image = draw_image()
    turned = image[:, [2, 0, 1]]
    shared, own = build(shares_encoder=True).eval(), build().eval()
    torch.testing.assert_close(shared(turned), shared(image), rtol=1e-4, atol=1e-5)
    assert (own(turned) - own(image)).abs().max() > 1e-2


def test_present_must_fit_the_image():
    with pytest.raises(InputError, match=r"present is \(1, 2\)"):
        build()(draw_image(), torch.tensor([[True, True]]))


def test_fusion_is_mean_and_variance_of_what_is_present():
    features = torch.randn(3, 2, 4, 5, 5, dtype=torch.float64)
    present = torch.tensor([[True, True, True], [False, True, False]])
    fused = fuse(features, present)
    torch.testing.assert_close(fused[0], torch.cat([features[:, 0].mean(0), features[:, 0].var(0, correction=0)]))
    torch.testing.assert_close(fused[1], torch.cat([features[1, 1], torch.zeros(4, 5, 5, dtype=torch.float64)]))
    complete = torch.ones(2, 3, dtype=torch.bool)
    torch.testing.assert_close(fuse(features, complete)[0], fused[0])


def test_dropout_keeps_one_sequence_and_brings_none_back():
    torch.manual_seed(0)
    present = torch.rand(2000, 4) < 0.6
    present[:, 1] |= ~present.any(dim=1)
    kept = drop_sequences(present, 0.5)
    assert kept.any(dim=1).all()
    assert not (kept & ~present).any()
    complete = drop_sequences(torch.ones(20000, 4, dtype=torch.bool), 0.5)
    # One of sixteen draws loses all four, and gets one back.
    assert complete.float().mean().item() == pytest.approx(0.5 + 1 / 16 / 4, abs=0.01)


def test_sequences_are_dropped_in_training_alone():
    network = build(sequence_dropout=0.9)
    torch.manual_seed(0)
    image = draw_image()
    network.eval()
    assert torch.equal(network(image), network(image))
    network.train()
    answers = {network(image).sum().item() for _ in range(8)}
    assert len(answers) > 1


def test_the_brain_tumour_network_names_its_four_sequences():
    network = build_network("brain_tumour", {"dimensions": 2, "features_per_stage": [4, 6]}).eval()
    image = torch.randn(1, 4, 8, 8)
    image[:, 1] = torch.nan
    assert network.config.sequences == ("T1", "T1ce", "T2", "FLAIR")
    assert network(image).shape == (1, 4, 8, 8)
    assert len(network.encoders) == 4


def test_a_channel_that_describes_a_sequence_is_missing_with_it_and_bound_to_its_encoder():
    network = build(channels=4, described=[1]).eval()
    image, present = draw_image(channels=4), torch.tensor([[True, False, True]])
    other = image.clone()
    other[:, [1, 3]] = 1e6
    assert torch.equal(network(other, present), network(image, present))
    assert [encoder.stages[0].blocks[0].conv.in_channels for encoder in network.encoders] == [1, 2, 1]
    other = image.clone()
    other[:, 3] += 1.0
    assert not torch.equal(network(other), network(image))


def test_hu_priors_go_missing_with_their_ct():
    options = {"network": "sequence_fusion", "ct_channels": [1], "network_options": {"sequence_dropout": 0.0}}
    torch.manual_seed(0)
    values = {"in_channels": 3, "num_classes": 2, "dimensions": 2, "features_per_stage": [4, 6], **options}
    network = build_network("hu_prior", values).eval()
    assert network.accepts_missing_channels
    assert network.network.config.described == (1, 1, 1)
    image = draw_image()
    image[:, 1] = torch.nan
    inner = network.network
    expected = inner(torch.cat([image, torch.zeros(1, 3, 9, 11)], dim=1), torch.tensor([[True, False, True]]))
    assert torch.equal(network(image), expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"described": [3]}, r"described is \(3,\): must be 0 to 1"),
        ({"described": [0], "shares_encoder": True}, "a shared encoder cannot take"),
    ],
)
def test_described_names_a_sequence_with_an_encoder_of_its_own(options, message):
    with pytest.raises(InputError, match=message):
        build(**options)
