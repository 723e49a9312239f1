"""Denoising autoencoder of masks: anatomy learnt from labels (ACNN, Oktay et al. 2017, arXiv:1705.08302)."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...core.errors import InputError
from ...core.task import UNWATCHED, Task
from .blocks import BlockStyle, ConvBlock, UpSample, convolution, initialise_weights

_STRETCH, _SHIFT, _TURN = 0.12, 0.12, 0.12  # shares of the image, and radians
_FLAWS = 4


@dataclass(frozen=True, kw_only=True)
class AutoencoderConfig:
    """Shape of the autoencoder.

    Attributes:
        num_classes: K, background included.
        dimensions: 2 or 3 spatial dimensions.
        size: Masks are resampled to this many voxels along every axis, a multiple of 8.
        latent: Length of the latent vector.
        features: Channels of the three stages.
    """

    num_classes: int
    dimensions: int
    size: int = 64
    latent: int = 64
    features: tuple[int, int, int] = (16, 32, 64)

    def __post_init__(self) -> None:
        if self.size < 8 or self.size % 8:
            raise InputError(f"shape prior: size is {self.size}: must be a multiple of 8")
        if self.latent < 1:
            raise InputError(f"shape prior: latent is {self.latent}: must be at least 1")


class MaskAutoencoder(nn.Module):
    """Encodes a whole mask as a short latent vector and decodes it; it only ever learns plausible masks."""

    fitted: Tensor
    scale: Tensor

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        self.config = config
        style = BlockStyle(dimensions=config.dimensions, norm="none", conv_bias=True)
        stride, coarsest = (2,) * config.dimensions, config.size // 8
        widths = (config.num_classes, *config.features)
        self.downs = nn.Sequential(*(ConvBlock(widths[i], widths[i + 1], style=style, stride=stride) for i in range(3)))
        self.coarsest = (widths[3], *(coarsest,) * config.dimensions)
        volume = widths[3] * coarsest**config.dimensions
        self.to_latent = nn.Linear(volume, config.latent)
        self.from_latent = nn.Linear(config.latent, volume)
        self.ups = nn.Sequential(
            *(
                nn.Sequential(
                    UpSample(widths[i + 1], widths[max(i, 1)], style=style, stride=stride),
                    ConvBlock(widths[max(i, 1)], widths[max(i, 1)], style=style),
                )
                for i in reversed(range(3))
            )
        )
        self.head = convolution(config.dimensions)(widths[1], config.num_classes, 1)
        self.register_buffer("scale", torch.ones(()))
        self.register_buffer("fitted", torch.zeros((), dtype=torch.bool))
        initialise_weights(self)

    @property
    def is_fitted(self) -> bool:
        """Whether it has learnt shapes; on the meta device, where operations are counted, it counts as fitted."""
        return self.fitted.is_meta or bool(self.fitted)

    def encode(self, masks: Tensor) -> Tensor:
        """Map probabilities (B, K, ...) of whole images of any size to latent vectors (B, latent), float32."""
        with _full_precision(masks.device):
            masks = masks.to(self.to_latent.weight.dtype)
            resized = F.interpolate(masks, size=(self.config.size,) * self.config.dimensions, mode="area")
            latent: Tensor = self.to_latent(self.downs(resized).flatten(1))
        return latent

    def decode(self, latent: Tensor) -> Tensor:
        """Map latent vectors (B, latent) to logits (B, K, size, ...)."""
        with _full_precision(latent.device):
            logits: Tensor = self.head(self.ups(self.from_latent(latent).unflatten(1, self.coarsest)))
        return logits

    def distance(self, masks: Tensor, reference: Tensor) -> Tensor:
        """Return the mean squared distance of the latent vectors, about 1 for masks of unrelated cases.

        Args:
            masks: Probabilities (B, K, ...).
            reference: Probabilities (B, K, ...), of any size.
        """
        difference: Tensor = (self.encode(masks) - self.encode(reference)).square().sum(dim=1).mean() / self.scale
        return difference


def to_probabilities(labels: Tensor, num_classes: int) -> Tensor:
    """Map class numbers (B, ...) to one-hot float32 (B, K, ...)."""
    return F.one_hot(labels.long(), num_classes).movedim(-1, 1).float()


def fit_autoencoder(
    autoencoder: MaskAutoencoder,
    labels: list[Tensor],
    *,
    steps: int = 1500,
    batch_size: int = 16,
    learning_rate: float = 1e-3,
    seed: int = 0,
    task: Task = UNWATCHED,
) -> float:
    """Train the autoencoder to repair corrupted masks, freeze it and return its last loss.

    Args:
        autoencoder: Trained in place.
        labels: Class numbers (H, W) or (D, H, W) of whole images, each of any size.
        steps: Optimiser steps.
        batch_size: Masks in a step.
        learning_rate: Initial learning rate of Adam; it falls to 0.
        seed: Seed of the corruptions and the order.
        task: Checked for cancellation at every step.

    Raises:
        InputError: Fewer than two masks.
        CancelledError: The task was cancelled.
    """
    if len(labels) < 2:
        raise InputError(f"a shape prior cannot be learnt from {len(labels)} mask(s): at least 2 are needed")
    config, device = autoencoder.config, autoencoder.scale.device
    generator = torch.Generator().manual_seed(seed)
    size = (config.size,) * config.dimensions
    masks = torch.cat(
        [F.interpolate(to_probabilities(entry[None], config.num_classes), size=size, mode="area") for entry in labels]
    )
    autoencoder.requires_grad_(True).train()
    optimizer = torch.optim.Adam(autoencoder.parameters(), lr=learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    loss = torch.zeros(())
    for _ in range(steps):
        task.check("cancelled while learning the shape prior")
        chosen = masks[torch.randint(len(masks), (batch_size,), generator=generator)]
        whole = move_masks(chosen, generator)
        flawed = flaw_masks(whole, generator).to(device)
        loss = F.cross_entropy(autoencoder.decode(autoencoder.encode(flawed)), whole.to(device))
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
    autoencoder.requires_grad_(False).eval()
    with torch.no_grad():
        latent = autoencoder.encode(masks.to(device))
        # The mean squared distance of two cases is twice the variance.
        autoencoder.scale.copy_(2 * latent.var(dim=0).sum())
    autoencoder.fitted.fill_(True)
    return float(loss.detach())


def move_masks(masks: Tensor, generator: torch.Generator) -> Tensor:
    """Shift, stretch and turn masks (B, K, ...) a little, so that a few of them cover many poses."""
    batch, axes = len(masks), masks.ndim - 2
    matrix = torch.eye(axes).repeat(batch, 1, 1)
    matrix = matrix * (1 + _STRETCH * _uniform((batch, 1, axes), generator))
    angle = _TURN * _uniform((batch,), generator)
    turn = torch.eye(axes).repeat(batch, 1, 1)
    turn[:, 0, 0] = turn[:, 1, 1] = angle.cos()
    turn[:, 0, 1], turn[:, 1, 0] = -angle.sin(), angle.sin()
    shift = 2 * _SHIFT * _uniform((batch, axes, 1), generator)
    grid = F.affine_grid(torch.cat([turn @ matrix, shift], dim=2), list(masks.shape), align_corners=False)
    return F.grid_sample(masks, grid, padding_mode="border", align_corners=False)


def flaw_masks(masks: Tensor, generator: torch.Generator) -> Tensor:
    """Put a few boxes of a wrong class into each mask (B, K, ...): islands, holes and cut-off parts."""
    flawed = masks.clone()
    classes, size = masks.shape[1], torch.tensor(masks.shape[2:])
    for mask in flawed:
        for _ in range(int(torch.randint(_FLAWS + 1, (), generator=generator))):
            extent = (size * (0.05 + 0.3 * torch.rand(len(size), generator=generator))).long().clamp(min=1)
            first = (torch.rand(len(size), generator=generator) * (size - extent + 1)).long()
            box = tuple(slice(int(start), int(start + length)) for start, length in zip(first, extent, strict=True))
            strength = 0.5 + 0.5 * torch.rand((), generator=generator)
            mask[(slice(None), *box)] *= 1 - strength
            mask[(int(torch.randint(classes, (), generator=generator)), *box)] += strength
    return flawed


def _full_precision(device: torch.device) -> AbstractContextManager[object]:
    # Meta tensors do not support autocast.
    return nullcontext() if device.type == "meta" else torch.autocast(device.type, enabled=False)


def _uniform(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Return numbers from -1 to 1."""
    return 2 * torch.rand(shape, generator=generator) - 1
