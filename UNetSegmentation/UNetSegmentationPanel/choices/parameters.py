"""Every choice of the user, kept in the scene's parameter node so that it survives save and reload."""

from typing import Any

import slicer
from slicer.parameterNodeWrapper import parameterNodeWrapper

from UNetSegmentationLib.models.description import id_from

CHANNEL_ROLE = "channel."
REGION_ROLE = "region"


@parameterNodeWrapper
class UNetSegmentationParameterNode:
    """State of the panel; besides, the node refers to a volume for each further channel, and to the region.

    Attributes:
        inputVolume: Volume to segment; the result lies on its grid.
        inputChannel: Name of the model's channel that it is; empty takes the one that its name tells, else the first.
        outputSegmentation: Where the result went; None until there is one, and for a new one.
        preset: Registered name of the modality preset; empty until a volume is chosen.
        network: Registered name of the network; empty takes the first that has a model.
        model: Id of the model; empty takes the first that fits.
        device: "auto", "cpu", or an id that the worker offered.
        mirror: Average over mirrored copies.
        show3D: Make surfaces and show them in 3D views.
        uncertainty: Make a volume of the uncertainty.
        probabilities: Make a volume of probabilities for each segment.
    """

    inputVolume: slicer.vtkMRMLScalarVolumeNode
    outputSegmentation: slicer.vtkMRMLSegmentationNode
    inputChannel: str = ""
    preset: str = ""
    network: str = ""
    model: str = ""
    device: str = "auto"
    mirror: bool = False
    show3D: bool = True
    uncertainty: bool = False
    probabilities: bool = False


def channelVolume(parameters: Any, channel: str) -> Any:
    """Return the volume chosen for a channel besides that of the input volume, or None."""
    return parameters.parameterNode.GetNodeReference(_roleOf(channel))


def setChannelVolume(parameters: Any, channel: str, node: Any) -> None:
    """Choose a volume for a channel, or None."""
    parameters.parameterNode.SetNodeReferenceID(_roleOf(channel), node.GetID() if node is not None else None)


def regionNode(parameters: Any) -> Any:
    """Return the markups ROI that limits the run, or None."""
    return parameters.parameterNode.GetNodeReference(REGION_ROLE)


def setRegionNode(parameters: Any, node: Any) -> None:
    """Choose a markups ROI that limits the run, or None."""
    parameters.parameterNode.SetNodeReferenceID(REGION_ROLE, node.GetID() if node is not None else None)


def _roleOf(channel: str) -> str:
    # Scene files separate roles by signs that a name may hold.
    return CHANNEL_ROLE + id_from(channel)
