"""Configurations from papers and their widely used versions, with their published sizes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any


@dataclass(frozen=True, kw_only=True)
class PaperConfiguration:
    """One published configuration.

    Attributes:
        title: Displayed name.
        network: Registered name.
        config: Its configuration.
        weights: Number of weights of our network.
        published: Number of weights of the published network.
        source: Source of the published number.
        difference: Why the two differ; empty if they agree.
    """

    title: str
    network: str
    config: Mapping[str, Any]
    weights: int
    published: int
    source: str
    difference: str = ""


_WIDE = (64, 128, 256, 512, 1024)
_NESTED = (32, 64, 128, 256, 512)
_PLAIN_2D: dict[str, Any] = {"dimensions": 2, "activation": "relu"}
# Two classes need one more head channel than the published single sigmoid.
_SECOND_CLASS = "{} more weights: {} with a second output channel, where the published one has a single sigmoid"
_VNET_HEAD = "7,944 fewer weights: our head is the paper's 1x1x1 convolution; MONAI adds a 5x5x5 convolution before it"


PAPER_CONFIGURATIONS: Mapping[str, PaperConfiguration] = MappingProxyType(
    {
        "unet_2d": PaperConfiguration(
            title="U-Net (Ronneberger 2015), padded",
            network="unet",
            config={
                **_PLAIN_2D,
                "in_channels": 1,
                "num_classes": 2,
                "features_per_stage": _WIDE,
                "norm": "none",
            },
            weights=31_030_658,
            published=31_030_658,
            source="counted from the paper's layers, with padded convolutions and biases",
        ),
        "unet_2d_batch_norm": PaperConfiguration(
            title="U-Net with batch norm",
            network="unet",
            config={
                **_PLAIN_2D,
                "in_channels": 1,
                "num_classes": 2,
                "features_per_stage": _WIDE,
                "norm": "batch",
            },
            weights=31_036_546,
            published=31_036_546,
            source="as above, with batch norm instead of convolution biases",
        ),
        "unet_2d_interpolating": PaperConfiguration(
            title="U-Net with upsampling by interpolation and convolution",
            network="unet",
            config={
                **_PLAIN_2D,
                "in_channels": 3,
                "num_classes": 2,
                "features_per_stage": _WIDE,
                "norm": "batch",
                "upsampling": "nearest_conv",
                "conv_bias": True,
            },
            weights=34_527_106,
            published=34_521_153,
            source="counted from the widely used version, whose stages have no convolution bias",
            difference="5,888 convolution biases before batch norms, and a second output channel (65)",
        ),
        "vnet_3d": PaperConfiguration(
            title="V-Net (Milletari 2016)",
            network="vnet",
            config={
                "in_channels": 1,
                "num_classes": 2,
                "dimensions": 3,
                "features_per_stage": (16, 32, 64, 128, 256),
                "norm": "batch",
                "activation": "elu",
                "encoder_convs": (1, 1, 2, 3, 2),
                "decoder_convs": (1, 1, 2, 2),
            },
            weights=45_589_954,
            published=45_597_898,
            source="MONAI's VNet for one channel and two classes",
            difference=_VNET_HEAD,
        ),
        "unet_plus_plus_2d": PaperConfiguration(
            title="U-Net++ (Zhou 2018), four heads",
            network="unet_plus_plus",
            config={
                **_PLAIN_2D,
                "in_channels": 1,
                "num_classes": 2,
                "features_per_stage": _NESTED,
                "norm": "batch",
                "conv_bias": True,
                "deep_supervision": True,
            },
            weights=9_162_984,
            published=9_162_852,
            source="counted from the widely used version; the paper's 9.04 M has three channels and no norm weights",
            difference=_SECOND_CLASS.format("132", "four heads"),
        ),
        "unet_plus_plus_2d_wide": PaperConfiguration(
            title="U-Net++ as wide as U-Net",
            network="unet_plus_plus",
            config={
                **_PLAIN_2D,
                "in_channels": 1,
                "num_classes": 2,
                "features_per_stage": _WIDE,
                "norm": "batch",
                "conv_bias": True,
                "deep_supervision": True,
            },
            weights=36_628_936,
            published=36_628_676,
            source="counted from the widely used version",
            difference=_SECOND_CLASS.format("260", "four heads"),
        ),
        "attention_unet_2d": PaperConfiguration(
            title="Attention U-Net (Oktay 2018)",
            network="attention_unet",
            config={
                **_PLAIN_2D,
                "in_channels": 3,
                "num_classes": 2,
                "features_per_stage": _WIDE,
                "norm": "batch",
                "upsampling": "nearest_conv",
                "conv_bias": True,
            },
            weights=34_878_638,
            published=34_878_573,
            source="counted from the widely used version",
            difference=_SECOND_CLASS.format("65", "a head"),
        ),
        "nnunet_3d_fullres": PaperConfiguration(
            title="nnU-Net plain, patch 128 x 128 x 128",
            network="nnunet_plain",
            config={
                "in_channels": 1,
                "num_classes": 2,
                "dimensions": 3,
                "features_per_stage": (32, 64, 128, 256, 320, 320),
                "deep_supervision": True,
            },
            weights=31_195_594,
            published=31_195_594,
            source="dynamic-network-architectures' PlainConvUNet with the same plan",
        ),
        "nnunet_residual_3d": PaperConfiguration(
            title="nnU-Net residual encoder M, patch 128 x 128 x 128",
            network="nnunet_residual",
            config={
                "in_channels": 1,
                "num_classes": 2,
                "dimensions": 3,
                "features_per_stage": (32, 64, 128, 256, 320, 320),
                "deep_supervision": True,
            },
            weights=102_349_770,
            published=102_349_770,
            source="dynamic-network-architectures' ResidualEncoderUNet with the same plan",
        ),
    }
)
