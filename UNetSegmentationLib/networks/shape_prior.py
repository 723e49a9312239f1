"""Network constrained by anatomy (ACNN, Oktay et al. 2017, arXiv:1705.08302): prior in the loss, gate at inference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from ..core.errors import InputError
from ..core.task import UNWATCHED, Task
from .contract import NETWORKS
from .parts.blocks import LINEAR_MODES
from .parts.shape_autoencoder import AutoencoderConfig, MaskAutoencoder, fit_autoencoder, to_probabilities
from .parts.wrapper import NamedWrapper, WrapperConfig


@dataclass(frozen=True, kw_only=True)
class ShapePriorConfig(WrapperConfig):
    """Shape of the inner network and of the prior.

    Attributes:
        prior_size: The prior sees whole masks at this many voxels along every axis, a multiple of 8; 0 means 64 in 2D
            and 32 in 3D, where a step at 64 takes ten times as long.
        prior_latent: Length of the latent vector.
        prior_steps: Optimiser steps in which the prior learns the masks of the training cases.
        prior_weight: Factor of the prior's loss; the loss is 1 for a mask as far off as another patient's.
        gate_strength: Exponent of the prior's probabilities at inference; 0 switches the gate off.
        gate_floor: Smallest probability that the prior assigns to a class, so that it never rules one out.
        gate_margin: Share of the image by which borders may deviate from those of the prior, which knows where organs
            are but reconstructs their borders only roughly.
    """

    prior_size: int = 0
    prior_latent: int = 64
    prior_steps: int = 1500
    prior_weight: float = 0.1
    gate_strength: float = 1.0
    gate_floor: float = 1e-4
    gate_margin: float = 0.05

    def __post_init__(self) -> None:
        if self.prior_size == 0:
            object.__setattr__(self, "prior_size", 64 if self.dimensions == 2 else 32)
        super().__post_init__()

    def _check(self, depth: int, axes: int) -> None:
        super()._check(depth, axes)
        requirements = (
            (self.prior_steps >= 1, f"prior_steps is {self.prior_steps}: must be at least 1"),
            (self.prior_weight >= 0, f"prior_weight is {self.prior_weight}: must be 0 or more"),
            (self.gate_strength >= 0, f"gate_strength is {self.gate_strength}: must be 0 or more"),
            (0 < self.gate_floor < 1, f"gate_floor is {self.gate_floor}: must be above 0 to below 1"),
            (0 <= self.gate_margin < 0.5, f"gate_margin is {self.gate_margin}: must be 0 to below 0.5"),
        )
        for holds, message in requirements:
            if not holds:
                raise InputError(f"ShapePriorConfig: {message}")


@NETWORKS.register("shape_prior", title="Anatomical prior (ACNN)")
class ShapePriorNetwork(NamedWrapper):
    """A network constrained by the shapes of whole masks.

    `fit_prior` learns the shapes before training; then `prior_loss` joins the loss, and in evaluation mode the class
    probabilities are multiplied by those that the prior reconstructs for this mask. Until it is fitted the prior does
    nothing. It needs whole images, so the plan's patch must cover one, as plans of radiographs do.
    """

    Config = ShapePriorConfig
    config: ShapePriorConfig

    def __init__(self, config: ShapePriorConfig) -> None:
        super().__init__(config)
        self.prior = MaskAutoencoder(
            AutoencoderConfig(
                num_classes=config.num_classes,
                dimensions=config.dimensions,
                size=config.prior_size,
                latent=config.prior_latent,
            )
        ).requires_grad_(False)

    @property
    def learning_message(self) -> str:
        """Progress message for the shapes, and those of the inner network."""
        return "; ".join(filter(None, ("Learning the shapes of the labels", super().learning_message)))

    @property
    def has_auxiliary_loss(self) -> bool:
        """The prior's."""
        return True

    def forward(self, image: Tensor) -> Tensor | list[Tensor]:
        """Map image (B, C, ...) of any size to logits (B, K, ...), in evaluation mode gated by the prior."""
        logits = super().forward(image)
        is_gated = not self.training and self.config.gate_strength > 0 and self.prior.is_fitted
        return self.gate(logits) if is_gated and isinstance(logits, Tensor) else logits

    def gate(self, logits: Tensor) -> Tensor:
        """Return logits (B, K, ...) whose probabilities are weighted by those of the nearest plausible mask.

        A class is plausible wherever the prior has it within the margin: islands far from the organ and holes deep
        inside it are removed, and borders remain those of the network.
        """
        # Multiply probabilities, not logits: a negative logit times a small weight would grow.
        log_probabilities = logits.float().log_softmax(dim=1)
        drawn = self.prior.decode(self.prior.encode(log_probabilities.exp())).softmax(dim=1).float()
        drawn = _widen(drawn, round(self.config.gate_margin * self.config.prior_size))
        plausible = F.interpolate(
            drawn, size=logits.shape[2:], mode=LINEAR_MODES[self.config.dimensions], align_corners=False
        )
        weighed = log_probabilities + self.config.gate_strength * plausible.clamp(min=self.config.gate_floor).log()
        return weighed.to(logits.dtype)

    def learn_from_labels(self, labels: Sequence[Tensor], *, seed: int, task: Task = UNWATCHED) -> None:
        """Learn the shapes of whole masks (D, H, W) or (H, W), then let the inner network learn."""
        self.fit_prior(
            [mask[0] if self.config.dimensions == 2 and mask.ndim == 3 else mask for mask in labels],
            steps=self.config.prior_steps,
            seed=seed,
            task=task,
        )
        super().learn_from_labels(labels, seed=seed, task=task)

    def auxiliary_loss(self, outputs: Tensor | list[Tensor], labels: Tensor) -> Tensor:
        """Return the prior's loss, see prior_loss, plus that of the inner network."""
        further = super().auxiliary_loss(outputs, labels)
        term = self.prior_loss(outputs, labels)
        return term if further is None else term + further

    def fit_prior(
        self,
        labels: list[Tensor],
        *,
        steps: int = 1500,
        seed: int = 0,
        task: Task = UNWATCHED,
    ) -> float:
        """Learn the shapes of whole masks and freeze them.

        Args:
            labels: Class numbers (H, W) or (D, H, W) of whole training images.
            steps: Optimiser steps.
            seed: Of the training.
            task: Checked for cancellation at every step.

        Returns:
            The prior's last loss.

        Raises:
            InputError: Fewer than two masks.
            CancelledError: The task was cancelled.
        """
        return fit_autoencoder(self.prior, labels, steps=steps, seed=seed, task=task)

    def prior_loss(self, outputs: Tensor | list[Tensor], labels: Tensor) -> Tensor:
        """Return the weighted distance between the shapes of a prediction and of the truth.

        Args:
            outputs: What the network returned in training mode.
            labels: Class numbers (B, ...); voxels below 0 count as predicted correctly.
        """
        logits = outputs if isinstance(outputs, Tensor) else outputs[0]
        probabilities = logits.float().softmax(dim=1)
        if not self.prior.is_fitted:
            return probabilities.new_zeros(())
        truth = to_probabilities(labels.clamp(min=0), self.config.num_classes)
        reference = torch.where((labels < 0).unsqueeze(1), probabilities.detach(), truth)
        return self.config.prior_weight * self.prior.distance(probabilities, reference)


def _widen(probabilities: Tensor, radius: int) -> Tensor:
    """Return for each voxel of (B, K, ...) the largest probability within `radius` voxels along every axis."""
    pooling = F.max_pool2d if probabilities.ndim == 4 else F.max_pool3d
    widened: Tensor = pooling(probabilities, 2 * radius + 1, stride=1, padding=radius)
    return widened
