"""Translation of the weights of nnU-Net's PlainConvUNet and ResidualEncoderUNet."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from ...core.errors import InputError
from ...networks.nnunet_plain import NNUNetPlain
from ...networks.nnunet_residual import NNUNetResidual

_BLOCK_PARTS = {"first": "conv1", "second": "conv2"}


def convert_weights(weights: Mapping[str, Tensor], network: NNUNetPlain | NNUNetResidual) -> dict[str, Tensor]:
    """Return the state of `network` translated from nnU-Net's.

    Args:
        weights: State of nnU-Net's network, without prefixes of wrappers; duplicate names of the same convolutions
            and heads that `network` lacks are ignored.
        network: Network of the same shape.

    Raises:
        InputError: A weight is missing or has another shape.
    """
    converted = {}
    for name, current in network.state_dict().items():
        source = _source_name(name, network)
        weight = weights.get(source)
        if weight is None:
            raise InputError(f"the weights lack '{source}': choose the network and shape that they were trained with")
        if weight.shape != current.shape:
            raise InputError(
                f"weight '{source}' is {tuple(weight.shape)}, the network needs {tuple(current.shape)}: "
                "choose the network and shape that they were trained with"
            )
        converted[name] = weight
    return converted


def unused_weights(weights: Mapping[str, Tensor], network: NNUNetPlain | NNUNetResidual) -> list[str]:
    """Return the names of nnU-Net's weights that `convert_weights` neither takes nor ignores on purpose.

    Ignored are duplicate names of the same weights and the heads of coarser levels.
    """
    taken = {_source_name(name, network) for name in network.state_dict()}
    return [
        name
        for name in weights
        if name not in taken
        and ".all_modules." not in name
        and not name.startswith(("decoder.encoder.", "decoder.seg_layers."))
    ]


def _source_name(name: str, network: NNUNetPlain | NNUNetResidual) -> str:
    """Return nnU-Net's name of our weight `name`."""
    part, kind, *rest = name.split(".")
    if part == "decoder":
        return _decoder_name(kind, rest, stages=len(network.config.features_per_stage))
    if isinstance(network, NNUNetPlain):
        level, _, *block = rest
        return f"encoder.stages.{level}.0.convs.{'.'.join(block)}"
    if kind == "stem":
        return f"encoder.stem.convs.0.{'.'.join(rest)}"
    level, index, member, *leaf = rest
    strides = network.config.strides[int(level)] if index == "0" else (1,)
    # Pooling, if any, precedes the projection in the same sequence.
    other = _BLOCK_PARTS.get(member) or f"skip.{int(max(strides) > 1)}"
    return f"encoder.stages.{level}.blocks.{index}.{other}.{'.'.join(leaf)}"


def _decoder_name(kind: str, rest: list[str], *, stages: int) -> str:
    # nnU-Net's decoder counts its stages from the coarsest.
    position = stages - 2 - int(rest[0])
    if kind == "stages":
        return f"decoder.stages.{position}.convs.{'.'.join(rest[2:])}"
    other = {"ups": "transpconvs", "heads": "seg_layers"}[kind]
    return f"decoder.{other}.{position}.{rest[-1]}"
