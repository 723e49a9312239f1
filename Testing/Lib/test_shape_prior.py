"""The prior knows its shapes, costs nothing where they are right, and takes islands away."""

import pytest
import torch

from UNetSegmentationLib.core.errors import InputError
from UNetSegmentationLib.networks import build_network
from UNetSegmentationLib.networks.parts.shape_autoencoder import flaw_masks, move_masks, to_probabilities

SIZE = 32


def draw_disc(centre=(16.0, 16.0), radius=8.0):
    row, column = torch.meshgrid(torch.arange(SIZE), torch.arange(SIZE), indexing="ij")
    return ((row - centre[0]) ** 2 + (column - centre[1]) ** 2 <= radius**2).long()


def build(**options):
    torch.manual_seed(0)
    values = {"in_channels": 1, "num_classes": 2, "dimensions": 2, "features_per_stage": [4, 6]}
    return build_network("shape_prior", {**values, "prior_size": 16, "prior_latent": 8, **options})


@pytest.fixture(scope="module")
def fitted():
    """Return a network whose prior has seen discs of several sizes near the middle."""
    network = build()
    discs = [draw_disc((14.0 + i % 5, 14.0 + i % 3), 6.0 + i % 4) for i in range(12)]
    loss = network.fit_prior(discs, steps=150)
    assert loss < 0.25
    return network


def to_logits(labels, certainty=6.0):
    return certainty * (2 * to_probabilities(labels[None], 2) - 1)


def test_a_prior_that_learnt_nothing_does_nothing():
    network = build().eval()
    image = torch.randn(1, 1, 16, 16)
    assert torch.equal(network(image), network.network(image))
    assert network.prior_loss(network(image), torch.zeros(1, 16, 16, dtype=torch.long)) == 0


def test_a_right_shape_costs_nothing_and_a_wrong_one_the_more_the_more_it_is_wrong(fitted):
    truth = to_probabilities(draw_disc()[None], 2)
    costs = []
    for shift in (0, 2, 4, 8):
        moved = to_probabilities(draw_disc((16.0, 16.0 + shift))[None], 2)
        costs.append(fitted.prior.distance(moved, truth).item())
    assert costs[0] == 0
    assert costs == sorted(costs)
    holed = draw_disc()
    holed[12:20, 12:20] = 0
    assert fitted.prior.distance(to_probabilities(holed[None], 2), truth) > 0.05


def test_the_gradient_of_the_prior_reaches_the_network_alone(fitted):
    fitted.train()
    fitted.zero_grad()
    image = torch.randn(1, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    fitted.prior_loss(fitted(image), draw_disc()[None]).backward()
    assert all(parameter.grad is None for parameter in fitted.prior.parameters())
    assert max(parameter.grad.abs().max() for parameter in fitted.network.parameters()) > 0


def test_ignored_voxels_cost_nothing(fitted):
    ignored = torch.full((1, SIZE, SIZE), -1)
    assert fitted.prior_loss(torch.randn(1, 2, SIZE, SIZE), ignored) == 0


def test_the_gate_takes_an_island_away_and_leaves_the_organ(fitted):
    organ = draw_disc()
    flawed = organ.clone()
    flawed[1:4, 1:4] = 1
    gated = fitted.gate(to_logits(flawed, certainty=2.0)).argmax(dim=1)[0]
    assert gated[1:4, 1:4].sum() == 0
    overlap = 2 * (gated & organ).sum() / (gated.sum() + organ.sum())
    assert overlap > 0.95


def test_the_gate_leaves_borders_within_its_margin_alone(fitted):
    logits = to_logits(draw_disc(radius=10.0), certainty=2.0)
    kept = fitted.gate(logits).argmax(dim=1)[0]
    assert torch.equal(kept, draw_disc(radius=10.0))


def test_the_gate_works_at_inference_alone_and_can_be_switched_off(fitted):
    image = torch.randn(1, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    plain = fitted.network(image)
    assert torch.equal(fitted.train()(image), plain)
    assert not torch.equal(fitted.eval()(image), plain)
    without = build(gate_strength=0.0).eval()
    without.load_state_dict(fitted.state_dict())
    assert torch.equal(without(image), plain)


def test_a_stored_prior_is_still_fitted(fitted):
    copy = build()
    assert not copy.prior.is_fitted
    copy.load_state_dict(fitted.state_dict())
    assert copy.prior.is_fitted
    assert copy.prior.scale == fitted.prior.scale


def test_the_gate_keeps_classes_in_any_dimension():
    network = build(dimensions=3, prior_size=8)
    network.fit_prior([torch.randint(2, (6, 7, 8)) for _ in range(3)], steps=2)
    gated = network.eval()(torch.randn(2, 1, 5, 6, 7))
    assert gated.shape == (2, 2, 5, 6, 7)
    assert gated.isfinite().all()


def test_flaws_and_moves_leave_probabilities():
    generator = torch.Generator().manual_seed(0)
    masks = to_probabilities(torch.stack([draw_disc()] * 8), 2)
    moved = move_masks(masks, generator)
    flawed = flaw_masks(moved, generator)
    for changed in (moved, flawed):
        torch.testing.assert_close(changed.sum(dim=1), torch.ones(8, SIZE, SIZE))
        assert changed.min() >= 0
    assert (moved - masks).abs().mean() > 1e-3
    assert (flawed - moved).abs().mean() > 1e-3


def test_one_mask_is_no_prior():
    with pytest.raises(InputError, match="at least 2 are needed"):
        build().fit_prior([draw_disc()])
