"""Files go in and out by the genuine storage nodes."""

import numpy as np
import pytest


@pytest.mark.parametrize("extension", [".nrrd", ".nii.gz", ".mha"])
def test_volume_round_trip(ball, tmp_path, extension):
    import slicer

    volume = ball()
    voxels = slicer.util.arrayFromVolume(volume).copy()
    volume.SetSpacing(0.5, 1.0, 2.0)
    volume.SetOrigin(-3, 4, 5)
    path = str(tmp_path / f"ball{extension}")
    assert slicer.util.saveNode(volume, path)
    slicer.mrmlScene.RemoveNode(volume)
    again = slicer.util.loadVolume(path)
    assert again.GetName() == "ball"
    np.testing.assert_array_equal(slicer.util.arrayFromVolume(again), voxels)
    assert again.GetSpacing() == pytest.approx((0.5, 1.0, 2.0))
    assert again.GetOrigin() == pytest.approx((-3, 4, 5))
    assert (
        slicer.app.layoutManager().sliceWidget("Red").mrmlSliceCompositeNode().GetBackgroundVolumeID() == again.GetID()
    )


def test_segmentation_round_trip_keeps_names_and_colours(ball, tmp_path):
    import slicer

    volume = ball()
    segmentation = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Result")
    segmentation.SetReferenceImageGeometryParameterFromVolumeNode(volume)
    segment_id = segmentation.GetSegmentation().AddEmptySegment("", "Ball", (0.2, 0.4, 0.6))
    mask = (slicer.util.arrayFromVolume(volume) > 100).astype(np.uint8)
    slicer.util.updateSegmentBinaryLabelmapFromArray(mask, segmentation, segment_id, volume)
    path = str(tmp_path / "result.seg.nrrd")
    assert slicer.util.saveNode(segmentation, path)
    slicer.mrmlScene.RemoveNode(segmentation)
    again = slicer.util.loadSegmentation(path)
    assert again.GetName() == "result"
    segment = again.GetSegmentation().GetNthSegment(0)
    assert segment.GetName() == "Ball"
    assert segment.GetColor() == pytest.approx((0.2, 0.4, 0.6), abs=0.01)
    read = slicer.util.arrayFromSegmentBinaryLabelmap(again, again.GetSegmentation().GetNthSegmentID(0), volume)
    np.testing.assert_array_equal(read, mask)


@pytest.mark.usefixtures("slicer_app")
@pytest.mark.parametrize("extension", [".png", ".bmp", ".tif", ".jpg"])
@pytest.mark.parametrize("shape", [(6, 8), (6, 8, 3)])
def test_picture_is_a_volume_of_one_slice_seen_as_in_the_picture(tmp_path, extension, shape):
    import SimpleITK
    import slicer
    import vtk

    # Smooth, so that JPEG changes little.
    rows, columns = np.mgrid[:6, :8]
    pixels = np.broadcast_to((20 * rows + 10 * columns).T, shape[::-1]).T.astype(np.uint8)
    path = tmp_path / f"hand{extension}"
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(pixels, isVector=len(shape) == 3), str(path))
    volume = slicer.util.loadVolume(str(path))
    assert volume.GetName() == "hand"
    read = slicer.util.arrayFromVolume(volume)
    expected = np.broadcast_to(pixels.astype(int).reshape(1, *shape), read.shape)
    np.testing.assert_allclose(read, expected, atol=0 if extension != ".jpg" else 12)
    matrix = vtk.vtkMatrix4x4()
    volume.GetIJKToRASMatrix(matrix)
    assert [matrix.GetElement(axis, axis) for axis in range(3)] == pytest.approx([-1, -1, 1])
    composite = slicer.app.layoutManager().sliceWidget("Red").mrmlSliceCompositeNode()
    assert composite.GetBackgroundVolumeID() == volume.GetID()


@pytest.mark.usefixtures("slicer_app")
def test_file_that_is_no_picture_is_an_error(tmp_path):
    import slicer

    path = tmp_path / "broken.png"
    path.write_bytes(b"no picture")
    with pytest.raises(RuntimeError):
        slicer.util.loadVolume(str(path))


@pytest.mark.usefixtures("slicer_app")
def test_missing_file_is_an_error(tmp_path):
    import slicer

    with pytest.raises(RuntimeError):
        slicer.util.loadVolume(str(tmp_path / "absent.nrrd"))


def test_subject_hierarchy_follows_the_scene(ball):
    import slicer

    volume = ball()
    hierarchy = slicer.mrmlScene.GetSubjectHierarchyNode()
    item = hierarchy.GetItemByDataNode(volume)
    assert item
    slicer.mrmlScene.RemoveNode(volume)
    assert not hierarchy.GetItemName(item)
    slicer.mrmlScene.Clear()
    again = ball()
    assert slicer.mrmlScene.GetSubjectHierarchyNode().GetItemByDataNode(again)
