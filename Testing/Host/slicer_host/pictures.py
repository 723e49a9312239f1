"""Pictures as volumes; slicer-core's ITK brings no readers for them, VTK does."""

from pathlib import Path

import slicer
import vtk

_READERS = {
    ".png": vtk.vtkPNGReader,
    ".jpg": vtk.vtkJPEGReader,
    ".jpeg": vtk.vtkJPEGReader,
    ".bmp": vtk.vtkBMPReader,
    ".tif": vtk.vtkTIFFReader,
    ".tiff": vtk.vtkTIFFReader,
}


def is_picture(path):
    """Tell whether a file is a picture by its name."""
    return Path(path).suffix.lower() in _READERS


def load_picture(path, name):
    """Read a picture as Slicer does: a vector volume where it has colours; None where it cannot be read."""
    reader = _READERS[Path(path).suffix.lower()]()
    if not reader.CanReadFile(path):
        return None
    reader.SetFileName(path)
    if reader.IsA("vtkBMPReader"):
        reader.Allow8BitBMPOn()
    rows = reader
    if not reader.IsA("vtkTIFFReader"):
        # The first row of VTK's other readers is the lowest, that of Slicer's the topmost.
        rows = vtk.vtkImageFlip()
        rows.SetInputConnection(reader.GetOutputPort())
        rows.SetFilteredAxis(1)
    rows.Update()
    image = rows.GetOutput()
    image.SetOrigin(0, 0, 0)
    image.SetSpacing(1, 1, 1)
    scene = slicer.mrmlScene
    node_class = "vtkMRMLScalarVolumeNode" if image.GetNumberOfScalarComponents() == 1 else "vtkMRMLVectorVolumeNode"
    node = scene.AddNewNodeByClass(node_class, scene.GetUniqueNameByString(name))
    # Columns run to the left, rows to the back.
    node.SetIJKToRASDirections(-1, 0, 0, 0, -1, 0, 0, 0, 1)
    node.SetAndObserveImageData(image)
    node.CreateDefaultDisplayNodes()
    return node
