"""Window and level of the viewer by modality, as long as nobody has set them otherwise."""

from typing import Any

import numpy as np

from UNetSegmentationLib.presets import PRESETS

from . import scene_exchange

# Markers and collimator edges lie outside of these.
STRETCH_PERCENTILES = (1.0, 99.0)


class DisplayWindow:
    """Sets window and level of the chosen volume; what a person, a file or another module set is left alone."""

    def __init__(self) -> None:
        self._done: tuple[Any, ...] = ()
        # Our own setting by volume, so that another modality may change it again.
        self._ours: dict[str, tuple[float, float]] = {}

    def forget(self) -> None:
        """Let go of the scene."""
        self._done = ()
        self._ours = {}

    def follow(self, volumeNode: Any, presetName: str) -> None:
        """Show a volume as its modality is read; once for each choice of volume and modality."""
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
    """Return width and level of the window for a volume of a modality; None where the viewer chooses."""
    preset = PRESETS[presetName]
    if preset.display_window is not None or preset.normalization != "percentile":
        return preset.display_window
    sample = scene_exchange.sampleOf(volumeNode)
    sample = sample[np.isfinite(sample)]
    if sample.size == 0:
        return None
    low, high = np.percentile(sample, STRETCH_PERCENTILES)
    return (float(high - low), float((high + low) / 2)) if high > low else None
