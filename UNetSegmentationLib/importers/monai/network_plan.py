"""Translation of the networks of MONAI bundles, and reading of their common options."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ...core.errors import InputError
from .options import Options
from .weights import LayerStyle, Translation, activation_of, norm_of


@dataclass(frozen=True, kw_only=True)
class NetworkPlan:
    """Equivalent of a MONAI network.

    Attributes:
        title: MONAI's name.
        network: Our registered name.
        config: Its configuration.
        style: Norm and activation of its blocks.
        fill: Translates all weights.
        class_axes: For weights with one entry per class, the class axes.
        ignored: Prefixes of the names of weights that are not needed.
    """

    title: str
    network: str
    config: dict[str, Any]
    style: LayerStyle
    fill: Callable[[Translation], None]
    class_axes: Mapping[str, Sequence[int]]
    ignored: tuple[str, ...] = ()

    @property
    def dimensions(self) -> int:
        """Spatial dimensions."""
        return int(self.config["dimensions"])

    def translate(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the state of our network.

        Raises:
            InputError: A weight is missing, or there are too many.
        """
        translation = Translation(weights, self.style)
        self.fill(translation)
        unknown = translation.unused(ignored=self.ignored)
        if unknown:
            raise InputError(
                f"the weights have more than the bundle's {self.title} ({', '.join(unknown[:3])}): they do not belong "
                "to the network that it describes"
            )
        return translation.state


def common_of(options: Options) -> dict[str, Any]:
    """Return dimensions, in_channels and num_classes of our configuration.

    Raises:
        InputError: Any other value.
    """
    dimensions = options.take("spatial_dims", options.take("dimensions", 3))
    if dimensions not in (2, 3):
        raise InputError(f"{options.name} has {dimensions!r} spatial dimensions: only 2 and 3 are supported")
    return {
        "dimensions": dimensions,
        "in_channels": int(options.take_number("in_channels", 1)),
        "num_classes": int(options.take_number("out_channels", 2)),
    }


def sizes_of(options: Options, name: str) -> list[int]:
    """Return an option that is a list of integers.

    Raises:
        InputError: Any other value.
    """
    values = options.take(name)
    if not isinstance(values, list | tuple) or any(isinstance(v, bool) or not isinstance(v, int) for v in values):
        raise InputError(f"{options.name}: {name} is {values!r}: only a list of whole numbers is supported")
    return [int(value) for value in values]


def per_axis(options: Options, name: str, value: Any, axes: int) -> list[int]:
    """Return one integer per axis.

    Raises:
        InputError: Any other value.
    """
    values = list(value) if isinstance(value, list | tuple) else [value] * axes
    if len(values) != axes or any(isinstance(entry, bool) or not isinstance(entry, int) for entry in values):
        raise InputError(f"{options.name}: {name} is {value!r}: only one integer per axis is supported")
    return values


def strides_of(options: Options, count: int, axes: int) -> list[list[int]]:
    """Return `count` strides, with one number per axis.

    Raises:
        InputError: Any other value.
    """
    values = options.take("strides")
    if not isinstance(values, list | tuple) or len(values) < count:
        raise InputError(f"{options.name}: strides are {values!r}: {count} are needed")
    return [per_axis(options, "strides", value, axes) for value in values[:count]]


def dropout_of(options: Options, name: str = "dropout") -> float:
    """Return the probability of dropout."""
    value = options.take(name)
    if isinstance(value, list | tuple):
        value = value[1].get("p", 0.5) if len(value) > 1 and isinstance(value[1], Mapping) else 0.5
    return float(value or 0.0)


def up_kernel_of(options: Options, axes: int) -> int:
    """Return the kernel of the transposed convolutions, equal along all axes.

    Raises:
        InputError: Any other value.
    """
    kernel = per_axis(options, "up_kernel_size", options.take("up_kernel_size", 3), axes)
    if len(set(kernel)) > 1:
        raise InputError(f"{options.name}: up_kernel_size is {kernel}: only one size for all axes is supported")
    return kernel[0]


def style_of(options: Options, *, norm: Any, act: Any, channels: Sequence[int], bias: bool = True) -> LayerStyle:
    """Return norm and activation of the blocks.

    Raises:
        InputError: Any other value.
    """
    activation, slope = activation_of(options.take("act", act), f"{options.name}'s activation")
    return LayerStyle(
        norm=norm_of(options.take("norm", norm), channels, f"{options.name}'s norm"),
        activation=activation,
        slope=slope,
        has_bias=bool(options.take("bias", bias)),
    )
