"""Magnetic resonance imaging: arbitrary intensity scale, normalised per image."""

from .contract import PRESETS, Preset

PRESETS.register("mri", title="MRI")(
    Preset(title="MRI", modalities=("MR",), normalization="zscore", channel_names=("T1", "T1 contrast", "T2", "FLAIR"))
)
