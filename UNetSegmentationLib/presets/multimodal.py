"""CT, PET and MRI of one patient on one grid; each channel is normalised according to its name."""

from .contract import PRESETS, Preset

PRESETS.register("multimodal", title="CT, PET and MRI")(
    Preset(
        title="CT, PET and MRI",
        modalities=("CT", "PT", "MR"),
        normalization="zscore",
        channel_names=("CT", "PET", "T1"),
    )
)
