"""MONAI's VNet as our vnet."""

from __future__ import annotations

from collections.abc import Sequence

from .network_plan import NetworkPlan, common_of
from .options import Options
from .weights import LayerStyle, Translation, activation_of


def read_vnet(options: Options) -> NetworkPlan:
    """Return the equivalent network.

    Raises:
        InputError: An option that is not supported.
    """
    common = common_of(options)
    axes = common["dimensions"]
    activation, slope = activation_of(options.take("act", "elu"), f"{options.name}'s activation")
    style = LayerStyle(norm="batch", activation=activation, slope=slope, has_bias=bool(options.take("bias", False)))
    for name in ("dropout_prob", "dropout_prob_down", "dropout_prob_up", "dropout_dim"):
        options.take(name)
    options.finish()
    encoder, decoder = (1, 1, 2, 3, 2), (1, 1, 2, 2)
    config = {
        **common,
        "features_per_stage": [16, 32, 64, 128, 256],
        "strides": [[1] * axes, *[[2] * axes] * 4],
        "kernel_sizes": [[5] * axes] * 5,
        "norm": "batch",
        "activation": style.activation,
        "encoder_convs": encoder,
        "decoder_convs": decoder,
        "head_kernel": 5,
        "is_stem_activated": False,
    }

    def fill(translation: Translation) -> None:
        stem = "encoder.stages.0"
        translation.block(f"{stem}.blocks.0", "in_tr.conv_block.conv", "in_tr.conv_block.adn.N", None)
        translation.activation(f"{stem}.activation", "in_tr.act_function", 16)
        for level, convs in enumerate(encoder[1:], start=1):
            source = f"down_tr{16 * 2**level}"
            translation.block(
                f"encoder.downs.{level - 1}", f"{source}.down_conv", f"{source}.bn1", f"{source}.act_function1"
            )
            _vnet_stage(translation, f"encoder.stages.{level}", source, convs, 16 * 2**level)
        for level, convs in enumerate(decoder):
            source, width = f"up_tr{32 * 2**level}", 16 * 2**level
            up = f"decoder.ups.{level}"
            translation.conv(f"{up}.0.conv", f"{source}.up_conv")
            translation.norm(f"{up}.1", f"{source}.bn1", width)
            translation.activation(f"{up}.2", f"{source}.act_function1", width)
            _vnet_stage(translation, f"decoder.stages.{level}", source, convs, 2 * width)
        head, source = "decoder.heads.0", "out_tr"
        translation.block(
            f"{head}.0", f"{source}.conv_block.conv", f"{source}.conv_block.adn.N", f"{source}.act_function1"
        )
        translation.conv(f"{head}.1", f"{source}.conv2")

    return NetworkPlan(
        title=options.name,
        network="vnet",
        config=config,
        style=style,
        fill=fill,
        class_axes=_vnet_class_axes(style),
    )


def _vnet_stage(translation: Translation, target: str, source: str, convs: int, channels: int) -> None:
    for index in range(convs):
        part = f"{source}.ops.{index}"
        translation.block(
            f"{target}.blocks.{index}", f"{part}.conv_block.conv", f"{part}.conv_block.adn.N", f"{part}.act_function"
        )
    translation.activation(f"{target}.activation", f"{source}.act_function2", channels)


def _vnet_class_axes(style: LayerStyle) -> dict[str, Sequence[int]]:
    head = "decoder.heads.0"
    axes: dict[str, Sequence[int]] = {
        f"{head}.0.conv.weight": (0,),
        f"{head}.1.weight": (0, 1),
        f"{head}.1.bias": (0,),
        **{f"{head}.0.norm.{name}": (0,) for name in ("weight", "bias", "running_mean", "running_var")},
    }
    if style.activation == "prelu":
        axes[f"{head}.0.activation.weight"] = (0,)
    return axes
