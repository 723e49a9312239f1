"""U-Net++ (Zhou et al. 2018, arXiv:1807.10165): nested dense skips, deep supervision, pruning."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from ..core.errors import InputError
from .contract import NETWORKS, SegmentationNetwork
from .parts.blocks import Stage, Tap, UpSample, initialise_weights, make_head
from .unet import Encoder, UNetConfig


@dataclass(frozen=True, kw_only=True)
class UNetPlusPlusConfig(UNetConfig):
    """Shape of a U-Net++.

    Attributes:
        pruning_level: In evaluation mode compute only the U-Net of this depth, 1 to the number of stages minus 1, and
            return its logits; 0 computes all. Needs deep supervision, which trains the shallower heads.
    """

    upsampling: str = "linear"
    pruning_level: int = 0

    def _check(self, depth: int, axes: int) -> None:
        super()._check(depth, axes)
        if depth < 2:
            raise InputError("UNetPlusPlusConfig: features_per_stage has one entry: needs at least 2")
        if not 0 <= self.pruning_level < depth:
            raise InputError(f"UNetPlusPlusConfig: pruning_level is {self.pruning_level}: must be 0 to {depth - 1}")
        if self.pruning_level and not self.deep_supervision:
            raise InputError("UNetPlusPlusConfig: pruning_level needs deep_supervision: switch it on and retrain")


class Node(nn.Module):
    """One node X(level, depth) of the nest: takes all earlier nodes of its level and the up-sampled one below.

    Args:
        config: Shape of the network.
        level: Encoder stage whose grid it has.
        depth: Nodes before it on the same level.
    """

    def __init__(self, config: UNetPlusPlusConfig, *, level: int, depth: int) -> None:
        super().__init__()
        features = config.features_per_stage
        self.up = UpSample(
            features[level + 1],
            features[level],
            style=config.style,
            stride=config.strides[level + 1],
            mode=config.upsampling,
        )
        self.stage = Stage(
            depth * features[level] + self.up.out_channels,
            features[level],
            style=config.style,
            convs=config.convs_per_stage,
            kernel=config.kernel_sizes[level],
        )
        self.tap = Tap("skip", level)

    def forward(self, earlier: list[Tensor], below: Tensor) -> Tensor:
        """Map earlier nodes (B, C, ...) and the coarser node below to features (B, C, ...)."""
        result: Tensor = self.tap(self.stage(torch.cat([*earlier, self.up(below)], dim=1)))
        return result


@NETWORKS.register("unet_plus_plus", title="U-Net++")
class UNetPlusPlus(SegmentationNetwork):
    """U-Nets of every depth that share an encoder; with deep supervision each has a head on the image's grid.

    The list in training mode holds the deepest first, all at the finest stride. In evaluation mode it returns the
    logits of the deepest head (the paper's fast mode), or of depth `pruning_level`.
    """

    Config = UNetPlusPlusConfig
    config: UNetPlusPlusConfig

    def __init__(self, config: UNetPlusPlusConfig) -> None:
        super().__init__(config)
        depth = len(config.features_per_stage)
        self.encoder = Encoder(config)
        self.nodes = nn.ModuleDict(
            {
                f"{level}_{column}": Node(config, level=level, depth=column)
                for column in range(1, depth)
                for level in range(depth - column)
            }
        )
        self.heads = nn.ModuleDict(
            {
                str(column): make_head(config.features_per_stage[0], config)
                for column in (range(1, depth) if config.deep_supervision else (depth - 1,))
            }
        )
        initialise_weights(self)

    def forward_aligned(self, image: Tensor) -> Tensor | list[Tensor]:
        """Map image (B, C, D, H, W) or (B, C, H, W) to logits (B, K, same size), or to a list, deepest first."""
        pruned = 0 if self.training else self.config.pruning_level
        columns = pruned or len(self.config.features_per_stage) - 1
        rows = [[stage] for stage in self.encoder(image, stages=columns + 1)]
        for column in range(1, columns + 1):
            for level in range(columns + 1 - column):
                rows[level].append(self.nodes[f"{level}_{column}"](rows[level], rows[level + 1][column - 1]))
        if self.training and self.config.deep_supervision:
            return [self.heads[str(column)](rows[0][column]) for column in reversed(range(1, columns + 1))]
        logits: Tensor = self.heads[str(columns)](rows[0][columns])
        return logits

    def pruned(self, level: int) -> UNetPlusPlus:
        """Return a network with only the U-Net of depth `level`, equal to evaluating with that `pruning_level`.

        Args:
            level: 1 to the number of stages minus 1.

        Raises:
            InputError: The level is out of range, or the network was not deeply supervised.
        """
        if level < 1:
            raise InputError(f"cannot prune to level {level}: must be 1 to {len(self.config.features_per_stage) - 1}")
        replace(self.config, pruning_level=level)
        shallower = replace(
            self.config,
            features_per_stage=self.config.features_per_stage[: level + 1],
            strides=self.config.strides[: level + 1],
            kernel_sizes=self.config.kernel_sizes[: level + 1],
            pruning_level=0,
        )
        network = UNetPlusPlus(shallower)
        state = self.state_dict()
        network.load_state_dict({name: state[name] for name in network.state_dict()})
        return network.train(self.training)
