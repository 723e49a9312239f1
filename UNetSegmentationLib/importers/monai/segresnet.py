"""MONAI's SegResNet as ours."""

from __future__ import annotations

from ...core.errors import InputError
from .network_plan import NetworkPlan, common_of, dropout_of, style_of
from .options import Options
from .weights import Translation

_GROUP_NORM = ["GROUP", {"num_groups": 8}]


def read_segresnet(options: Options) -> NetworkPlan:
    """Return the equivalent network.

    Raises:
        InputError: An option that is not supported.
    """
    common = common_of(options)
    width = int(options.take_number("init_filters", 8))
    down = [int(count) for count in options.take("blocks_down", [1, 2, 2, 4])]
    up = [int(count) for count in options.take("blocks_up", [1, 1, 1])]
    if len(up) != len(down) - 1:
        raise InputError(f"{options.name}: blocks_up is {up}: only one number fewer than blocks_down is supported")
    widths = [width * 2**level for level in range(len(down))]
    norm = ["GROUP", {"num_groups": options.take("num_groups", 8)}] if options.take("norm_name") else _GROUP_NORM
    style = style_of(options, norm=norm, act="RELU", channels=widths, bias=False)
    options.take("num_groups")
    options.expect("use_conv_final", True)
    mode = options.take("upsample_mode", "nontrainable")
    if mode not in ("nontrainable", "deconv"):
        raise InputError(f"{options.name}: upsample_mode is '{mode}': only 'nontrainable' and 'deconv' are supported")
    config = {
        **common,
        "features_per_stage": widths,
        "norm": style.norm,
        "activation": style.activation,
        "dropout": dropout_of(options, "dropout_prob"),
        "encoder_blocks": down,
        "decoder_blocks": up[::-1],
        "upsampling": "linear" if mode == "nontrainable" else "transposed",
    }
    options.finish()

    def fill(translation: Translation) -> None:
        translation.conv("stem", "convInit.conv")
        for level, blocks in enumerate(down):
            if level:
                translation.conv(f"downs.{level - 1}", f"down_layers.{level}.0.conv")
            for index in range(blocks):
                source = f"down_layers.{level}.{index + 1}"
                _residual_block(translation, f"stages.{level}.{index}", source, widths[level])
        for position, blocks in enumerate(up):
            level = len(up) - 1 - position
            translation.conv(f"ups.{level}.0", f"up_samples.{position}.0.conv")
            if mode == "deconv":
                translation.conv(f"ups.{level}.1.conv", f"up_samples.{position}.1.deconv")
            for index in range(blocks):
                source = f"up_layers.{position}.{index}"
                _residual_block(translation, f"decoder_stages.{level}.{index}", source, widths[level])
        translation.norm("heads.0.0", "conv_final.0", width)
        translation.activation("heads.0.1", "conv_final.1", width)
        translation.conv("heads.0.2", "conv_final.2.conv")

    axes = {"heads.0.2.weight": (0,), "heads.0.2.bias": (0,)}
    # The activation of the last layer is stored twice.
    return NetworkPlan(
        title=options.name,
        network="segresnet",
        config=config,
        style=style,
        fill=fill,
        class_axes=axes,
        ignored=("act_mod.",),
    )


def _residual_block(translation: Translation, target: str, source: str, channels: int) -> None:
    for index in range(2):
        translation.norm(f"{target}.layers.{3 * index}", f"{source}.norm{index + 1}", channels)
        translation.activation(f"{target}.layers.{3 * index + 1}", f"{source}.act", channels)
        translation.conv(f"{target}.layers.{3 * index + 2}", f"{source}.conv{index + 1}.conv")
