"""Computed tomography: Hounsfield units, soft-tissue window (width 400, level 40) in the viewer."""

from .contract import PRESETS, Preset

PRESETS.register("ct", title="CT")(
    Preset(
        title="CT",
        modalities=("CT",),
        normalization="ct",
        display_window=(400.0, 40.0),
        channel_names=("CT",),
        tissue_ranges_hu=(("lung", -1000.0, -400.0), ("soft tissue", -100.0, 100.0), ("bone", 400.0, None)),
    )
)
