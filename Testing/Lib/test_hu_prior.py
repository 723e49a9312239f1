"""Tissue masks mean Hounsfield units, whatever happens to the intensity afterwards."""

import numpy as np
import pytest
import torch

from UNetSegmentationLib.conventions.parts.intensity import normalize
from UNetSegmentationLib.networks import build_network
from UNetSegmentationLib.planning.plan import Normalization
from UNetSegmentationLib.presets import PRESETS


def build(**options):
    torch.manual_seed(0)
    values = {"in_channels": 1, "num_classes": 2, "dimensions": 2, "features_per_stage": [4, 6]}
    return build_network("hu_prior", {**values, **options}).eval()


def masks_at(hounsfield, **options):
    """Return the scaled intensity and the masks at one value."""
    return build(**options).add_priors(torch.full((1, 1, 1, 1), float(hounsfield))).flatten().tolist()


def test_the_preset_holds_the_thresholds():
    assert PRESETS["ct"].tissue_ranges_hu == (
        ("lung", -1000.0, -400.0),
        ("soft tissue", -100.0, 100.0),
        ("bone", 400.0, None),
    )
    assert build().config.tissue_ranges_hu == PRESETS["ct"].tissue_ranges_hu


@pytest.mark.parametrize(
    ("hounsfield", "lung", "soft", "bone"),
    [(-700, 1, 0, 0), (0, 0, 1, 0), (40, 0, 1, 0), (-250, 0, 0, 0), (250, 0, 0, 0), (700, 0, 0, 1), (3000, 0, 0, 1)],
)
def test_masks_say_which_tissue_a_value_is(hounsfield, lung, soft, bone):
    _, *masks = masks_at(hounsfield)
    assert masks == pytest.approx([lung, soft, bone], abs=0.06)


def test_masks_are_half_at_their_thresholds():
    for hounsfield, index in ((-1000, 1), (-400, 1), (-100, 2), (100, 2), (400, 3)):
        assert masks_at(hounsfield)[index] == pytest.approx(0.5, abs=1e-3)


def test_padding_values_of_scanners_are_no_tissue():
    assert masks_at(-2000)[1:] == pytest.approx([0, 0, 0], abs=1e-6)


def test_the_window_maps_to_minus_one_and_one():
    expected = {-2000: -1, -1000: -1, 0: 0, 1000: 1, 3000: 1}
    assert {value: masks_at(value)[0] for value in expected} == pytest.approx(expected)
    assert masks_at(40, window_hu=[-160, 240])[0] == pytest.approx(0)


def test_masks_are_those_of_the_stored_values_under_a_plan_that_leaves_them_alone():
    stored = np.linspace(-1024, 2000, 64, dtype=np.float32).reshape(1, 8, 8)
    kept = normalize(stored, Normalization(scheme="none"))
    assert np.array_equal(kept.numpy(), stored)
    scaled = normalize(stored, Normalization(scheme="zscore"))
    network = build()
    masks = network.add_priors(torch.from_numpy(stored)[None])[:, 1:]
    assert torch.equal(network.add_priors(kept[None])[:, 1:], masks)
    assert (network.add_priors(scaled[None])[:, 1:] - masks).abs().max() > 0.9


def test_only_ct_channels_are_taken_for_hounsfield_units():
    network = build(in_channels=2, ct_channels=[1])
    image = torch.randn(1, 2, 4, 4)
    extended = network.add_priors(image)
    assert extended.shape[1] == 2 + 3
    assert torch.equal(extended[:, 0], image[:, 0])


def test_small_images_are_padded_after_the_masks_are_made():
    network = build()
    seen = []
    network.network.encoder.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0]))
    network.bfloat16()(torch.full((1, 1, 3, 3), 1000.0, dtype=torch.bfloat16))
    # Half-precision images are padded with zeros, which in HU would be water.
    assert seen[0].shape[2:] == (4, 4)
    assert seen[0][0, 2, 3, 3] == 0


def test_any_network_can_be_inside_with_its_own_options():
    network = build(network="attention_unet", network_options={"upsampling": "linear"})
    assert network.network.config.upsampling == "linear"
    assert network.network.config.in_channels == 4
    assert network(torch.zeros(1, 1, 6, 6)).shape == (1, 2, 6, 6)
