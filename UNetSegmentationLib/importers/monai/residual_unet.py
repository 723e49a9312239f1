"""MONAI's UNet, with and without residual units, as our residual_unet."""

from __future__ import annotations

from collections.abc import Sequence

from ...core.errors import InputError
from .network_plan import NetworkPlan, common_of, dropout_of, per_axis, sizes_of, strides_of, style_of, up_kernel_of
from .options import Options
from .weights import LayerStyle, Translation


def read_residual_unet(options: Options) -> NetworkPlan:
    """Return the equivalent network.

    Raises:
        InputError: An option that is not supported.
    """
    common = common_of(options)
    axes = common["dimensions"]
    widths = sizes_of(options, "channels")
    units = int(options.take_number("num_res_units", 0))
    # The last layer has norms on its logits, too.
    counts = [*widths, common["num_classes"]] if units else widths
    style = style_of(options, norm="INSTANCE", act="PRELU", channels=counts)
    kernel = per_axis(options, "kernel_size", options.take("kernel_size", 3), axes)
    order = str(options.take("adn_ordering", "NDA")).upper()
    if "A" not in order or order.find("N") > order.find("A"):
        raise InputError(f"{options.name}: adn_ordering is '{order}': only norm before activation is supported")
    config = {
        **common,
        "features_per_stage": widths,
        "strides": [[1] * axes, *strides_of(options, len(widths) - 1, axes)],
        "kernel_sizes": [kernel] * len(widths),
        "norm": style.norm,
        "activation": style.activation,
        "conv_bias": style.conv_bias,
        "dropout": dropout_of(options),
        "residual_units": units,
        "up_kernel": up_kernel_of(options, axes),
    }
    options.finish()

    def fill(translation: Translation) -> None:
        last = len(widths) - 1
        for level in range(last):
            path = "model" + ".1.submodule" * level
            _residual_down(translation, f"downs.{level}", f"{path}.0", units)
            _residual_up(translation, level, f"{path}.2", units)
        _residual_down(translation, f"downs.{last}", "model" + ".1.submodule" * last, units)

    return NetworkPlan(
        title=options.name,
        network="residual_unet",
        config=config,
        style=style,
        fill=fill,
        class_axes=_residual_class_axes(units, style),
    )


def _residual_down(translation: Translation, target: str, source: str, units: int) -> None:
    if not units:
        translation.block(f"{target}.0", f"{source}.conv", f"{source}.adn.N", f"{source}.adn.A")
        return
    for index in range(units):
        unit = f"{source}.conv.unit{index}"
        translation.block(f"{target}.blocks.{2 * index}", f"{unit}.conv", f"{unit}.adn.N", f"{unit}.adn.A")
    if f"{source}.residual.weight" in translation.weights:
        _bare(translation, f"{target}.shortcut", f"{source}.residual")


def _residual_up(translation: Translation, level: int, source: str, units: int) -> None:
    target = f"ups.{level}"
    if not units and level == 0:
        _bare(translation, f"{target}.conv", f"{source}.conv", is_transposed=True)
        return
    up = f"{source}.0" if units else source
    translation.block(target, f"{up}.conv", f"{up}.adn.N", f"{up}.adn.A", is_transposed=True)
    if units and level:
        unit = f"{source}.1.conv.unit0"
        translation.block(f"{target}.unit.blocks.0", f"{unit}.conv", f"{unit}.adn.N", f"{unit}.adn.A")
    elif units:
        _bare(translation, f"{target}.unit.blocks.0", f"{source}.1.conv.unit0.conv")


def _bare(translation: Translation, target: str, source: str, *, is_transposed: bool = False) -> None:
    """Take a convolution that always has a bias in ours, whether or not it has one in MONAI."""
    translation.conv(target, source)
    weight = translation.state[f"{target}.weight"]
    translation.state.setdefault(f"{target}.bias", weight.new_zeros(weight.shape[1 if is_transposed else 0]))


def _residual_class_axes(units: int, style: LayerStyle) -> dict[str, Sequence[int]]:
    if not units:
        return {"ups.0.conv.weight": (1,), "ups.0.conv.bias": (0,)}
    axes: dict[str, Sequence[int]] = {
        "ups.0.conv.weight": (1,),
        "ups.0.unit.blocks.0.weight": (0, 1),
        "ups.0.unit.blocks.0.bias": (0,),
    }
    if style.norm == "none" or style.conv_bias:
        axes["ups.0.conv.bias"] = (0,)
    if style.norm != "none":
        axes |= {f"ups.0.norm.{name}": (0,) for name in ("weight", "bias")}
    if style.norm == "batch":
        axes |= {f"ups.0.norm.{name}": (0,) for name in ("running_mean", "running_var")}
    if style.activation == "prelu":
        axes["ups.0.activation.weight"] = (0,)
    return axes
