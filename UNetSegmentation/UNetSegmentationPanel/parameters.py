"""Every choice of the user, kept in the scene's parameter node so that it survives save and reload."""

import slicer
from slicer.parameterNodeWrapper import parameterNodeWrapper


@parameterNodeWrapper
class UNetSegmentationParameterNode:
    """State of the panel.

    Attributes:
        inputVolume: Volume to segment.
        outputSegmentation: Where the result went; None until there is one, and for a new one.
        preset: Registered name of the modality preset; empty until a volume is chosen.
        network: Registered name of the network; empty takes the first that has a model.
        model: Id of the model; empty takes the first that fits.
        device: "auto", "cpu", or an id that the worker offered.
        mirror: Average over mirrored copies.
        show3D: Make surfaces and show them in 3D views.
    """

    inputVolume: slicer.vtkMRMLScalarVolumeNode
    outputSegmentation: slicer.vtkMRMLSegmentationNode
    preset: str = ""
    network: str = ""
    model: str = ""
    device: str = "auto"
    mirror: bool = False
    show3D: bool = True
