"""Settings of a run from the choices in the panel."""

from typing import Any

from UNetSegmentationLib.models.installed import InstalledModel

from ..choices import channels
from ..choices.parameters import regionNode
from ..scene import scene_exchange
from ..scene.segmentations import Target
from .segment_job import SegmentSettings


def settingsFor(parameters: Any, model: InstalledModel, target: Target | None) -> SegmentSettings:
    """Return the settings of a run of a model.

    Args:
        parameters: The parameter node.
        model: The chosen model.
        target: Target segmentation; None for a new one.
    """
    volumes = channels.volumesByChannel(parameters, model.description).values()
    region = regionNode(parameters)
    return SegmentSettings(
        volumeId=parameters.inputVolume.GetID(),
        modelFolder=str(model.folder),
        channelIds=tuple(None if one is None else one.GetID() for one in volumes) if len(volumes) > 1 else (),
        regionToWorld=scene_exchange.regionToWorld(region) if region is not None else None,
        target=target,
        device=parameters.device,
        mirror=parameters.mirror,
        show3D=parameters.show3D,
        withUncertainty=parameters.uncertainty,
        withProbabilities=parameters.probabilities,
    )
