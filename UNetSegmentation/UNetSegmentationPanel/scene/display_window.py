"""Default window and level by modality, unless they were already set."""

from typing import Any

import numpy as np

from UNetSegmentationLib.presets import PRESETS

from . import scene_exchange

# Excludes markers and collimator edges.
STRETCH_PERCENTILES = (1.0, 99.0)


class DisplayWindow:
    """Sets window and level of the chosen volume, unless they were set by the user, a file or another module."""

    def __init__(self) -> None:
        self._done: tuple[Any, ...] = ()
        # Values set here, by volume, so that they may be changed for another modality.
        self._ours: dict[str, tuple[float, float]] = {}

    def forget(self) -> None:
        """Forget all volumes."""
        self._done = ()
        self._ours = {}

    def follow(self, volumeNode: Any, presetName: str) -> None:
        """Set the window of a volume by modality, once for each combination of volume and modality."""
        display = volumeNode.GetDisplayNode()
        key = (volumeNode.GetID(), presetName, display is not None)
        if key == self._done:
            return
        self._done = key
        isGrey = volumeNode.GetImageData().GetNumberOfScalarComponents() == 1
        if display is None or not isGrey or not display.IsA("vtkMRMLScalarVolumeDisplayNode"):
            return
        isOurs = self._ours.get(volumeNode.GetID()) == (display.GetWindow(), display.GetLevel())
        if not (display.GetAutoWindowLevel() or isOurs):
            return
        wanted = windowOf(volumeNode, presetName)
        if wanted is None:
            display.SetAutoWindowLevel(True)
            return
        display.SetAutoWindowLevel(False)
        display.SetWindowLevel(*wanted)
        self._ours[volumeNode.GetID()] = (display.GetWindow(), display.GetLevel())


def windowOf(volumeNode: Any, presetName: str) -> tuple[float, float] | None:
    """Return window and level for a volume and preset; None for Slicer's automatic window."""
    preset = PRESETS[presetName]
    if preset.display_window is not None or preset.normalization != "percentile":
        return preset.display_window
    sample = scene_exchange.sampleOf(volumeNode)
    sample = sample[np.isfinite(sample)]
    if sample.size == 0:
        return None
    low, high = np.percentile(sample, STRETCH_PERCENTILES)
    return (float(high - low), float((high + low) / 2)) if high > low else None
