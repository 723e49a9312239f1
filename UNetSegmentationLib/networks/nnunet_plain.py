"""nnU-Net's plain U-Net (Isensee et al. 2021, doi:10.1038/s41592-020-01008-z) as configured by its planner."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ..core.errors import InputError
from .contract import NETWORKS, SegmentationNetwork
from .parts.blocks import initialise_weights
from .unet import Decoder, Encoder, UNetConfig


@dataclass(frozen=True, kw_only=True)
class NNUNetConfig(UNetConfig):
    """Shape of nnU-Net's networks; `encoder_stages.plan_stages` gives features, strides and kernels for a patch.

    Attributes:
        encoder_convs: Convolutions of each encoder stage; empty: convs_per_stage everywhere.
        decoder_convs: Convolutions of each decoder stage, finest first; empty: convs_per_stage everywhere.
    """

    downsampling: str = "strided"
    conv_bias: bool | None = True
    encoder_convs: tuple[int, ...] = ()
    decoder_convs: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        depth = len(self.features_per_stage)
        encoder = tuple(self.encoder_convs) or self._default_encoder_convs(depth)
        object.__setattr__(self, "encoder_convs", encoder)
        decoder = tuple(self.decoder_convs) or self._default_decoder_convs(depth)
        object.__setattr__(self, "decoder_convs", decoder)
        super().__post_init__()

    def _default_encoder_convs(self, depth: int) -> tuple[int, ...]:
        return (self.convs_per_stage,) * depth

    def _default_decoder_convs(self, depth: int) -> tuple[int, ...]:
        return (self.convs_per_stage,) * (depth - 1)

    def _check(self, depth: int, axes: int) -> None:
        super()._check(depth, axes)
        for name, needed in (("encoder_convs", depth), ("decoder_convs", depth - 1)):
            convs = getattr(self, name)
            if len(convs) != needed or min(convs, default=1) < 1:
                raise InputError(f"{type(self).__name__}: {name} is {convs}: must be {needed} numbers of at least 1")
        if self.downsampling != "strided" or self.upsampling != "transposed":
            raise InputError(
                f"{type(self).__name__}: nnU-Net strides down and up-samples by transposing: leave both options out"
            )


@NETWORKS.register("nnunet_plain", title="nnU-Net plain")
class NNUNetPlain(SegmentationNetwork):
    """U-Net with strided convolutions, instance norm and leaky rectifiers."""

    Config = NNUNetConfig
    config: NNUNetConfig

    def __init__(self, config: NNUNetConfig) -> None:
        super().__init__(config)
        self.encoder = Encoder(config, convs=config.encoder_convs)
        self.decoder = Decoder(config, convs=config.decoder_convs)
        initialise_weights(self)

    def forward_aligned(self, image: Tensor) -> Tensor | list[Tensor]:
        """Map image (B, C, D, H, W) or (B, C, H, W) to logits (B, K, same size)."""
        logits: Tensor | list[Tensor] = self.decoder(self.encoder(image))
        return logits
