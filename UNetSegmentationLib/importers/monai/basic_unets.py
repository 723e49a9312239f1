"""MONAI's BasicUNet and BasicUNetPlusPlus as our unet and unet_plus_plus."""

from __future__ import annotations

from typing import Any

from ...core.errors import InputError
from .network_plan import NetworkPlan, common_of, dropout_of, style_of
from .options import Options
from .weights import LayerStyle, Translation

_LEAKY = ["LeakyReLU", {"negative_slope": 0.1, "inplace": True}]
_AFFINE_INSTANCE = ["instance", {"affine": True}]


def _basic_config(options: Options) -> tuple[dict[str, Any], LayerStyle]:
    common = common_of(options)
    features = options.take("features", [32, 32, 64, 128, 256, 32])
    features = [features] * 6 if isinstance(features, int) else [int(value) for value in features]
    widths = features[:5]
    halves = [widths[level + 1] // (2 if level else 1) for level in range(4)]
    if len(features) != 6 or halves != widths[:4] or features[5] != widths[0]:
        raise InputError(
            f"{options.name}: features are {features}: each but the first two must be twice "
            "the one before, and the first two and the last equal"
        )
    style = style_of(options, norm=_AFFINE_INSTANCE, act=_LEAKY, channels=widths)
    options.expect("upsample", "deconv")
    config = {
        **common,
        "features_per_stage": widths,
        "norm": style.norm,
        "activation": style.activation,
        "conv_bias": style.conv_bias,
        "dropout": dropout_of(options),
        "upsampling": "transposed",
    }
    return config, style


def read_basic_unet(options: Options) -> NetworkPlan:
    """Return the equivalent network.

    Raises:
        InputError: An option that is not supported.
    """
    config, style = _basic_config(options)
    widths = config["features_per_stage"]
    options.finish()

    def fill(translation: Translation) -> None:
        _two_convolutions(translation, "encoder.stages.0", "conv_0")
        for level in range(1, 5):
            _two_convolutions(translation, f"encoder.stages.{level}", f"down_{level}.convs")
        for level in range(4):
            source = f"upcat_{level + 1}"
            translation.conv(f"decoder.ups.{level}.conv", f"{source}.upsample.deconv")
            _two_convolutions(translation, f"decoder.stages.{level}", f"{source}.convs", split=widths[level])
        translation.conv("decoder.heads.0", "final_conv")

    axes = {"decoder.heads.0.weight": (0,), "decoder.heads.0.bias": (0,)}
    return NetworkPlan(title=options.name, network="unet", config=config, style=style, fill=fill, class_axes=axes)


def read_basic_unet_plus_plus(options: Options) -> NetworkPlan:
    """Return the equivalent network.

    Raises:
        InputError: An option that is not supported.
    """
    config, style = _basic_config(options)
    if options.take("deep_supervision", False):
        raise InputError(f"{options.name} returns four outputs (deep_supervision): switch it off in the bundle")
    options.finish()

    def fill(translation: Translation) -> None:
        _two_convolutions(translation, "encoder.stages.0", "conv_0_0")
        for level in range(1, 5):
            _two_convolutions(translation, f"encoder.stages.{level}", f"conv_{level}_0.convs")
        for column in range(1, 5):
            for level in range(5 - column):
                source, target = f"upcat_{level}_{column}", f"nodes.{level}_{column}"
                translation.conv(f"{target}.up.conv", f"{source}.upsample.deconv")
                _two_convolutions(translation, f"{target}.stage", f"{source}.convs")
        translation.conv("heads.4", "final_conv_0_4")

    return NetworkPlan(
        title=options.name,
        network="unet_plus_plus",
        config=config,
        style=style,
        fill=fill,
        class_axes={"heads.4.weight": (0,), "heads.4.bias": (0,)},
        ignored=("final_conv_0_1.", "final_conv_0_2.", "final_conv_0_3."),
    )


def _two_convolutions(translation: Translation, target: str, source: str, *, split: int = 0) -> None:
    for index in range(2):
        part = f"{source}.conv_{index}"
        translation.block(
            f"{target}.blocks.{index}", f"{part}.conv", f"{part}.adn.N", f"{part}.adn.A", split=0 if index else split
        )
