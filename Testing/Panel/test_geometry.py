"""Results lie where the voxels lie, whatever the axes and transforms of the volume."""

import numpy as np
import pytest
import slicer
import vtk
from panel_driver import spheres
from vtk.util.numpy_support import vtk_to_numpy

SHAPE = (9, 12, 15)


def matrix(rotation_deg=0.0, scale=(1.0, 1.0, 1.0), origin=(0.0, 0.0, 0.0), shear=0.0):
    transform = vtk.vtkTransform()
    transform.Translate(*origin)
    transform.RotateWXYZ(rotation_deg, 0.3, 0.5, 0.8)
    transform.Scale(*scale)
    result = vtk.vtkMatrix4x4()
    result.DeepCopy(transform.GetMatrix())
    result.SetElement(0, 1, result.GetElement(0, 1) + shear)
    return result


GEOMETRIES = {
    "plain": matrix(),
    "lps": matrix(scale=(-1.0, -1.0, 1.0)),
    "left-handed": matrix(scale=(-0.7, 1.2, 2.5), origin=(40.0, -20.0, 7.0)),
    "oblique": matrix(33.0, (0.7, 1.1, 3.0), (11.0, -7.0, 30.0)),
    "oblique and flipped": matrix(120.0, (0.7, -1.1, 3.0), (-90.0, 15.0, 2.0)),
}


def block():
    array = np.full(SHAPE, 10, np.int16)
    array[2:6, 3:9, 4:13] = 150
    array[3:5, 5:8, 6:10] = 250
    return array


def run_on(panel, geometry, parent=None):
    volume = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "Block")
    volume.SetIJKToRASMatrix(geometry)
    slicer.util.updateVolumeFromArray(volume, block())
    if parent is not None:
        node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTransformNode", "Moved")
        node.SetMatrixTransformToParent(parent)
        volume.SetAndObserveTransformNodeID(node.GetID())
    panel.parameters.inputVolume = volume
    panel.choose(panel.ui.presetComboBox, "mri")
    panel.run("plain")
    return volume, panel.parameters.outputSegmentation


def world(node, points_kji, geometry):
    """Map voxel indices (n, 3) of (k, j, i) through a local geometry and the parent transforms of a node."""
    local = vtk.vtkMatrix4x4()
    local.DeepCopy(geometry)
    parent = node.GetParentTransformNode()
    if parent is not None:
        toWorld = vtk.vtkMatrix4x4()
        parent.GetMatrixTransformToWorld(toWorld)
        vtk.vtkMatrix4x4.Multiply4x4(toWorld, local, local)
    return np.array([local.MultiplyPoint((*point[::-1], 1.0))[:3] for point in points_kji.tolist()])


def centre_in_world(segmentationNode, index):
    """Return the centre of a segment's voxels from its own labelmap, image geometry and transforms."""
    segment = segmentationNode.GetSegmentation().GetNthSegment(index)
    image = segment.GetRepresentation("Binary labelmap")
    i0, i1, j0, j1, k0, k1 = image.GetExtent()
    scalars = vtk_to_numpy(image.GetPointData().GetScalars())
    mask = scalars.reshape(k1 - k0 + 1, j1 - j0 + 1, i1 - i0 + 1) == segment.GetLabelValue()
    toLocal = vtk.vtkMatrix4x4()
    image.GetImageToWorldMatrix(toLocal)
    return world(segmentationNode, np.argwhere(mask) + np.array((k0, j0, i0)), toLocal).mean(axis=0)


@pytest.mark.parametrize("transformed", [False, True], ids=["in the world", "under a transform"])
@pytest.mark.parametrize("name", GEOMETRIES)
def test_segments_lie_where_their_voxels_lie_in_the_world(panel, name, transformed):
    parent = matrix(-50.0, (1.3, 1.3, 1.3), (5.0, 60.0, -12.0)) if transformed else None
    volume, segmentation = run_on(panel, GEOMETRIES[name], parent)
    for index, isInside in enumerate((block() == 150, block() == 250)):
        expected = world(volume, np.argwhere(isInside), GEOMETRIES[name]).mean(axis=0)
        np.testing.assert_allclose(centre_in_world(segmentation, index), expected, atol=1e-6)
        segmentId = segmentation.GetSegmentation().GetNthSegmentID(index)
        found = slicer.util.arrayFromSegmentBinaryLabelmap(segmentation, segmentId, volume)
        np.testing.assert_array_equal(found > 0, isInside)


@pytest.mark.parametrize("name", GEOMETRIES)
def test_surfaces_are_those_of_slicers_own_conversion(panel, name):
    _volume, segmentation = run_on(panel, GEOMETRIES[name])
    segment = segmentation.GetSegmentation().GetNthSegment(0)
    surface = vtk.vtkPolyData()
    surface.DeepCopy(segment.GetRepresentation("Closed surface"))
    slicer.vtkBinaryLabelmapToClosedSurfaceConversionRule().Convert(segment)
    oracle = segment.GetRepresentation("Closed surface")
    np.testing.assert_allclose(surface.GetBounds(), oracle.GetBounds(), atol=0.02)
    # Where voxel axes are left-handed, Slicer's own normals point inward; ours never do.
    share = outward_share(oracle)
    assert outward_share(surface) == pytest.approx(max(share, 1 - share), abs=0.02)
    assert volume_of(surface) == pytest.approx(volume_of(oracle), rel=0.01)


def outward_share(surface):
    """Return the share of points whose normal points away from the middle."""
    points = vtk_to_numpy(surface.GetPoints().GetData())
    normals = vtk_to_numpy(surface.GetPointData().GetNormals())
    return (((points - points.mean(axis=0)) * normals).sum(axis=1) > 0).mean()


def volume_of(surface):
    properties = vtk.vtkMassProperties()
    properties.SetInputData(surface)
    return properties.GetVolume()


def test_the_worker_is_told_the_geometry_in_the_world(panel):
    parent = matrix(-50.0, (1.3, 1.3, 1.3), (5.0, 60.0, -12.0))
    volume, segmentation = run_on(panel, GEOMETRIES["oblique"], parent)
    from UNetSegmentationPanel.scene import segmentations

    affine = np.array(segmentations.provenanceOf(segmentation)["affine_ras"])
    corners = np.array([(0, 0, 0), (3, 5, 7)])
    expected = world(volume, corners, GEOMETRIES["oblique"])
    given = [(affine @ (*corner[::-1], 1.0))[:3] for corner in corners.tolist()]
    np.testing.assert_allclose(given, expected, atol=1e-9)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int32, np.float32, np.float64])
def test_every_voxel_type_arrives_as_it_is(panel, dtype):
    panel.addVolume(spheres(20, dtype) if dtype != np.uint8 else np.minimum(spheres(20), 255).astype(dtype))
    panel.run("plain")
    assert "Found Body, Core" in panel.says


def test_a_colour_picture_is_read_as_grey(panel):
    picture = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLVectorVolumeNode", "Picture")
    grey = spheres(40)[20].astype(np.uint8)
    slicer.util.updateVolumeFromArray(picture, np.stack([grey, grey, grey], axis=-1)[None])
    from UNetSegmentationPanel.scene import scene_exchange

    path = panel.folder / "picture.raw"
    work = scene_exchange.exportVolume(picture.GetID(), path)
    for _fraction in work:
        pass
    np.testing.assert_array_equal(np.fromfile(path, np.float32).reshape(grey.shape), grey)
