"""The user's choices, stored in the scene's parameter node so that they are saved with the scene."""

from typing import Any

import slicer
from slicer.parameterNodeWrapper import parameterNodeWrapper

from UNetSegmentationLib.models.description import id_from

CHANNEL_ROLE = "channel."
REGION_ROLE = "region"


@parameterNodeWrapper
class UNetSegmentationParameterNode:
    """State of the panel; the node also holds references to the volumes of the other channels and to the region.

    Attributes:
        inputVolume: Volume to segment; the result has its geometry.
        inputChannel: Channel of the input volume; if empty, the one suggested by its name, else the first.
        outputSegmentation: Segmentation of the result; None for a new one.
        preset: Registered name of the modality preset; empty until a volume is chosen.
        network: Registered name of the network; if empty, the first one with a model.
        model: ID of the model; if empty, the first suitable one.
        device: "auto", "cpu" or the ID of a device offered by the worker.
        mirror: Average over mirrored copies.
        show3D: Create surfaces and show them in 3D views.
        uncertainty: Create an uncertainty map.
        probabilities: Create a probability map for each segment.
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
    """Return the volume chosen for a channel other than that of the input volume, or None."""
    return parameters.parameterNode.GetNodeReference(_roleOf(channel))


def setChannelVolume(parameters: Any, channel: str, node: Any) -> None:
    """Set the volume of a channel, or None."""
    parameters.parameterNode.SetNodeReferenceID(_roleOf(channel), node.GetID() if node is not None else None)


def regionNode(parameters: Any) -> Any:
    """Return the markups ROI that limits the run, or None."""
    return parameters.parameterNode.GetNodeReference(REGION_ROLE)


def setRegionNode(parameters: Any, node: Any) -> None:
    """Set the markups ROI that limits the run, or None."""
    parameters.parameterNode.SetNodeReferenceID(REGION_ROLE, node.GetID() if node is not None else None)


def _roleOf(channel: str) -> str:
    # In scene files, roles are separated by characters that a name may contain.
    return CHANNEL_ROLE + id_from(channel)
