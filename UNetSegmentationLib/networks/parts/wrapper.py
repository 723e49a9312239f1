"""Networks that wrap other networks and pass on their requirements and abilities."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from math import lcm
from typing import Any, ClassVar

import torch
from torch import Tensor

from ...core.errors import InputError
from ...core.task import UNWATCHED, Task
from ..contract import NETWORKS, NetworkConfig, SegmentationNetwork


class WrapperNetwork(SegmentationNetwork):
    """A network that wraps others and inherits from them whatever it does not change.

    Subclasses combine their changes with those of `super()`, so that wrappers can be nested.
    """

    @property
    @abstractmethod
    def inner(self) -> tuple[SegmentationNetwork, ...]:
        """The inner networks, at least one."""

    @property
    def alignment(self) -> tuple[int, ...]:
        """Smallest sizes that suit all inner networks."""
        return tuple(lcm(*steps) for steps in zip(*(network.alignment for network in self.inner), strict=True))

    @property
    def accepts_missing_channels(self) -> bool:
        """Whether all inner networks accept them."""
        return all(network.accepts_missing_channels for network in self.inner)

    @property
    def raw_channels(self) -> tuple[int, ...]:
        """Channels of the image that any inner network needs unnormalised."""
        wanted = {channel for network in self.inner for channel in network.raw_channels}
        return tuple(sorted(channel for channel in wanted if channel < self.config.in_channels))

    @property
    def learning_message(self) -> str:
        """Progress messages of the inner networks, without duplicates."""
        return "; ".join(dict.fromkeys(network.learning_message for network in self.inner if network.learning_message))

    @property
    def has_auxiliary_loss(self) -> bool:
        """Whether any inner network has one."""
        return any(network.has_auxiliary_loss for network in self.inner)

    def learn_from_labels(self, labels: Sequence[Tensor], *, seed: int, task: Task = UNWATCHED) -> None:
        """Let every inner network learn, each with its own seed."""
        for offset, network in enumerate(self.inner):
            network.learn_from_labels(labels, seed=seed + offset, task=task)

    def auxiliary_loss(self, outputs: Tensor | list[Tensor], labels: Tensor) -> Tensor | None:
        """Return the mean of the terms of the inner networks, or None."""
        terms = [network.auxiliary_loss(outputs, labels) for network in self.inner]
        given = [term for term in terms if term is not None]
        return torch.stack(given).mean() if given else None

    def forward(self, image: Tensor) -> Tensor | list[Tensor]:
        """Map image (B, C, ...) of any size to logits (B, K, ...); the inner networks pad."""
        return self._combine([network(image) for network in self.inner])

    def forward_aligned(self, image: Tensor) -> Tensor | list[Tensor]:
        """Map image (B, C, ...) to logits (B, K, ...)."""
        return self._combine([network.forward_aligned(image) for network in self.inner])

    def _combine(self, outputs: list[Any]) -> Tensor | list[Tensor]:
        """Return the mean of the outputs of the inner networks, level by level."""
        if len(outputs) == 1:
            single: Tensor | list[Tensor] = outputs[0]
            return single
        if isinstance(outputs[0], Tensor):
            return _mean(outputs)
        return [_mean(level) for level in zip(*outputs, strict=True)]


def _mean(logits: Sequence[Tensor]) -> Tensor:
    # One by one: a stack of all would hold them twice.
    total = logits[0]
    for entry in logits[1:]:
        total = total + entry
    return total / len(logits)


@dataclass(frozen=True, kw_only=True)
class WrapperConfig(NetworkConfig):
    """Shape of the one inner network.

    Attributes:
        network: Registered name of the inner network; it gets the shape given here.
        network_options: Its further options.
    """

    network: str = "unet"
    network_options: dict[str, Any] = field(default_factory=dict, hash=False)

    @property
    def inner_values(self) -> dict[str, Any]:
        """Configuration of the inner network."""
        values = {entry.name: getattr(self, entry.name) for entry in fields(NetworkConfig)}
        return {**values, **self.network_options}

    def inner_option(self, name: str, value: Any) -> dict[str, Any]:
        """Return the options of the inner network with one more, for it or the first nested network that has it."""
        network, options = NETWORKS[self.network], dict(self.network_options)
        if name in network.Config.__dataclass_fields__:
            options.setdefault(name, value)
        elif issubclass(network.Config, WrapperConfig):
            known: dict[str, Any] = {key: options[key] for key in ("network", "network_options") if key in options}
            further = network.Config.from_dict({"in_channels": 1, "num_classes": 2, **known})
            options["network_options"] = further.inner_option(name, value)
        return options


class NamedWrapper(WrapperNetwork):
    """A registered network that wraps another one, named in its configuration."""

    Config: ClassVar[type[WrapperConfig]] = WrapperConfig
    config: WrapperConfig

    def __init__(self, config: WrapperConfig) -> None:
        super().__init__(config)
        if isinstance(self, NETWORKS[config.network]):
            raise InputError(f"{type(config).__name__}: network is '{config.network}': name the network to wrap")
        inner = NETWORKS[config.network]
        self.network = inner(inner.Config.from_dict(config.inner_values))

    @property
    def inner(self) -> tuple[SegmentationNetwork, ...]:
        """The inner network."""
        return (self.network,)

    @classmethod
    def planned_network(cls, options: Mapping[str, Any]) -> type[SegmentationNetwork]:
        """Return the innermost network: its stages are those of the plan."""
        name = options.get("network", cls.Config.__dataclass_fields__["network"].default)
        further = options.get("network_options")
        if not isinstance(name, str):
            return cls  # the configuration reports the error
        return NETWORKS[name].planned_network(further if isinstance(further, Mapping) else {})
