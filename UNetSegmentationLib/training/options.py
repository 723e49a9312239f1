"""Training options."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ..core.errors import InputError
from ..core.json_dataclass import JsonDataclass

PRECISIONS = ("auto", "float32", "bfloat16")
UNLIMITED_STEPS = 1_000_000  # far more than fit into any time budget


@dataclass(frozen=True, kw_only=True)
class TrainingOptions(JsonDataclass):
    """Duration and hyperparameters of a training.

    Attributes:
        steps: Optimiser steps; with `minutes`, an upper limit.
        minutes: Time budget of the loop; None for none. The learning rate follows the budget closer to its end.
        learning_rate: Initial rate of AdamW; it decays to 0 as the remaining share ^ `poly_power`. Hippocampus,
            350 steps, U-Net++: Dice 0.79 from 0.001, 0.84 from 0.004, 0.85 from 0.012.
        weight_decay: Weight decay of AdamW.
        poly_power: Exponent of the decay.
        gradient_clip: Largest norm of the gradient.
        loss: Registered name.
        loss_options: Options of the loss, as JSON.
        foreground_share: Share of the patches centred on a labelled voxel.
        ema_decay: Decay of the moving average of the weights, which is what is saved.
        validate_every: Steps between validations; 0 for only the last.
        checkpoint_every_s: Seconds between checkpoints.
        precision: "float32", "bfloat16" (mixed) or "auto": whichever a short measurement finds faster.
        has_fixed_statistics: Batch norm keeps its initial means and variances, as for fine-tuning on few images.
        seed: Seed of initialisation, patches and augmentation.
    """

    steps: int = 1250
    minutes: float | None = None
    learning_rate: float = 5e-3
    weight_decay: float = 1e-2
    poly_power: float = 0.9
    gradient_clip: float = 12.0
    loss: str = "dice_cross_entropy"
    loss_options: dict[str, Any] = field(default_factory=dict, hash=False)
    foreground_share: float = 0.5
    ema_decay: float = 0.99
    validate_every: int = 250
    checkpoint_every_s: float = 60.0
    precision: str = "auto"
    has_fixed_statistics: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        requirements = (
            (self.steps >= 1, f"steps is {self.steps}: must be at least 1"),
            (self.minutes is None or self.minutes > 0, f"minutes is {self.minutes}: must be above 0"),
            (self.validate_every >= 0, f"validate_every is {self.validate_every}: must be 0 or more"),
            (self.learning_rate > 0, f"learning_rate is {self.learning_rate}: must be above 0"),
            (0 <= self.foreground_share <= 1, f"foreground_share is {self.foreground_share}: must be 0 to 1"),
            (0 <= self.ema_decay < 1, f"ema_decay is {self.ema_decay}: must be 0 to below 1"),
            (self.precision in PRECISIONS, f"precision is '{self.precision}': choose {', '.join(PRECISIONS)}"),
        )
        for holds, message in requirements:
            if not holds:
                raise InputError(f"training: {message}")
