"""The contract of every loss: a checked configuration, an ignored label, float32 arithmetic, finite values."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from math import isfinite
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ..core.errors import InputError
from ..core.json_dataclass import JsonDataclass
from ..core.registry import Registry

ACTIVATIONS = ("softmax", "sigmoid")
IGNORED = -1
_HALF = (torch.float16, torch.bfloat16)


@dataclass(frozen=True, kw_only=True)
class LossConfig(JsonDataclass):
    """Options that every loss has; losses with further options extend it, always with defaults.

    A loss scores R outputs: the regions if any are named, otherwise the K classes.

    Attributes:
        ignore_label: Label of voxels to ignore, or None.
        class_weights: One non-negative weight per output, in the order of the classes (background first) or regions.
            Empty: all equal.
        regions: Groups of labels that may overlap, such as ((1, 2, 3), (1, 3), (3,)) for whole tumour, core and
            enhancing part. Each is scored as foreground against everything else. Empty: every class on its own.
        activation: "softmax": the K channels are mutually exclusive; a region's probability is the sum over its labels.
            "sigmoid": channel r stands for output r alone.
    """

    ignore_label: int | None = IGNORED
    class_weights: tuple[float, ...] = ()
    regions: tuple[tuple[int, ...], ...] = ()
    activation: str = "softmax"

    def __post_init__(self) -> None:
        # Tuples keep the dataclass hashable.
        object.__setattr__(self, "class_weights", tuple(self.class_weights))
        object.__setattr__(self, "regions", tuple(tuple(region) for region in self.regions))
        weights = self.class_weights
        self.require(
            all(isfinite(weight) and weight >= 0 for weight in weights),
            f"class_weights are {weights}: must be finite numbers of at least 0",
        )
        self.require(not weights or max(weights) > 0, "class_weights are all 0: at least one must be above 0")
        self.require(all(self.regions), "a region has no label: name at least one label in each")
        self.require(
            all(label >= 0 for region in self.regions for label in region),
            "regions contain a negative label: must be 0 or more",
        )
        self.require(
            not (weights and self.regions) or len(weights) == len(self.regions),
            f"class_weights has {len(weights)} numbers for {len(self.regions)} regions: must be one per region",
        )
        self.require(
            self.activation in ACTIVATIONS, f"activation is '{self.activation}': choose {' or '.join(ACTIVATIONS)}"
        )


class SegmentationLoss(nn.Module, ABC):
    """Scores logits (B, K, ...) against labels (B, ...), in 2D and 3D alike.

    Half-precision logits are scored in float32, double ones in double, also under autocast. Voxels of the ignored
    label have no influence; if no voxel is left to score, the loss and its gradient are 0.

    Args:
        config: Options of `Config`; defaults if None.
    """

    Config: ClassVar[type[LossConfig]] = LossConfig

    class_weights: Tensor
    region_table: Tensor

    def __init__(self, config: LossConfig | None = None) -> None:
        super().__init__()
        self.config = self.Config() if config is None else config
        self.register_buffer("class_weights", torch.tensor(self.config.class_weights), persistent=False)
        self.register_buffer("region_table", _region_table(self.config.regions), persistent=False)

    @abstractmethod
    def compare(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the loss of float logits (B, K, ...) for labels (B, ...) in which ignored voxels are `IGNORED`."""

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the loss, a scalar, of logits (B, K, ...) for integer labels (B, ...).

        Raises:
            InputError: The shapes do not fit, a label has no output, or the weights do not fit the outputs.
        """
        self._check_shapes(logits, target)
        with torch.autocast(logits.device.type, enabled=False):
            scored = logits.float() if logits.dtype in _HALF else logits
            return self.compare(scored, self._mark_ignored(target.long()))

    @property
    def is_exclusive(self) -> bool:
        """Whether each voxel belongs to exactly one output."""
        return self.config.activation == "softmax" and not self.config.regions

    @property
    def is_mean_over_images(self) -> bool:
        """Whether the loss of a batch is the mean of its images' losses, provided that no voxel is ignored."""
        return False

    def splits(self, target: Tensor) -> bool:
        """Whether the loss for labels (B, ...) equals the mean of the losses of the images, for any logits."""
        return self.is_mean_over_images and not bool((self._mark_ignored(target) == IGNORED).any())

    def probabilities(self, logits: Tensor) -> Tensor:
        """Map logits (B, K, ...) to the probability of every output (B, R, ...)."""
        return logits.softmax(dim=1) if self.is_exclusive else self.output_logits(logits).sigmoid()

    def output_logits(self, logits: Tensor) -> Tensor:
        """Map logits (B, K, ...) to the log odds of every output against the rest (B, R, ...)."""
        if self.config.activation == "sigmoid":
            return logits
        regions = self.config.regions or tuple((label,) for label in range(logits.shape[1]))
        return torch.stack([_log_odds(logits, region) for region in regions], dim=1)

    def membership(self, target: Tensor, num_classes: int) -> Tensor:
        """Map labels (B, ...) to membership of each voxel in each output, bool (B, R, ...); ignored voxels in none."""
        if not self.config.regions:
            labels = torch.arange(num_classes, device=target.device)
            return target.unsqueeze(1) == labels.view(1, -1, *(1,) * (target.ndim - 1))
        inside = self.region_table[:, target.clamp(min=0, max=self.region_table.shape[1] - 1)]
        return inside.transpose(0, 1) & (target != IGNORED).unsqueeze(1)

    def weights_like(self, scores: Tensor) -> Tensor:
        """Return the class weights (R) for scores (B, R, ...), on their device and in their type."""
        if self.class_weights.numel():
            return self.class_weights.to(scores)
        return scores.new_ones(scores.shape[1])

    def _mark_ignored(self, target: Tensor) -> Tensor:
        ignored = self.config.ignore_label
        return target if ignored in (None, IGNORED) else target.masked_fill(target == ignored, IGNORED)

    def _check_shapes(self, logits: Tensor, target: Tensor) -> None:
        if target.shape != (logits.shape[0], *logits.shape[2:]):
            raise InputError(
                f"labels {tuple(target.shape)} do not fit logits {tuple(logits.shape)}: need (B, ...) for (B, K, ...)"
            )
        if target.is_floating_point() or target.dtype == torch.bool:
            raise InputError(f"labels are {target.dtype}: must be integers")
        outputs, channels = len(self.config.regions), logits.shape[1]
        if outputs and self.config.activation == "sigmoid" and outputs != channels:
            raise InputError(f"logits have {channels} channels for {outputs} regions: must be one per region")
        if outputs and self.config.activation == "softmax" and self.region_table.shape[1] > channels + 1:
            raise InputError(f"regions name labels up to {self.region_table.shape[1] - 2} but logits have {channels}")
        if self.class_weights.numel() not in (0, outputs or channels):
            raise InputError(f"class_weights has {self.class_weights.numel()} numbers for {channels} classes")
        self._check_labels(target, None if outputs and self.config.activation == "sigmoid" else channels)

    def _check_labels(self, target: Tensor, num_classes: int | None) -> None:
        # Reading values back from an accelerator would stall it in every step.
        if target.device.type != "cpu" or target.numel() == 0:
            return
        ignored = self.config.ignore_label
        low, high = (int(value) for value in target.aminmax())
        if ignored is not None and ignored in (low, high):
            low, high = (int(value) for value in target.masked_fill(target == ignored, 0).aminmax())
        if low < 0 or (num_classes is not None and high >= num_classes):
            allowed = "0 or more" if num_classes is None else f"0 to {num_classes - 1}"
            raise InputError(
                f"labels range from {low} to {high} but {allowed} is allowed (ignored: {self.config.ignore_label}): "
                f"map the labels or raise num_classes"
            )


def weighted_mean(values: Tensor, weights: Tensor) -> Tensor:
    """Return the mean of `values` weighted by `weights`, which broadcast; 0 if all weights are 0."""
    spread = weights.expand_as(values)
    total = spread.sum()
    return (values * spread).sum() / torch.where(total > 0, total, torch.ones_like(total))


def _region_table(regions: tuple[tuple[int, ...], ...]) -> Tensor:
    """Return whether region r holds label l, bool (R, L + 1); the last column stands for every label above."""
    num_labels = 1 + max((label for region in regions for label in region), default=-1)
    table = torch.zeros((len(regions), num_labels + 1), dtype=torch.bool)
    for row, region in enumerate(regions):
        table[row, list(region)] = True
    return table


def _log_odds(logits: Tensor, region: tuple[int, ...]) -> Tensor:
    """Return the softmax log odds (B, ...) of the labels of `region` against the others."""
    others = [label for label in range(logits.shape[1]) if label not in region]
    if not others:
        raise InputError(f"region {region} contains every class: leave out at least the background")
    return logits[:, list(region)].logsumexp(dim=1) - logits[:, others].logsumexp(dim=1)


LOSSES: Registry[type[SegmentationLoss]] = Registry("loss", "UNetSegmentationLib.losses")


def build_loss(name: str, config: dict[str, Any] | None = None) -> SegmentationLoss:
    """Return the registered loss `name` for a JSON configuration.

    Raises:
        InputError: Unknown name or option, or a value out of range.
    """
    loss = LOSSES[name]
    return loss(loss.Config.from_dict(config or {}))
