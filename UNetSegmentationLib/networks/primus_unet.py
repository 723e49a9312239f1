"""Transformer encoder with rotary embedding after Primus (Wald et al. 2025, arXiv:2503.01835), small, with skips."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..core.errors import InputError
from .contract import NETWORKS, NetworkConfig, SegmentationNetwork
from .parts.blocks import BlockStyle, Stage, Tap, UpSample, convolution, initialise_weights, make_head

_SLOWEST_PERIOD = 100.0  # tokens; patches are a dozen or two tokens wide


@dataclass(frozen=True, kw_only=True)
class PrimusConfig(NetworkConfig):
    """Shape of the transformer; a token covers the total stride, and the decoder has the stages' widths.

    Attributes:
        embedding: Channels of a token; a multiple of twice `dimensions` times `heads`.
        blocks: Transformer blocks.
        heads: Attention heads.
        expansion: Width of the layer inside a block's feed-forward part, as a multiple of the embedding.
        skips: Strided convolutions of the stages' widths make the tokens, and their features are skips of the decoder,
            as in TransUNet (Chen et al. 2021, arXiv:2102.04306). Without them, borders come from tokens alone.
    """

    convs_per_stage: int = 1
    embedding: int = 192
    blocks: int = 6
    heads: int = 4
    expansion: int = 3
    skips: bool = True

    def _check(self, depth: int, axes: int) -> None:
        super()._check(depth, axes)
        unit = 2 * axes * max(self.heads, 1)
        requirements = (
            (min(self.heads, self.blocks, self.expansion) >= 1, "heads, blocks and expansion must be at least 1"),
            (
                self.embedding >= 1 and self.embedding % unit == 0,
                f"embedding is {self.embedding}: must be a multiple of {unit} (2 x dimensions x heads)",
            ),
        )
        for holds, message in requirements:
            if not holds:
                raise InputError(f"PrimusConfig: {message}")


def rotary_angles(grid: tuple[int, ...], pairs: int, *, device: torch.device) -> Tensor:
    """Return the angles (N, pairs) of a token grid: each axis rotates an equal share of the pairs (arXiv:2104.09864).

    Args:
        grid: Tokens along each axis; N is their product.
        pairs: Pairs of channels, a multiple of the number of axes.
        device: Device of the result.
    """
    share = pairs // len(grid)
    speeds = _SLOWEST_PERIOD ** (-torch.arange(share, device=device, dtype=torch.float32) / max(share, 1))
    positions = torch.meshgrid(*(torch.arange(size, device=device) for size in grid), indexing="ij")
    return torch.cat([position.flatten()[:, None] * speeds for position in positions], dim=1)


def rotate(tokens: Tensor, angles: Tensor) -> Tensor:
    """Turn the channel pairs of tokens (B, heads, N, 2 * pairs) by angles (N, pairs)."""
    cosine, sine = angles.cos().to(tokens.dtype), angles.sin().to(tokens.dtype)
    first, second = tokens.chunk(2, dim=-1)
    return torch.cat([first * cosine - second * sine, first * sine + second * cosine], dim=-1)


class Block(nn.Module):
    """Self-attention and a gated feed-forward layer, each after a norm and with a shortcut (arXiv:2002.05202)."""

    def __init__(self, config: PrimusConfig) -> None:
        super().__init__()
        width, inner = config.embedding, config.embedding * config.expansion
        self.heads = config.heads
        self.attention_norm = nn.LayerNorm(width)
        self.to_qkv = nn.Linear(width, 3 * width)
        self.from_heads = nn.Linear(width, width)
        self.feed_norm = nn.LayerNorm(width)
        self.to_gated = nn.Linear(width, 2 * inner)
        self.from_gated = nn.Linear(inner, width)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, tokens: Tensor, angles: Tensor) -> Tensor:
        """Map tokens (B, N, E) to the same shape, given their angles (N, E / heads / 2)."""
        tokens = tokens + self.dropout(self._attend(self.attention_norm(tokens), angles))
        value, gate = self.to_gated(self.feed_norm(tokens)).chunk(2, dim=-1)
        fed: Tensor = tokens + self.dropout(self.from_gated(value * F.silu(gate)))
        return fed

    def _attend(self, tokens: Tensor, angles: Tensor) -> Tensor:
        batch, count, width = tokens.shape
        split = self.to_qkv(tokens).view(batch, count, 3, self.heads, width // self.heads)
        query, key, value = split.permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(rotate(query, angles), rotate(key, angles), value)
        result: Tensor = self.from_heads(attended.transpose(1, 2).reshape(batch, count, width))
        return result


class TokenEncoder(nn.Module):
    """Cuts the image into tokens of the total stride and lets them attend to each other."""

    def __init__(self, config: PrimusConfig) -> None:
        super().__init__()
        widths = config.features_per_stage
        depth = len(widths)
        inputs = (config.in_channels, *widths) if config.skips else (config.in_channels,)
        self.stem = nn.ModuleList(
            Stage(
                inputs[level],
                widths[level],
                style=BlockStyle.of(config),
                convs=config.convs_per_stage,
                kernel=config.kernel_sizes[level],
                stride=config.strides[level],
            )
            for level in range(depth - 1 if config.skips else 0)
        )
        self.skip_taps = nn.ModuleList(Tap("skip", level) for level in range(len(self.stem)))
        token = config.strides[-1] if self.stem else config.total_stride
        self.embed = convolution(config.dimensions)(inputs[len(self.stem)], config.embedding, token, stride=token)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.blocks))
        self.norm = nn.LayerNorm(config.embedding)
        self.tap = Tap("skip", depth - 1)
        self.pairs = config.embedding // config.heads // 2

    def forward(self, image: Tensor) -> list[Tensor]:
        """Map image (B, C, ...) to the stem's features, finest first, and (B, E, ... / total stride)."""
        features = []
        for stage, tap in zip(self.stem, self.skip_taps, strict=True):
            image = stage(image)
            features.append(tap(image))
        embedded: Tensor = self.embed(image)
        grid = embedded.shape[2:]
        angles = rotary_angles(tuple(grid), self.pairs, device=image.device)
        tokens = embedded.flatten(2).transpose(1, 2)
        for block in self.blocks:
            tokens = block(tokens, angles)
        return [*features, self.tap(self.norm(tokens).transpose(1, 2).unflatten(2, grid))]


@NETWORKS.register("primus_unet", title="Transformer (Primus-like)")
class PrimusUNet(SegmentationNetwork):
    """A transformer encoder and a light convolutional decoder that brings its tokens back to voxels.

    Every token attends to every other, so time grows with the square of their number: 96 x 96 x 96 voxels are
    1,728 tokens of 8 x 8 x 8.
    """

    Config = PrimusConfig
    config: PrimusConfig
    # Tokens of 8 voxels as in the paper: from coarser ones the decoder cannot reconstruct borders.
    most_stages: ClassVar[int | None] = 4

    def __init__(self, config: PrimusConfig) -> None:
        super().__init__(config)
        style, widths = BlockStyle.of(config), config.features_per_stage
        depth = len(widths)
        self.encoder = TokenEncoder(config)
        self.ups, self.stages = nn.ModuleList(), nn.ModuleList()
        for level in range(depth - 1):
            coarser = widths[level + 1] if level + 2 < depth else config.embedding
            self.ups.append(UpSample(coarser, widths[level], style=style, stride=config.strides[level + 1]))
            self.stages.append(
                Stage(
                    widths[level] * (2 if config.skips else 1),
                    widths[level],
                    style=style,
                    convs=config.convs_per_stage,
                    kernel=config.kernel_sizes[level],
                )
            )
        levels = max(1, depth - 1) if config.deep_supervision else 1
        self.heads = nn.ModuleList(
            make_head(widths[level] if depth > 1 else config.embedding, config) for level in range(levels)
        )
        initialise_weights(self)
        _initialise_linear_layers(self)

    def forward_aligned(self, image: Tensor) -> Tensor | list[Tensor]:
        """Map image (B, C, D, H, W) or (B, C, H, W) to logits (B, K, same size)."""
        *features, decoded = self.encoder(image)
        decoded_levels = [decoded]
        for level in reversed(range(len(self.stages))):
            up = self.ups[level](decoded)
            decoded = self.stages[level](torch.cat([up, features[level]], dim=1) if features else up)
            decoded_levels.insert(0, decoded)
        if self.config.deep_supervision and self.training:
            return [head(level) for head, level in zip(self.heads, decoded_levels, strict=False)]
        logits: Tensor = self.heads[0](decoded)
        return logits


def _initialise_linear_layers(network: nn.Module) -> None:
    """Draw narrow weights, without which attention saturates at the start (arXiv:2010.11929)."""
    for module in network.modules():
        if isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=0.02)
            nn.init.zeros_(module.bias)
        elif isinstance(module, TokenEncoder):
            weight = module.embed.get_parameter("weight")
            nn.init.normal_(weight, std=prod(weight.shape[1:]) ** -0.5)
