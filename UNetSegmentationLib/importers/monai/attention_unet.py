"""MONAI's AttentionUnet as our merging_attention_unet."""

from __future__ import annotations

from .network_plan import NetworkPlan, common_of, dropout_of, per_axis, sizes_of, strides_of, up_kernel_of
from .options import Options
from .weights import LayerStyle, Translation


def read_attention_unet(options: Options) -> NetworkPlan:
    """Return the equivalent network.

    Raises:
        InputError: An option that is not supported.
    """
    common = common_of(options)
    axes = common["dimensions"]
    widths = sizes_of(options, "channels")
    kernel = per_axis(options, "kernel_size", options.take("kernel_size", 3), axes)
    style = LayerStyle(norm="batch", activation="relu")
    config = {
        **common,
        "features_per_stage": widths,
        "strides": [[1] * axes, *strides_of(options, len(widths) - 1, axes)],
        "kernel_sizes": [kernel] * len(widths),
        "dropout": dropout_of(options),
        "up_kernel": up_kernel_of(options, axes),
    }
    options.finish()

    def fill(translation: Translation) -> None:
        layer = "model.1"
        _attention_block(translation, "encoder.stages.0", "model.0.conv")
        for level in range(len(widths) - 1):
            is_bottom = level == len(widths) - 2
            block = f"{layer}.submodule" if is_bottom else f"{layer}.submodule.0"
            _attention_block(translation, f"encoder.stages.{level + 1}", f"{block}.conv")
            _attention_layer(translation, level, layer)
            layer = f"{layer}.submodule.1"
        translation.conv("heads.0", "model.2.conv")

    axes_of_classes = {"heads.0.weight": (0,), "heads.0.bias": (0,)}
    return NetworkPlan(
        title=options.name,
        network="merging_attention_unet",
        config=config,
        style=style,
        fill=fill,
        class_axes=axes_of_classes,
    )


def _attention_block(translation: Translation, target: str, source: str) -> None:
    for index in range(2):
        part = f"{source}.{index}"
        translation.block(f"{target}.blocks.{index}", f"{part}.conv", f"{part}.adn.N", f"{part}.adn.A")


def _attention_layer(translation: Translation, level: int, source: str) -> None:
    up = f"{source}.upconv.up"
    translation.block(f"ups.{level}", f"{up}.conv", f"{up}.adn.N", f"{up}.adn.A", is_transposed=True)
    for ours, theirs in (("from_skip", "W_x"), ("from_coarser", "W_g"), ("to_gate", "psi")):
        part = f"{source}.attention.{theirs}"
        translation.block(f"gates.{level}.{ours}", f"{part}.0.conv", f"{part}.1", None)
    # These use MONAI's default norm and activation, not those of the other blocks.
    merging = Translation(translation.weights, LayerStyle(norm="instance", activation="prelu"))
    merging.block(f"merges.{level}", f"{source}.merge.conv", f"{source}.merge.adn.N", f"{source}.merge.adn.A")
    translation.adopt(merging)
