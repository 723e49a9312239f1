"""MRI of several sequences, fused by the mean and variance of those present (HeMIS, Havaei 2016, arXiv:1607.05194)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from ..core.errors import InputError
from .contract import NETWORKS, SegmentationNetwork
from .parts.blocks import initialise_weights
from .unet import Decoder, Encoder, UNetConfig


@dataclass(frozen=True, kw_only=True)
class SequenceFusionConfig(UNetConfig):
    """Shape of a fusion network; channel c of the image is sequence c, and channels that describe others come last.

    Attributes:
        sequences: Names of the sequences in the order of the channels; empty: numbered.
        sequence_dropout: Probability of leaving a sequence out of a training image; at least one stays.
        shares_encoder: One encoder for all sequences instead of one each: the order of sequences then does not matter.
        described: For each of the last channels the sequence that it describes, for instance as a tissue mask; it
            enters the encoder of that sequence, and is missing if the sequence is.
    """

    sequences: tuple[str, ...] = ()
    sequence_dropout: float = 0.5
    shares_encoder: bool = False
    described: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "described", tuple(self.described))
        names = tuple(self.sequences) or tuple(f"sequence {index + 1}" for index in range(self.num_sequences))
        object.__setattr__(self, "sequences", names)
        super().__post_init__()

    def _check(self, depth: int, axes: int) -> None:
        super()._check(depth, axes)
        if len(self.sequences) != self.num_sequences:
            raise InputError(
                f"{type(self).__name__}: {len(self.sequences)} sequences are named for {self.num_sequences} channels: "
                "name one per channel"
            )
        if not all(0 <= index < self.num_sequences for index in self.described):
            raise InputError(
                f"{type(self).__name__}: described is {self.described}: must be 0 to {self.num_sequences - 1}, "
                "for fewer channels than the image has"
            )
        if self.described and self.shares_encoder:
            raise InputError(
                f"{type(self).__name__}: a shared encoder cannot take channels that describe one sequence alone: leave "
                "out shares_encoder or described"
            )
        if not 0 <= self.sequence_dropout < 1:
            raise InputError(
                f"{type(self).__name__}: sequence_dropout is {self.sequence_dropout}: must be 0 to below 1"
            )

    @property
    def num_sequences(self) -> int:
        """S, number of sequences."""
        return self.in_channels - len(self.described)

    def channels_of(self, sequence: int) -> list[int]:
        """Return the channels that go into the encoder of a sequence: its own, and those that describe it."""
        last = enumerate(self.described, start=self.num_sequences)
        return [sequence, *(channel for channel, described in last if described == sequence)]


@NETWORKS.register("sequence_fusion", title="MRI sequence fusion")
class SequenceFusion(SegmentationNetwork):
    """One encoder per sequence; at every level the decoder sees the mean and variance over the present sequences.

    A sequence is missing if the caller says so or its channel contains NaN. It then has no influence on the
    logits and its encoder gets no gradient from that image.
    """

    Config: ClassVar[type[SequenceFusionConfig]] = SequenceFusionConfig
    config: SequenceFusionConfig

    def __init__(self, config: SequenceFusionConfig) -> None:
        super().__init__(config)
        encoders = 1 if config.shares_encoder else config.num_sequences
        self.encoders = nn.ModuleList(
            Encoder(config, in_channels=len(config.channels_of(index))) for index in range(encoders)
        )
        self.decoder = Decoder(config, skip_channels=[2 * width for width in config.features_per_stage])
        initialise_weights(self)

    @property
    def accepts_missing_channels(self) -> bool:
        """Any sequence may be missing."""
        return True

    def forward(self, image: Tensor, present: Tensor | None = None) -> Tensor | list[Tensor]:
        """Map image (B, C, ...) of any size to logits (B, K, ...).

        Args:
            image: One channel a sequence, then those that describe one; the content of a missing one does not matter.
            present: Bool (B, S); by default false if a sequence contains NaN (all of it, or all but a margin).

        Raises:
            InputError: An image has no sequence, or `present` is not (B, S).
        """
        expected = (len(image), self.config.num_sequences)
        if present is None:
            present = find_present(image)[:, : self.config.num_sequences]
        if present.shape != expected:
            raise InputError(f"present is {tuple(present.shape)}: must be (B, S) = {expected}")
        if not present.any(dim=1).all():
            raise InputError("an image has no sequence: at least one is needed")
        if self.training and self.config.sequence_dropout:
            present = drop_sequences(present, self.config.sequence_dropout)
        if not present.all():
            is_given = torch.cat([present, present[:, list(self.config.described)]], dim=1)
            mask = is_given.reshape(*is_given.shape, *(1,) * self.config.dimensions)
            # From here on NaN marks missing sequences, including the margin that padding adds.
            image = torch.where(mask, image, torch.nan)
        return super().forward(image)

    def forward_aligned(self, image: Tensor) -> Tensor | list[Tensor]:
        """Map image (B, C, ...) whose missing channels are NaN to logits (B, K, ...)."""
        present = find_present(image)[:, : self.config.num_sequences]
        given = [index for index, is_given in enumerate(present.any(dim=0).tolist()) if is_given]
        sequences = [
            _encode_present(
                self.encoders[0 if self.config.shares_encoder else index],
                image[:, self.config.channels_of(index)],
                present[:, index],
            )
            for index in given
        ]
        fused = [fuse(torch.stack(level), present[:, given]) for level in zip(*sequences, strict=True)]
        logits: Tensor | list[Tensor] = self.decoder(fused)
        return logits


def find_present(image: Tensor) -> Tensor:
    """Return bool (B, C): which channels of image (B, C, ...) contain no NaN."""
    if image.is_meta:  # no values, only counting operations: nothing is missing
        return torch.ones(image.shape[:2], dtype=torch.bool, device="cpu")
    return ~image.isnan().flatten(2).any(dim=2)


def _encode_present(encoder: nn.Module, channels: Tensor, present: Tensor) -> list[Tensor]:
    """Return the encoder's features (B, ...) of the present images of channels (B, C, ...), and zeros for the others.

    Missing images skip the encoder, so that they cannot enter the statistics of a batch norm.
    """
    rows = present.nonzero().flatten()
    if len(rows) == len(channels):
        features: list[Tensor] = encoder(channels)
        return features
    known = encoder(channels[rows])
    return [entry.new_zeros((len(channels), *entry.shape[1:])).index_add(0, rows, entry) for entry in known]


def fuse(features: Tensor, present: Tensor) -> Tensor:
    """Return mean and variance over the present sequences, (B, 2C, ...).

    Args:
        features: (S, B, C, ...), zero where a sequence is missing.
        present: Bool (B, S).
    """
    if present.all():
        return torch.cat([features.mean(dim=0), features.var(dim=0, correction=0)], dim=1)
    weights = present.T.reshape(*present.T.shape, *(1,) * (features.ndim - 2)).to(features.dtype)
    count = weights.sum(dim=0)
    mean = (features * weights).sum(dim=0) / count
    variance = ((features - mean).square() * weights).sum(dim=0) / count
    return torch.cat([mean, variance], dim=1)


def drop_sequences(present: Tensor, probability: float) -> Tensor:
    """Return bool (B, C) with sequences dropped at random; every image keeps at least one."""
    draws = torch.rand(present.shape, device=present.device).masked_fill(~present, -1)
    kept = draws >= probability
    kept[torch.arange(len(draws), device=present.device), draws.argmax(dim=1)] = True
    return kept & present
