"""A network inside another one, or in an ensemble, loses nothing of what a network promises."""

from __future__ import annotations

from itertools import product
from math import lcm
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import nn

from Testing.Lib.conftest import events_of
from UNetSegmentationLib.core.errors import InputError
from UNetSegmentationLib.core.task import UNWATCHED, Task
from UNetSegmentationLib.image.geometry import Volume
from UNetSegmentationLib.image.volume_io import write_labelmap, write_volume
from UNetSegmentationLib.models.description import read_description
from UNetSegmentationLib.networks import NETWORKS, build_network
from UNetSegmentationLib.networks.contract import NetworkConfig, SegmentationNetwork
from UNetSegmentationLib.networks.hu_prior import HUPriorNetwork
from UNetSegmentationLib.networks.parts.ensemble import Ensemble
from UNetSegmentationLib.networks.parts.planned_config import planned_config
from UNetSegmentationLib.networks.parts.weights import load_network
from UNetSegmentationLib.networks.parts.wrapper import NamedWrapper, WrapperNetwork
from UNetSegmentationLib.planning.plan import Normalization, Plan
from UNetSegmentationLib.training.job import TrainingJob
from UNetSegmentationLib.training.options import TrainingOptions
from UNetSegmentationLib.training.run import run_training

pytestmark = pytest.mark.usefixtures("one_thread")

OPTIONS = {
    "brain_tumour": {"sequence_dropout": 0.0},
    "sequence_fusion": {"sequence_dropout": 0.0},
    "primus_unet": {"embedding": 24, "heads": 2, "blocks": 2},
    "shape_prior": {"prior_size": 8, "prior_latent": 4, "prior_steps": 2},
    "vnet": {"kernel_sizes": [], "encoder_convs": [1, 2, 1]},
    "nnunet_residual": {"encoder_convs": [1, 2, 1], "residual": True},
    "nodule_unet": {"stem_features": 2},
}
DEMANDING = "demanding"
PLAN = Plan(
    dimensions=2,
    spacing_mm=(0.0, 0.0, 0.0),
    patch_size=(1, 128, 128),
    batch_size=1,
    orientation="stored",
    normalization=(Normalization(scheme="zscore"),),
)


class Demanding(SegmentationNetwork):
    """A network that makes use of all of the contract."""

    Config: ClassVar = NetworkConfig
    most_stages = 2
    planned_kernel = 7
    alignment = (24, 24)
    accepts_missing_channels = True
    raw_channels = (1,)
    learning_message = "Counting the labels"
    has_auxiliary_loss = True

    def __init__(self, config):
        super().__init__(config)
        self.convolution = nn.Conv2d(config.in_channels, config.num_classes, 1)
        self.taught = []

    def learn_from_labels(self, labels, *, seed, task=UNWATCHED):
        self.taught.append((labels, seed, task))

    def auxiliary_loss(self, outputs, labels):
        return outputs.mean() * 0 + labels.float().mean() + 2

    def forward_aligned(self, image):
        assert all(size % step == 0 for size, step in zip(image.shape[2:], self.alignment, strict=True))
        return self.convolution(image)


@pytest.fixture(autouse=True)
def demanding(monkeypatch):
    NETWORKS[next(iter(NETWORKS))]
    monkeypatch.setitem(NETWORKS._entries, DEMANDING, Demanding)


WRAPPERS = [name for name in NETWORKS if issubclass(NETWORKS[name], NamedWrapper)]
PAIRS = [(outer, inner) for outer, inner in product(WRAPPERS, [*NETWORKS, DEMANDING]) if outer != inner]


def config_of(name, **options):
    channels = 4 if name == "brain_tumour" else 2
    shape = {"in_channels": channels, "num_classes": 4, "dimensions": 2, "features_per_stage": [4, 6, 8]}
    return {**shape, **OPTIONS.get(name, {}), **options}


def build_pair(outer, inner):
    """Return a network in a wrapper; a wrapper inside holds the demanding network."""
    options = {**OPTIONS.get(inner, {}), **({"network": DEMANDING} if inner in WRAPPERS else {})}
    channels = {}
    if outer == "hu_prior":
        # What the networks inside need raw is channel 1, or what hu_prior leaves to them.
        channels["ct_channels"] = [0]
    if inner == "brain_tumour":
        channels["in_channels"] = 4
    torch.manual_seed(0)
    return build_network(outer, {**config_of(outer), **channels, "network": inner, "network_options": options})


def fits(outer, inner):
    # It takes four sequences and nothing else, not even masks.
    return not (outer == "hu_prior" and inner == "brain_tumour")


def innermost(network):
    while isinstance(network, WrapperNetwork):
        network = network.inner[0]
    return network


def every_network():
    """Yield (what, wrapper network) for all pairs and all ensembles of two."""
    for outer, inner in PAIRS:
        if fits(outer, inner):
            yield f"{outer}({inner})", build_pair(outer, inner)
            yield f"ensemble of {outer}({inner})", Ensemble([build_pair(outer, inner) for _ in range(2)])
    for name in [*NETWORKS, DEMANDING]:
        yield f"ensemble of {name}", Ensemble([build_network(name, config_of(name)) for _ in range(2)])


def raw_channels_are_those_of_all(outer):
    wanted = {channel for network in outer.inner for channel in network.raw_channels}
    assert wanted <= set(outer.raw_channels)
    assert all(0 <= channel < outer.config.in_channels for channel in outer.raw_channels)


def alignment_suits_all(outer):
    for network in outer.inner:
        assert all(size % step == 0 for size, step in zip(outer.alignment, network.alignment, strict=True))
    assert outer.alignment == tuple(lcm(*steps) for steps in zip(*(n.alignment for n in outer.inner), strict=True))


def channels_may_be_missing_where_all_take_it(outer):
    assert outer.accepts_missing_channels == all(network.accepts_missing_channels for network in outer.inner)


def lessons_are_told(outer):
    for network in outer.inner:
        assert network.learning_message in outer.learning_message
        assert not network.learning_message or outer.learning_message.count(network.learning_message) == 1


def everyone_learns(outer):
    labels = [torch.randint(0, 4, (8, 8), generator=torch.Generator().manual_seed(seed)) for seed in range(3)]
    task = Task()
    outer.learn_from_labels(labels, seed=5, task=task)
    learners = [network for network in outer.modules() if isinstance(network, Demanding)]
    assert all(entry[2] is task for learner in learners for entry in learner.taught)
    assert [[entry[0] for entry in learner.taught] for learner in learners] == [[labels]] * len(learners)
    priors = [network.prior for network in outer.modules() if hasattr(network, "prior_loss")]
    assert all(prior.is_fitted for prior in priors)


def own_losses_are_added(outer):
    outputs = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    labels = torch.randint(0, 4, (2, 8, 8), generator=torch.Generator().manual_seed(1))
    term = outer.auxiliary_loss(outputs, labels)
    has_prior = hasattr(outer, "prior_loss")
    assert outer.has_auxiliary_loss == (has_prior or any(network.has_auxiliary_loss for network in outer.inner))
    assert outer.has_auxiliary_loss == (term is not None)
    terms = [network.auxiliary_loss(outputs, labels) for network in outer.inner]
    given = [entry for entry in terms if entry is not None]
    if given:
        own = outer.prior_loss(outputs, labels) if has_prior else 0
        torch.testing.assert_close(term, sum(given) / len(given) + own)


def the_plan_is_made_for_the_network_inside(outer):
    if isinstance(outer, NamedWrapper):
        options = {"network": outer.config.network, "network_options": outer.config.network_options}
        name = next(name for name in NETWORKS if NETWORKS[name] is type(outer))
        planned = planned_config(name, PLAN, channels=1, num_classes=2, options=options)
        inside = type(innermost(outer))
        assert len(planned["features_per_stage"]) == (inside.most_stages or 6)
        assert {size for kernel in planned["kernel_sizes"] for size in kernel} == {inside.planned_kernel}


LAWS = {
    "raw_channels": raw_channels_are_those_of_all,
    "alignment": alignment_suits_all,
    "accepts_missing_channels": channels_may_be_missing_where_all_take_it,
    "learning_message": lessons_are_told,
    "learn_from_labels": everyone_learns,
    "auxiliary_loss": own_losses_are_added,
    "has_auxiliary_loss": own_losses_are_added,
    "planned_network": the_plan_is_made_for_the_network_inside,
    "most_stages": the_plan_is_made_for_the_network_inside,
    "planned_kernel": the_plan_is_made_for_the_network_inside,
}


def test_every_attribute_of_the_contract_has_its_law():
    contract = {name for name in vars(SegmentationNetwork) if not name.startswith("_")}
    assert set(LAWS) == contract - {"Config", "forward", "forward_aligned"}


@pytest.mark.parametrize("law", dict.fromkeys(LAWS.values()), ids=lambda law: law.__name__)
def test_a_wrapper_carries_the_contract_of_what_is_inside(law):
    seen = 0
    for what, network in every_network():
        try:
            law(network)
        except AssertionError as error:
            raise AssertionError(f"{what}: {error}") from error
        seen += 1
    assert seen >= 3 * len(NETWORKS)


@pytest.mark.parametrize("size", [(5, 7), (24, 24)])
def test_an_ensemble_returns_the_mean_of_what_its_members_return_alone(size):
    for name in [*NETWORKS, DEMANDING]:
        members = [build_network(name, config_of(name)).eval() for _ in range(3)]
        image = torch.randn(1, members[0].config.in_channels, *size, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            expected = sum(member(image) for member in members) / 3
            assert torch.equal(Ensemble(members).eval()(image), expected), name


def test_masks_of_an_ensemble_are_padded_after_they_are_made():
    options = {"in_channels": 1, "num_classes": 2, "dimensions": 2, "features_per_stage": [4, 6]}
    members = [build_network("hu_prior", options).eval() for _ in range(2)]
    image = torch.full((1, 1, 3, 3), 1000.0, dtype=torch.bfloat16)
    with torch.no_grad():
        expected = (members[0].bfloat16()(image) + members[1].bfloat16()(image)) / 2
        assert torch.equal(Ensemble(members)(image), expected)


def test_masks_reach_the_sequences_that_they_describe_through_another_wrapper():
    options = {"network": "sequence_fusion"}
    network = build_network("hu_prior", config_of("hu_prior", network="shape_prior", network_options=options))
    assert innermost(network).config.described == (0, 0, 0)
    assert innermost(network).config.num_sequences == 2


@pytest.mark.parametrize(
    ("outer", "options", "text"),
    [
        ("hu_prior", {"network": "hu_prior"}, "name the network to wrap"),
        ("shape_prior", {"network": "shape_prior"}, "name the network to wrap"),
        ("hu_prior", {"network": "shape_prior", "network_options": {"network": "hu_prior"}}, "needs channel 0"),
        ("shape_prior", {"network": "wnet"}, "unknown network 'wnet'"),
        ("shape_prior", {"network": ["unet"]}, "network is .*: give a string"),
        ("hu_prior", {"network": "shape_prior", "network_options": {"network": 3}}, "network is 3: give a string"),
    ],
)
def test_networks_that_cannot_go_into_each_other_are_refused(outer, options, text):
    with pytest.raises(InputError, match=text):
        build_network(outer, config_of(outer, **options))
    if not isinstance(options["network"], str):
        assert planned_config(outer, PLAN, channels=1, num_classes=2, options=options)["network"] == options["network"]


def write_ct(folder: Path) -> Path:
    """Write slices of air with a disc of 60 HU, each elsewhere."""
    (folder / "images").mkdir(parents=True)
    (folder / "labels").mkdir()
    for case in range(6):
        rows, columns = np.indices((24, 24))
        inside = ((rows - 9 - case) ** 2 + (columns - 14 + case) ** 2 < 25).astype(np.uint8)[None]
        image = np.where(inside, 60, -1000).astype(np.int16)
        write_volume(folder / "images" / f"c{case}.nii.gz", Volume(image[None], np.eye(4)))
        write_labelmap(folder / "labels" / f"c{case}.nii.gz", inside, affine_ras=np.eye(4))
    return folder


@pytest.mark.parametrize(("outer", "inner"), [("shape_prior", "hu_prior"), ("hu_prior", "shape_prior")])
def test_training_gives_the_masks_hounsfield_units_and_fits_the_prior(tmp_path, monkeypatch, outer, inner):
    seen: list[torch.Tensor] = []
    add_priors = HUPriorNetwork.add_priors

    def noted(self, image):
        seen.append(image.detach())
        return add_priors(self, image)

    monkeypatch.setattr(HUPriorNetwork, "add_priors", noted)
    priors = {"prior_size": 8, "prior_latent": 4, "prior_steps": 3}
    shape = {"features_per_stage": [4, 6], "network": inner}
    options = {**shape, **priors} if outer == "shape_prior" else {**shape, "network_options": priors}
    job = TrainingJob(
        dataset=write_ct(tmp_path / "data"),
        folder=tmp_path / "m",
        network=outer,
        preset="ct",
        fold=(0, 3),
        device="cpu",
        options=TrainingOptions(steps=2, precision="float32", validate_every=0),
        network_options=options,
    )
    events = events_of(run_training, job)
    values = torch.cat([image.flatten() for image in seen if not image.is_meta])
    # Augmentation may smooth and add noise, but scaled values would lie within a few units of 0.
    assert values.min() < -900
    assert (values - 60).abs().min() < 20
    assert [scheme.scheme for scheme in read_description(job.folder).plan.normalization] == ["none"]
    assert "Learning the shapes of the labels" in [event.get("message") for event in events]
    network, _ = load_network(job.folder)
    (prior,) = [module.prior for module in network.modules() if hasattr(module, "prior_loss")]
    assert prior.is_fitted
