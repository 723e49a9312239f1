"""Projection radiography: 2D, arbitrary scale, contrast stretched between percentiles."""

from .contract import PRESETS, Preset

PRESETS.register("xray", title="X-ray")(
    Preset(
        title="X-ray",
        modalities=("CR", "DX", "RG", "XA"),
        normalization="percentile",
        dimensions=(2,),
        channel_names=("X-ray",),
    )
)
