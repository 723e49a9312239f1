"""MONAI's DynUNet as our nnunet_plain."""

from __future__ import annotations

from collections.abc import Sequence

from ...core.errors import InputError
from .network_plan import NetworkPlan, common_of, dropout_of, per_axis, strides_of
from .options import Options
from .weights import LayerStyle, Translation, activation_of, norm_of


def read_dynunet(options: Options) -> NetworkPlan:
    """Return the equivalent network.

    Raises:
        InputError: An option that is not supported.
    """
    common = common_of(options)
    axes = common["dimensions"]
    kernels = [per_axis(options, "kernel_size", size, axes) for size in options.take("kernel_size") or ()]
    strides = strides_of(options, len(kernels), axes)
    # Our transposed convolutions have a kernel equal to their stride.
    factors = [
        per_axis(options, "upsample_kernel_size", size, axes) for size in options.take("upsample_kernel_size") or ()
    ]
    if len(kernels) < 2 or factors != strides[1:]:
        raise InputError(f"{options.name}: upsample_kernel_size is {factors}: only strides[1:] is supported")
    limit = 320 if axes == 3 else 512
    filters = options.take("filters")
    widths = [int(width) for width in filters or [min(2 ** (5 + level), limit) for level in range(len(kernels))]]
    norm, act = options.take("norm_name", ["INSTANCE", {"affine": True}]), options.take("act_name", "leakyrelu")
    activation, slope = activation_of(act, f"{options.name}'s activation")
    style = LayerStyle(
        norm=norm_of(norm, widths, f"{options.name}'s norm"), activation=activation, slope=slope, has_bias=False
    )
    options.expect("res_block", False)
    has_bias = bool(options.take("trans_bias", False))
    for name in ("deep_supervision", "deep_supr_num"):
        options.take(name)
    config = {
        **common,
        "features_per_stage": widths,
        "strides": strides,
        "kernel_sizes": _covering(kernels),
        "norm": style.norm,
        "activation": style.activation,
        "conv_bias": None if has_bias else False,
        "dropout": dropout_of(options),
    }
    options.finish()

    def fill(translation: Translation) -> None:
        last = len(widths) - 1
        for level in range(last + 1):
            source = "input_block" if not level else "bottleneck" if level == last else f"downsamples.{level - 1}"
            _dynunet_block(translation, f"encoder.stages.{level}", source, config["kernel_sizes"][level])
        for level in range(last):
            source = f"upsamples.{last - 1 - level}"
            translation.conv(f"decoder.ups.{level}.conv", f"{source}.transp_conv.conv")
            _dynunet_block(
                translation, f"decoder.stages.{level}", f"{source}.conv_block", config["kernel_sizes"][level]
            )
        translation.conv("decoder.heads.0", "output_block.conv.conv")

    return NetworkPlan(
        title=options.name,
        network="nnunet_plain",
        config=config,
        style=style,
        fill=fill,
        class_axes={"decoder.heads.0.weight": (0,), "decoder.heads.0.bias": (0,)},
        # Duplicate names of the same weights, and the heads of coarser levels.
        ignored=("skip_layers.", "deep_supervision_heads.", "heads."),
    )


def _covering(kernels: Sequence[Sequence[int]]) -> list[list[int]]:
    """Return kernels covering those of encoder and decoder: DynUNet's decoder uses those of the next coarser stage."""
    coarser = [*kernels[1:], kernels[-1]]
    return [list(map(max, first, second)) for first, second in zip(kernels, coarser, strict=True)]


def _dynunet_block(translation: Translation, target: str, source: str, kernel: Sequence[int]) -> None:
    for index in range(2):
        block = f"{target}.blocks.{index}"
        translation.block(block, f"{source}.conv{index + 1}.conv", f"{source}.norm{index + 1}", f"{source}.lrelu")
        translation.enlarge(f"{block}.conv.weight", kernel)
