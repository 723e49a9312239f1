"""What is written can be read again, by us and by others, at the same place."""

import gzip
from contextlib import contextmanager

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import ndimage
from scipy.spatial.transform import Rotation

from UNetSegmentationLib.core.errors import InputError
from UNetSegmentationLib.image import seg_nrrd_header
from UNetSegmentationLib.image.geometry import Volume, same_grid
from UNetSegmentationLib.image.labels import Code, Label
from UNetSegmentationLib.image.volume_io import (
    read_channels,
    read_labelmap,
    read_volume,
    resample_onto,
    stack_channels,
    stem_of,
    write_labelmap,
    write_volume,
)

LABELS = (
    Label(value=1, name="Ventrikel größer", color=(255, 0, 10)),
    Label(value=3, name="Lung", color=(0, 128, 255), term=Code(scheme="SCT", value="39607008", meaning="Lung")),
)


def oblique(angles=(20.0, -35.0, 50.0), spacing=(0.7, 1.5, 3.1), flip=1.0):
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xyz", angles, degrees=True).as_matrix() * np.array(spacing)
    affine[:3, 0] *= flip
    affine[:3, 3] = (-12.5, 33.0, 140.25)
    return affine


def image(dtype=np.int16, shape=(1, 4, 5, 6)):
    return np.random.default_rng(0).integers(0, 100, shape).astype(dtype)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".nrrd", ".mha"])
@pytest.mark.parametrize("flip", [1.0, -1.0])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_volume_comes_back_at_the_same_place(tmp_path, suffix, flip, channels):
    volume = Volume(image(shape=(channels, 4, 5, 6)), oblique(flip=flip))
    path = tmp_path / f"größe 1{suffix}"
    write_volume(path, volume)
    again = read_volume(path)
    np.testing.assert_array_equal(again.array, volume.array)
    assert same_grid(again, volume)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(angles=st.tuples(*[st.floats(-90, 90)] * 3), flip=st.sampled_from((1.0, -1.0)))
def test_nibabel_agrees_on_the_affine(tmp_path, angles, flip):
    volume = Volume(image(), oblique(angles, flip=flip))
    write_volume(tmp_path / "a.nii.gz", volume)
    other = nibabel.load(tmp_path / "a.nii.gz")
    np.testing.assert_allclose(other.affine, volume.affine_ras, atol=1e-3)
    np.testing.assert_array_equal(np.asarray(other.dataobj).transpose(2, 1, 0), volume.array[0])


def save_with_sform(path, affine, *, qform=None):
    other = nibabel.Nifti1Image(image()[0].transpose(2, 1, 0), None)
    other.set_qform(qform, 0 if qform is None else 1)
    other.set_sform(affine, 1)
    other.header["pixdim"][1:4] = np.linalg.norm(affine[:3, :3], axis=0)
    nibabel.save(other, path)


@pytest.mark.parametrize("decimals", [5, 3, 2])
@pytest.mark.parametrize("with_qform", [False, True])
def test_directions_that_were_rounded_stay_where_they_are(tmp_path, decimals, with_qform):
    """ITK turns such an image the other way round."""
    exact = oblique()
    rounded = exact.copy()
    rounded[:3, :3] = exact[:3, :3].round(decimals)
    save_with_sform(tmp_path / "a.nii.gz", rounded, qform=exact if with_qform else None)
    assert same_grid(read_volume(tmp_path / "a.nii.gz"), Volume(image(), exact), tolerance_mm=20 * 10.0**-decimals)


@pytest.mark.parametrize(("unit", "factor"), [("mm", 1.0), ("unknown", 1.0), ("meter", 1000.0), ("micron", 0.001)])
@pytest.mark.parametrize("decimals", [2, 7])
def test_the_unit_of_the_header_counts(tmp_path, unit, factor, decimals):
    affine = oblique()
    affine[:3, :3] = affine[:3, :3].round(decimals)
    other = nibabel.Nifti1Image(image()[0].transpose(2, 1, 0), affine)
    other.header.set_xyzt_units(unit)
    nibabel.save(other, tmp_path / "a.nii.gz")
    affine[:3] *= factor
    np.testing.assert_allclose(read_volume(tmp_path / "a.nii.gz").affine_ras, affine, rtol=0, atol=0.02 * factor)


@pytest.mark.parametrize(("slope", "offset"), [(0.5, -7.25), (2.0, 0.0), (1.0, -1024.0), (0.0031, 0.17), (1.0, 0.0)])
@pytest.mark.parametrize("dtype", ["u1", "i2", "u2", "i4", "u4", "i8", "f4", "f8"])
@pytest.mark.parametrize("order", "<>")
def test_stored_numbers_become_values_as_itk_makes_them(tmp_path, slope, offset, dtype, order):
    stored = image(dtype)[0]
    header = nibabel.Nifti1Header(endianness=order)
    header.set_data_dtype(dtype)
    other = nibabel.Nifti1Image(stored.transpose(2, 1, 0), np.eye(4), header)
    other.header.set_slope_inter(slope, offset)
    path = tmp_path / "a.nii.gz"
    with gzip.open(path, "wb") as file:
        content = other.header.copy()
        content["vox_offset"], content["magic"] = 352, b"n+1"
        content["scl_slope"], content["scl_inter"] = slope, offset
        file.write(content.binaryblock + bytes(4) + stored.astype(stored.dtype.newbyteorder(order)).tobytes())
    found, by_itk = read_volume(path).array[0], sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
    assert found.dtype == by_itk.dtype
    assert found.dtype.isnative
    assert found.flags.writeable
    np.testing.assert_array_equal(found, by_itk)
    np.testing.assert_allclose(found, stored * np.float64(slope) + offset, rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize("shape", [(5, 6), (5, 6, 1), (5, 6, 4, 1), (5, 6, 4, 3), (5, 6, 4, 1, 3), (5, 1, 1)])
def test_axes_of_any_number_are_those_of_itk(tmp_path, shape):
    stored = np.arange(np.prod(shape), dtype=np.int16).reshape(shape)
    path = tmp_path / "a.nii.gz"
    other = nibabel.Nifti1Image(stored, np.diag((-2.0, -3.0, 4.0, 1.0)))
    if len(shape) == 5:
        other.header.set_intent("vector")
    nibabel.save(other, path)
    found, by_itk = read_volume(path), sitk.ReadImage(str(path))
    array = sitk.GetArrayFromImage(by_itk)
    expected = np.moveaxis(array, -1, 0) if by_itk.GetNumberOfComponentsPerPixel() > 1 else array
    np.testing.assert_array_equal(found.array.ravel(), expected.ravel())
    np.testing.assert_array_equal(found.array.ravel(), stored.ravel(order="F"))
    assert found.shape == (*(1,) * (3 - len(shape)), *shape[2::-1])


def test_a_packed_file_is_unpacked_once_and_its_checksum_counts(tmp_path, monkeypatch):
    path, stored = tmp_path / "a.nii.gz", image(shape=(1, 40, 50, 60))
    write_volume(path, Volume(stored, np.eye(4)))
    monkeypatch.setattr(sitk.ImageFileReader, "Execute", lambda _: pytest.fail("ITK unpacks it as well"))
    np.testing.assert_array_equal(read_volume(path).array, stored)
    content = bytearray(path.read_bytes())
    content[-6] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match="damaged"):
        read_volume(path)


def test_axes_that_are_not_at_right_angles_are_refused(tmp_path):
    sheared = oblique()
    sheared[:3, 2] += 2 * sheared[:3, 1]
    save_with_sform(tmp_path / "a.nii", sheared)
    with pytest.raises(InputError, match="not perpendicular .* resample it"):
        read_volume(tmp_path / "a.nii")
    header = "NRRD0004\ntype: uchar\ndimension: 3\nsizes: 6 5 4\nencoding: raw\nspace: left-posterior-superior\n"
    directions = "space directions: (1,0.5,0) (0,1,0) (0,0,3)\nkinds: domain domain domain\n\n"
    (tmp_path / "a.nrrd").write_bytes((header + directions).encode() + bytes(range(120)))
    with pytest.raises(InputError, match="not perpendicular .* resample it"):
        read_volume(tmp_path / "a.nrrd")


def test_a_nifti_file_that_is_not_packed_may_be_named_so(tmp_path):
    write_volume(tmp_path / "a.nii", Volume(image(), np.eye(4)))
    (tmp_path / "a.nii").rename(tmp_path / "a.nii.gz")
    np.testing.assert_array_equal(read_volume(tmp_path / "a.nii.gz").array, image())


def test_a_four_dimensional_file_becomes_channels(tmp_path):
    data = np.random.default_rng(1).random((3, 4, 5, 2), dtype=np.float32)
    nibabel.save(nibabel.Nifti1Image(data, np.diag((-2.0, -2.0, 3.0, 1.0))), tmp_path / "time.nii.gz")
    volume = read_volume(tmp_path / "time.nii.gz")
    assert volume.array.shape == (2, 5, 4, 3)
    np.testing.assert_array_equal(volume.array, data.transpose(3, 2, 1, 0))
    assert volume.spacing_mm == (3.0, 2.0, 2.0)


@pytest.mark.parametrize("suffix", [".seg.nrrd", ".nii.gz", ".nrrd", ".mha"])
def test_a_labelmap_comes_back(tmp_path, suffix):
    labelmap = np.random.default_rng(2).choice([0, 1, 3], (4, 5, 6)).astype(np.uint8)
    path = tmp_path / f"out{suffix}"
    write_labelmap(path, labelmap, affine_ras=oblique(), labels=LABELS)
    again = read_labelmap(path)
    np.testing.assert_array_equal(again.array[0], labelmap)
    assert again.array.dtype == np.uint8
    assert same_grid(again, Volume(labelmap[None], oblique()))


def test_segments_carry_name_colour_value_and_term(tmp_path):
    labelmap = np.zeros((4, 5, 6), np.uint8)
    labelmap[1:3, 2:4, 3:6] = 3
    path = tmp_path / "a.seg.nrrd"
    write_labelmap(path, labelmap, affine_ras=oblique(), labels=LABELS)
    header = sitk.ReadImage(str(path))
    assert header.GetMetaData("Segment0_Name") == "Ventrikel größer"
    assert header.GetMetaData("Segment1_Name") == "Lung"
    assert header.GetMetaData("Segment1_LabelValue") == "3"
    assert header.GetMetaData("Segment1_Color") == "0.000000 0.501961 1.000000"
    assert header.GetMetaData("Segment1_Extent") == "3 5 2 3 1 2"
    assert header.GetMetaData("Segment0_Extent") == "0 -1 0 -1 0 -1"
    assert "SCT^39607008^Lung" in header.GetMetaData("Segment1_Tags")


def test_label_values_above_255_are_kept(tmp_path):
    labelmap = np.zeros((2, 3, 4), np.int32)
    labelmap[0, 0, 0] = 300
    write_labelmap(tmp_path / "a.nii.gz", labelmap, affine_ras=np.eye(4))
    assert read_labelmap(tmp_path / "a.nii.gz").array.max() == 300


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
def test_pictures_become_one_channel_of_one_slice(tmp_path, mode):
    Image.fromarray(np.full((5, 7), 100, np.uint8)).convert(mode).save(tmp_path / "x.png")
    volume = read_volume(tmp_path / "x.png")
    assert volume.array.shape == (1, 1, 5, 7)
    assert (volume.array == 100).all()


def test_a_labelmap_of_one_slice_can_be_a_picture(tmp_path):
    labelmap = np.zeros((1, 5, 7), np.uint8)
    labelmap[0, 2, 3] = 1
    write_labelmap(tmp_path / "x.png", labelmap, affine_ras=np.diag((-1.0, -1.0, 1.0, 1.0)))
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "x.png")), labelmap[0])
    with pytest.raises(InputError, match=r"2 slices.*nii\.gz"):
        write_labelmap(tmp_path / "x.png", np.zeros((2, 5, 7), np.uint8), affine_ras=np.eye(4))


def dicom_series(folder, positions_mm, uid="1.2.3.4", tilt=0.0, modality="CT"):
    folder.mkdir(exist_ok=True)
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    for index, z in enumerate(positions_mm):
        slice_ = sitk.GetImageFromArray(np.full((8, 9), index + 1, np.int16))
        slice_.SetSpacing((0.5, 0.75))
        for key, value in {
            "0008|0016": "1.2.840.10008.5.1.4.1.1.2",
            "0008|0018": f"{uid}.{index}",
            "0020|000e": uid,
            "0020|000d": "1.2.3",
            "0020|0032": f"-10\\{-20 + tilt * z}\\{z}",
            "0020|0037": "1\\0\\0\\0\\1\\0",
            "0020|0013": str(index),
            "0018|0050": "5",
            "0008|0060": modality,
        }.items():
            slice_.SetMetaData(key, value)
        writer.SetFileName(str(folder / f"{uid}-{index}.dcm"))
        writer.Execute(slice_)


def test_dicom_that_is_no_image_is_passed_over_and_alone_it_is_told(tmp_path):
    """A segmentation, by its header, beside the images that it belongs to, and without them."""
    dicom_series(tmp_path / "s", (1.0, 2.0, 3.0), uid="1.2.3.4")
    dicom_series(tmp_path / "s", (1.0, 2.0), uid="1.2.3.5", modality="SEG")
    assert read_volume(tmp_path / "s").shape[0] == 3
    dicom_series(tmp_path / "only", (1.0, 2.0), uid="1.2.3.6", modality="SEG")
    dicom_series(tmp_path / "only", (1.0, 2.0), uid="1.2.3.7", modality="SEG")
    with pytest.raises(InputError, match="only contains no images, only DICOM segmentations"):
        read_volume(tmp_path / "only")


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".nrrd"])
def test_gaps_stay_gaps_in_every_format(tmp_path, suffix, dtype, channels):
    array = np.random.default_rng(0).normal(size=(channels, 3, 4, 5)).astype(dtype)
    array[-1, 1, 2, 3] = array[0, 0, 0, 4] = np.nan
    write_volume(tmp_path / f"a{suffix}", Volume(array, oblique()))
    volume = read_volume(tmp_path / f"a{suffix}")
    assert volume.array.dtype == array.dtype
    assert np.array_equal(volume.array, array, equal_nan=True)
    assert np.allclose(volume.affine_ras, oblique(), atol=1e-5)


def test_the_fourth_axis_of_a_file_of_another_byte_order_keeps_its_gaps(tmp_path):
    array = np.arange(2 * 3 * 4 * 5, dtype=">f4").reshape(5, 4, 3, 2)
    array[1, 2, 1, 1] = np.inf
    header = nibabel.Nifti1Header(endianness=">")
    header.set_data_dtype(">f4")
    nibabel.save(nibabel.Nifti1Image(array, np.eye(4), header), tmp_path / "a.nii")
    read = read_volume(tmp_path / "a.nii").array
    assert np.array_equal(np.isnan(read), ~np.isfinite(array.T))
    assert np.array_equal(read[~np.isnan(read)], array.T[np.isfinite(array.T)])


def test_a_dicom_folder_and_any_of_its_files_give_the_whole_series(tmp_path):
    dicom_series(tmp_path / "été", (10.0, 12.0, 14.0))
    volume = read_volume(tmp_path / "été")
    assert volume.shape == (3, 8, 9)
    # Distances come from the positions (2 mm), not from the slice thickness (5 mm).
    assert volume.spacing_mm == pytest.approx((2.0, 0.75, 0.5))
    assert volume.array[0, :, 0, 0].tolist() == [1, 2, 3]
    assert same_grid(read_volume(tmp_path / "été" / "1.2.3.4-1.dcm"), volume)


def test_a_missing_slice_is_noticed(tmp_path):
    dicom_series(tmp_path / "s", (10.0, 12.0, 16.0, 18.0))
    with pytest.raises(InputError, match=r"2\.00 to 4\.00 mm apart"):
        read_volume(tmp_path / "s")


def test_slices_at_one_place_or_stacked_askew_are_refused(tmp_path):
    dicom_series(tmp_path / "time", (10.0, 10.0, 10.0), uid="1.2.3.4")
    with pytest.raises(InputError, match=r"0\.00 to 0\.00 mm apart"):
        read_volume(tmp_path / "time")
    dicom_series(tmp_path / "tilted", (10.0, 12.0, 14.0, 16.0), uid="1.2.3.5", tilt=0.2)
    with pytest.raises(InputError, match=r"sheared by 1\.2 mm"):
        read_volume(tmp_path / "tilted")
    dicom_series(tmp_path / "rounded", (10.0, 12.0, 14.0, 16.0), uid="1.2.3.6", tilt=0.01)
    assert read_volume(tmp_path / "rounded").shape == (4, 8, 9)


def test_a_folder_with_two_series_asks_for_one(tmp_path):
    dicom_series(tmp_path / "s", (1.0, 2.0), uid="1.2.3.4")
    dicom_series(tmp_path / "s", (1.0, 2.0, 3.0), uid="1.2.3.5")
    with pytest.raises(InputError, match="2 DICOM series: choose one"):
        read_volume(tmp_path / "s")
    assert read_volume(tmp_path / "s" / "1.2.3.5-0.dcm").shape == (3, 8, 9)


def test_channels_on_other_grids_come_onto_the_first(tmp_path):
    fine = Volume(np.linspace(0, 10, 20, dtype=np.float32).reshape(1, 1, 1, 20).repeat(4, 1).repeat(4, 2), np.eye(4))
    coarse = Volume(fine.array[..., ::2].copy(), np.diag((2.0, 1.0, 1.0, 1.0)))
    write_volume(tmp_path / "a_0000.nii.gz", fine)
    write_volume(tmp_path / "a_0001.nii.gz", coarse)
    both = read_channels([tmp_path / "a_0000.nii.gz", tmp_path / "a_0001.nii.gz"])
    assert both.array.shape == (2, 4, 4, 20)
    np.testing.assert_allclose(both.array[1, ..., :19], both.array[0, ..., :19], atol=1e-4)


def test_resampling_a_labelmap_invents_no_label():
    labelmap = Volume(np.random.default_rng(3).choice([0, 2, 7], (1, 6, 6, 6)).astype(np.uint8), np.eye(4))
    grid = Volume(np.zeros((1, 9, 9, 9)), np.diag((0.6, 0.6, 0.6, 1.0)))
    assert set(np.unique(resample_onto(labelmap, grid, is_labelmap=True).array)) <= {0, 2, 7}


def cut(path, size):
    path.write_bytes(path.read_bytes()[:size])


@pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd", ".mha", ".png"])
def test_damaged_files_give_one_sentence(tmp_path, suffix):
    path = tmp_path / f"x{suffix}"
    if suffix == ".png":
        Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64), np.uint8)).save(path)
    else:
        write_volume(path, Volume(image(shape=(1, 20, 30, 40)), oblique()))
    cut(path, path.stat().st_size // 2)
    with pytest.raises(InputError, match=r"damaged|cannot be read"):
        read_volume(path)
    path.write_bytes(b"")
    with pytest.raises(InputError, match="0 bytes"):
        read_volume(path)
    path.write_bytes(b"not an image at all" * 100)
    with pytest.raises(InputError, match="cannot be read"):
        read_volume(path)


def test_what_is_no_labelmap_is_refused(tmp_path):
    write_volume(tmp_path / "x.nii.gz", Volume(np.full((1, 2, 3, 4), 0.5, np.float32), np.eye(4)))
    with pytest.raises(InputError, match="not whole numbers"):
        read_labelmap(tmp_path / "x.nii.gz")
    write_volume(tmp_path / "y.nrrd", Volume(np.zeros((2, 2, 3, 4), np.uint8), np.eye(4)))
    with pytest.raises(InputError, match="2 channels"):
        read_labelmap(tmp_path / "y.nrrd")


def test_pictures_whose_values_are_no_labels_are_refused(tmp_path):
    labelmap = Image.fromarray(np.arange(20, dtype=np.uint8).reshape(4, 5) % 3)
    coloured = labelmap.copy()
    coloured.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0])
    coloured.save(tmp_path / "palette.png")
    with pytest.raises(InputError, match="shows labels as colours"):
        read_labelmap(tmp_path / "palette.png")
    labelmap.save(tmp_path / "mask.jpg")
    with pytest.raises(InputError, match="is a JPEG"):
        read_labelmap(tmp_path / "mask.jpg")
    labelmap.convert("RGB").save(tmp_path / "grey.png")
    assert np.unique(read_labelmap(tmp_path / "grey.png").array).tolist() == [0, 1, 2]
    write_volume(tmp_path / "large.nii.gz", Volume(np.full((1, 2, 3, 4), 1e10), np.eye(4)))
    with pytest.raises(InputError, match="values above 65535"):
        read_labelmap(tmp_path / "large.nii.gz")


@pytest.mark.parametrize("value", [-1, 65536])
def test_label_values_that_a_file_cannot_hold_are_refused(tmp_path, value):
    with pytest.raises(InputError, match=f"{value}.* cannot be written: give 0 to 65535"):
        write_labelmap(tmp_path / "a.nii.gz", np.full((2, 3, 4), value), affine_ras=np.eye(4))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("dtype", [">i2", ">f4", ">u2", "i8", "u8", "f2", "?"])
def test_every_voxel_type_can_be_written(tmp_path, dtype):
    volume = Volume((image() % 2).astype(dtype), oblique())
    write_volume(tmp_path / "a.nrrd", volume)
    np.testing.assert_array_equal(read_volume(tmp_path / "a.nrrd").array, volume.array)


@pytest.mark.parametrize("suffix", [".mhd", ".nhdr", ".dcm", ".txt"])
def test_an_image_is_one_file_of_a_known_kind(tmp_path, suffix):
    with pytest.raises(InputError, match="use a name ending in"):
        write_volume(tmp_path / f"a{suffix}", Volume(image(), np.eye(4)))
    assert list(tmp_path.iterdir()) == []


def test_missing_paths_and_unknown_names_are_refused(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        read_volume(tmp_path / "nothing.nii.gz")
    with pytest.raises(InputError, match="contains no DICOM"):
        read_volume(tmp_path)
    with pytest.raises(InputError, match="use a name ending in"):
        write_labelmap(tmp_path / "x.docx", np.zeros((1, 2, 3)), affine_ras=np.eye(4))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("name", "stem"), [("a.b.nii.gz", "a.b"), ("a.seg.nrrd", "a"), ("x.png", "x"), ("dir", "dir")])
def test_stems(name, stem):
    assert stem_of(name) == stem


@contextmanager
def full_disk(allowed_bytes):
    """Let no file grow beyond a size, as on a disk that is nearly full."""
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (allowed_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("suffix", [".seg.nrrd", ".nii", ".nii.gz", ".nrrd", ".mha"])
def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path, suffix):
    """ITK silently writes a truncated NIfTI file."""
    path = tmp_path / f"a{suffix}"
    path.write_bytes(b"old")
    noise = np.random.default_rng(0).integers(0, 255, (20, 50, 50)).astype(np.uint8)
    with full_disk(20_000), pytest.raises(InputError, match="disk is full"):
        write_labelmap(path, noise, affine_ras=np.eye(4))
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".nrrd", ".mha"])
@pytest.mark.parametrize("share", [0.05, 0.5, 0.99])
def test_a_file_that_is_cut_off_is_refused(tmp_path, suffix, share):
    """ITK reads a truncated NIfTI file as if zeros followed."""
    path = tmp_path / f"a{suffix}"
    write_volume(path, Volume(image(shape=(1, 20, 30, 40)), np.eye(4)))
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(InputError, match="truncated|damaged"):
        read_volume(path)


def test_channels_on_one_grid_are_stacked_as_they_are_and_a_missing_one_is_nan():
    first, second = (Volume(np.full((1, 2, 3, 4), value, np.int16), np.eye(4)) for value in (5, 7))
    both = stack_channels(first, [first, second], names=("a", "b"))
    assert both.array.dtype == np.int16
    np.testing.assert_array_equal(both.array[:, 0, 0, 0], (5, 7))
    with_gap = stack_channels(first, [None, first], names=("a", "b"))
    assert np.isnan(with_gap.array[0]).all()
    np.testing.assert_array_equal(with_gap.array[1], first.array[0])


def test_a_channel_on_another_grid_is_brought_to_the_same_place():
    """A slope along x reads the same at every place, whatever grid it is stored on."""
    grid = Volume(np.zeros((1, 4, 4, 4), np.float32), np.diag((2.0, 2.0, 2.0, 1.0)))
    slope = np.broadcast_to(np.arange(-4, 30, dtype=np.float32), (1, 20, 20, 34))
    affine = np.diag((0.5, 0.5, 0.5, 1.0))
    affine[:3, 3] = (-2.0, -1.0, -1.0)
    stacked = stack_channels(grid, [grid, Volume(np.array(slope), affine)], names=("a", "b"))
    np.testing.assert_allclose(stacked.array[1], np.broadcast_to((0.0, 4.0, 8.0, 12.0), (4, 4, 4)), atol=1e-4)


def test_channels_that_cannot_be_stacked_are_refused_by_name():
    grid = Volume(np.zeros((1, 4, 4, 4)), np.eye(4))
    away = np.eye(4)
    away[0, 3] = 50.0
    with pytest.raises(InputError, match="b does not overlap the volume: choose one of the same part"):
        stack_channels(grid, [grid, Volume(grid.array, away)], names=("a", "b"))
    with pytest.raises(InputError, match="a has 2 channels: select a volume with one channel"):
        stack_channels(grid, [Volume(np.zeros((2, 4, 4, 4)), np.eye(4)), grid], names=("a", "b"))
    with pytest.raises(InputError, match="all channels of the image are missing: select at least one"):
        stack_channels(grid, [None, None], names=("a", "b"))


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_boxes_of_labels_are_those_that_scipy_finds(kind, monkeypatch):
    rng = np.random.default_rng(0)
    for shape in ((1, 9, 7), (5, 1, 6), (8, 9, 10)):
        labelmap = (rng.integers(1, 6, shape) * (rng.random(shape) < 0.03)).astype(kind)
        expected = dict(enumerate(ndimage.find_objects(labelmap, 6), start=1))
        assert seg_nrrd_header.label_boxes(labelmap, range(1, 7)) == expected
        with monkeypatch.context() as patch:
            patch.setattr(seg_nrrd_header, "_QUICKLY_SEARCHED", 0)
            assert seg_nrrd_header.label_boxes(labelmap, range(1, 7)) == expected
