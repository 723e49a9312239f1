"""The contract of every network: a checked configuration, any input size, logits on the input's grid."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..core.json_dataclass import JsonDataclass
from ..core.registry import Registry
from ..core.task import UNWATCHED, Task

NORMS = ("instance", "batch", "group", "none")
ACTIVATIONS = ("leaky_relu", "relu", "prelu", "elu")


@dataclass(frozen=True, kw_only=True)
class NetworkConfig(JsonDataclass):
    """Shape of a network; networks with further options extend it, always with defaults.

    Attributes:
        in_channels: C, channels of the image.
        num_classes: K, background included.
        dimensions: 2 or 3 spatial dimensions.
        features_per_stage: Channels after each encoder stage, finest first; its length is the depth.
        strides: One (D, H, W) or (H, W) tuple per stage; the first is all ones. Empty: 2 along each axis after stage 0.
        kernel_sizes: One tuple per stage. Empty: 3 along every axis.
        convs_per_stage: Convolutions in an encoder or decoder stage.
        norm: One of NORMS.
        activation: One of ACTIVATIONS.
        residual: Stages add their input to their output.
        deep_supervision: In training mode the network returns logits of every decoder level, finest first.
        dropout: Probability of dropping a feature map after each stage, 0 to below 1.
    """

    in_channels: int
    num_classes: int
    dimensions: int = 3
    features_per_stage: tuple[int, ...] = (16, 32, 64, 128)
    strides: tuple[tuple[int, ...], ...] = ()
    kernel_sizes: tuple[tuple[int, ...], ...] = ()
    convs_per_stage: int = 2
    norm: str = "instance"
    activation: str = "leaky_relu"
    residual: bool = False
    deep_supervision: bool = False
    dropout: float = 0.0

    def __post_init__(self) -> None:
        depth, axes = len(self.features_per_stage), self.dimensions
        # Tuples keep the dataclass hashable.
        object.__setattr__(self, "features_per_stage", tuple(self.features_per_stage))
        strides = tuple(tuple(s) for s in self.strides) or ((1,) * axes,) + ((2,) * axes,) * (depth - 1)
        kernels = tuple(tuple(k) for k in self.kernel_sizes) or ((3,) * axes,) * depth
        object.__setattr__(self, "strides", strides)
        object.__setattr__(self, "kernel_sizes", kernels)
        self._check(depth, axes)

    def _check(self, depth: int, axes: int) -> None:
        requirements = (
            (self.in_channels >= 1, f"in_channels is {self.in_channels}: must be at least 1"),
            (self.num_classes >= 2, f"num_classes is {self.num_classes}: must be at least 2 (background counts)"),
            (axes in (2, 3), f"dimensions is {axes}: must be 2 or 3"),
            (depth >= 1 and min(self.features_per_stage, default=0) >= 1, "features_per_stage needs positive numbers"),
            (
                len(self.strides) == depth,
                f"strides has {len(self.strides)} entries for {depth} stages: must be one per stage",
            ),
            (len(self.kernel_sizes) == depth, f"kernel_sizes has {len(self.kernel_sizes)} entries for {depth} stages"),
            (
                all(len(s) == axes for s in self.strides + self.kernel_sizes),
                f"strides and kernels need {axes} numbers each",
            ),
            (all(min(s) >= 1 for s in self.strides), "strides must be at least 1"),
            (all(k % 2 == 1 for kernel in self.kernel_sizes for k in kernel), "kernel sizes must be odd"),
            (set(self.strides[0]) == {1}, f"the first stride is {self.strides[0]}: logits need it to be all ones"),
            (self.convs_per_stage >= 1, f"convs_per_stage is {self.convs_per_stage}: must be at least 1"),
            (self.norm in NORMS, f"norm is '{self.norm}': choose one of {', '.join(NORMS)}"),
            (
                self.activation in ACTIVATIONS,
                f"activation is '{self.activation}': choose one of {', '.join(ACTIVATIONS)}",
            ),
            (0 <= self.dropout < 1, f"dropout is {self.dropout}: must be 0 to below 1"),
        )
        for holds, message in requirements:
            self.require(holds, message)

    @property
    def total_stride(self) -> tuple[int, ...]:
        """Ratio of the finest to the coarsest grid along each axis."""
        return tuple(prod(stride[axis] for stride in self.strides) for axis in range(self.dimensions))


class SegmentationNetwork(nn.Module, ABC):
    """Maps image (B, C, D, H, W) or (B, C, H, W) of any size to logits (B, K, same size).

    Subclasses implement `forward_aligned` for multiples of `alignment`; padding and cropping happen here.
    In training mode with deep supervision the result is a list, finest first; coarser logits have the padded size
    divided by the strides so far.
    """

    Config: ClassVar[type[NetworkConfig]] = NetworkConfig
    # A plan with more stages is cut to this number; None keeps all.
    most_stages: ClassVar[int | None] = None
    # Kernel size along axes for which a plan has 3.
    planned_kernel: ClassVar[int] = 3

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config

    @property
    def alignment(self) -> tuple[int, ...]:
        """Sizes must be multiples of this along each axis; by default the total stride."""
        return self.config.total_stride

    @property
    def accepts_missing_channels(self) -> bool:
        """Whether a channel of NaN stands for a missing one; by default every channel is required."""
        return False

    @property
    def raw_channels(self) -> tuple[int, ...]:
        """Channels that must not be normalised, such as HU; the plan normalises the others."""
        return ()

    @property
    def learning_message(self) -> str:
        """Progress message for learn_from_labels; empty if it does nothing."""
        return ""

    @property
    def has_auxiliary_loss(self) -> bool:
        """Whether auxiliary_loss returns a term; it needs the outputs of a whole batch."""
        return False

    @classmethod
    def planned_network(cls, options: Mapping[str, Any]) -> type[SegmentationNetwork]:  # noqa: ARG003
        """Return the network whose most_stages and planned_kernel hold for a plan: this one, by default.

        Args:
            options: Options of the configuration as JSON, not checked yet.
        """
        return cls

    def learn_from_labels(self, labels: Sequence[Tensor], *, seed: int, task: Task = UNWATCHED) -> None:
        """Learn from the labels before training; by default nothing.

        Args:
            labels: Class numbers (D, H, W), or (H, W), of whole training images.
            seed: Seed of all draws.
            task: Often checked for cancellation.

        Raises:
            CancelledError: The task was cancelled.
        """

    def auxiliary_loss(self, outputs: Tensor | list[Tensor], labels: Tensor) -> Tensor | None:  # noqa: ARG002
        """Return a term to add to the loss, or None.

        Args:
            outputs: What the network returned in training mode.
            labels: Class numbers (B, ...).
        """
        return None

    @abstractmethod
    def forward_aligned(self, image: Tensor) -> Tensor | list[Tensor]:
        """Map an image whose size is a multiple of `alignment` to logits, or to a list of them, finest first."""

    def forward(self, image: Tensor) -> Tensor | list[Tensor]:
        """Map image (B, C, ...) of any size to logits (B, K, ...)."""
        size = image.shape[2:]
        missing = [-extent % step for extent, step in zip(size, self.alignment, strict=True)]
        if not any(missing):
            return self.forward_aligned(image)
        # Padding only at the far end keeps voxel 0 in place, so that coarser logits stay aligned.
        padding = [amount for extent in reversed(missing) for amount in (0, extent)]
        logits = self.forward_aligned(
            F.pad(image, padding, mode="replicate" if self._can_replicate(image) else "constant")
        )
        if isinstance(logits, Tensor):
            return _crop(logits, size)
        return [_crop(logits[0], size), *logits[1:]]

    @staticmethod
    def _can_replicate(image: Tensor) -> bool:
        # Replicate padding has no half-precision kernel for 5-D input on every backend.
        return image.dtype in (torch.float32, torch.float64)


def _crop(logits: Tensor, size: torch.Size) -> Tensor:
    return logits[(slice(None), slice(None), *(slice(0, extent) for extent in size))]


NETWORKS: Registry[type[SegmentationNetwork]] = Registry("network", "UNetSegmentationLib.networks")


def build_network(name: str, config: dict[str, Any]) -> SegmentationNetwork:
    """Return the registered network `name` for a JSON configuration.

    Raises:
        InputError: Unknown name or option, or a value out of range.
    """
    network = NETWORKS[name]
    return network(network.Config.from_dict(config))
