"""Translation of MONAI's weights to our networks, equal in evaluation mode."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import gcd
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ...core.errors import InputError
from ...networks.parts.blocks import MOST_GROUPS, NEGATIVE_SLOPE, NORM_EPSILON
from .options import Options

_NORMS = {"INSTANCE": "instance", "BATCH": "batch", "GROUP": "group"}


@dataclass(frozen=True, kw_only=True)
class LayerStyle:
    """Norm and activation of a MONAI network, translated.

    Attributes:
        norm: One of networks.contract.NORMS.
        activation: One of networks.contract.ACTIVATIONS.
        slope: Slope of a leaky ReLU that ours lacks; it becomes a PReLU.
        has_bias: Convolutions before a norm have a bias.
    """

    norm: str
    activation: str
    slope: float | None = None
    has_bias: bool = True

    @property
    def conv_bias(self) -> bool | None:
        """Our option: an instance norm removes biases, a batch norm absorbs them in its mean."""
        return True if self.norm == "group" and self.has_bias else None


def norm_of(value: Any, channels: Sequence[int], name: str) -> str:
    """Return the norm that MONAI calls `value`, a name or a name with options.

    Raises:
        InputError: It is not supported.
    """
    if value in (None, ""):
        return "none"
    kind, options = _split(value, name)
    if kind not in _NORMS:
        raise InputError(f"the network has the norm '{kind.lower()}': only instance, batch and group are supported")
    options.expect("eps", NORM_EPSILON)
    # Instance norm without weights becomes one with scale 1 and shift 0.
    options.expect("affine", True, *([False] if kind == "INSTANCE" else []))
    options.expect("track_running_stats", kind == "BATCH")
    options.take("momentum")
    if kind == "GROUP":
        groups = options.take("num_groups")
        if any(groups != gcd(MOST_GROUPS, count) for count in channels):
            raise InputError(
                f"{name} has {groups} groups for {list(channels)} channels: only {MOST_GROUPS} are supported"
            )
    options.finish()
    return _NORMS[kind]


def activation_of(value: Any, name: str) -> tuple[str, float | None]:
    """Return the activation that MONAI calls `value`, and the slope of a leaky ReLU that ours lacks.

    Raises:
        InputError: It is not supported.
    """
    kind, options = _split(value, name)
    options.take("inplace")
    if kind == "PRELU":
        for entry in ("init", "num_parameters"):
            options.take(entry)
    slope = options.take_number("negative_slope", NEGATIVE_SLOPE) if kind == "LEAKYRELU" else None
    options.expect("alpha", 1.0)
    options.finish()
    known = {"PRELU": "prelu", "RELU": "relu", "ELU": "elu", "LEAKYRELU": "leaky_relu"}
    if kind not in known:
        raise InputError(
            f"the network has the activation '{kind.lower()}': only {', '.join(known.values())} are supported"
        )
    return (known[kind], None) if slope in (None, NEGATIVE_SLOPE) else ("prelu", slope)


def _split(value: Any, name: str) -> tuple[str, Options]:
    kind, options = (value, {}) if isinstance(value, str) else (value[0], value[1] if len(value) > 1 else {})
    return str(kind).upper(), Options(name, options)


@dataclass
class Translation:
    """Takes weights of MONAI one by one and renames them.

    Attributes:
        weights: MONAI's weights.
        style: Norm and activation of the network's blocks.
        state: Our state so far.
    """

    weights: Mapping[str, Tensor]
    style: LayerStyle
    state: dict[str, Tensor] = field(default_factory=dict)
    _taken: set[str] = field(default_factory=set)

    def take(self, name: str) -> Tensor:
        """Return a weight of MONAI and mark it as taken.

        Raises:
            InputError: It is missing.
        """
        if name not in self.weights:
            raise InputError(f"the weights lack '{name}': they do not belong to the network that the bundle describes")
        self._taken.add(name)
        return self.weights[name].detach().clone()

    def conv(self, target: str, source: str, *, split: int = 0) -> None:
        """Take a convolution and its bias, if any.

        Args:
            target: Our name.
            source: Theirs.
            split: Input channels from this one on come first in ours.
        """
        weight = self.take(f"{source}.weight")
        if split:
            weight = torch.cat([weight[:, split:], weight[:, :split]], dim=1)
        self.state[f"{target}.weight"] = weight
        if f"{source}.bias" in self.weights:
            self.state[f"{target}.bias"] = self.take(f"{source}.bias")

    def norm(self, target: str, source: str, channels: int, *, kind: str = "", bias: Tensor | None = None) -> None:
        """Take a norm layer; a bias before it is absorbed in the mean that a batch norm subtracts."""
        kind = kind or self.style.norm
        if kind == "none":
            return
        for name, value in (("weight", torch.ones(channels)), ("bias", torch.zeros(channels))):
            is_there = kind != "instance" or f"{source}.{name}" in self.weights
            self.state[f"{target}.{name}"] = self.take(f"{source}.{name}") if is_there else value
        if kind == "batch":
            mean = self.take(f"{source}.running_mean")
            self.state[f"{target}.running_mean"] = mean if bias is None else mean - bias
            self.state[f"{target}.running_var"] = self.take(f"{source}.running_var")
            count = f"{source}.num_batches_tracked"
            self.state[f"{target}.num_batches_tracked"] = self.take(count) if count in self.weights else torch.tensor(0)

    def activation(self, target: str, source: str, channels: int) -> None:
        """Take an activation; a single slope for all channels is repeated per channel."""
        if self.style.activation != "prelu":
            return
        if self.style.slope is not None:
            self.state[f"{target}.weight"] = torch.full((channels,), self.style.slope)
            return
        self.state[f"{target}.weight"] = self.take(f"{source}.weight").expand(channels).clone()

    def block(
        self, target: str, conv: str, norm: str, activation: str | None, *, split: int = 0, is_transposed: bool = False
    ) -> None:
        """Take convolution, norm and activation as one block of ours.

        Args:
            target: Our name of the block.
            conv: Their name of the convolution.
            norm: Their name of the norm.
            activation: Their name of the activation, or None.
            split: See `conv`.
            is_transposed: The convolution is transposed.
        """
        self.conv(f"{target}.conv", conv, split=split)
        channels = self.state[f"{target}.conv.weight"].shape[1 if is_transposed else 0]
        bias = self.state.get(f"{target}.conv.bias")
        if self.style.norm in ("instance", "batch"):
            self.state.pop(f"{target}.conv.bias", None)
        elif bias is None and (self.style.norm == "none" or self.style.conv_bias):
            self.state[f"{target}.conv.bias"] = torch.zeros(channels)
        self.norm(f"{target}.norm", norm, channels, bias=bias)
        if activation is not None:
            self.activation(f"{target}.activation", activation, channels)

    def enlarge(self, target: str, kernel: Sequence[int]) -> None:
        """Zero-pad one of our kernels to other odd sizes, with the same result."""
        weight = self.state[target]
        sides = [(new - old) // 2 for new, old in zip(kernel, weight.shape[2:], strict=True)]
        self.state[target] = F.pad(weight, [side for side in reversed(sides) for _ in range(2)])

    def adopt(self, other: Translation) -> None:
        """Add the weights that another translation of the same model took."""
        self.state |= other.state
        self._taken |= other._taken

    def unused(self, *, ignored: Sequence[str] = ()) -> list[str]:
        """Return the names of weights that were not taken, except those with an ignored prefix."""
        return [
            name for name in self.weights if name not in self._taken and not name.startswith(tuple(ignored) or "\0")
        ]


def select_outputs(
    state: Mapping[str, Tensor], axes: Mapping[str, Sequence[int]], order: Sequence[int | None]
) -> dict[str, Tensor]:
    """Return weights that produce the logits in another order.

    Args:
        state: State of a network.
        axes: Class axes of each weight that has any.
        order: For each new logit the old one, or None for one that is always 0.
    """
    changed = dict(state)
    indices = torch.tensor([0 if index is None else index for index in order])
    for name, along in axes.items():
        for axis in along:
            chosen = changed[name].index_select(axis, indices)
            for position, index in enumerate(order):
                if index is None:
                    chosen.select(axis, position).zero_()
            changed[name] = chosen
    return changed
