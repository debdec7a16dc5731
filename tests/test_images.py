"""nnunet_lopsided.images."""

import gzip
import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
import tifffile
from nnunetv2.imageio.natural_image_reader_writer import NaturalImage2DIO
from nnunetv2.imageio.tif_reader_writer import Tiff3DIO
from numpy.typing import NDArray
from PIL import Image as Picture

from nnunet_lopsided.errors import InputError
from nnunet_lopsided.files.completeness import check_complete
from nnunet_lopsided.images import Geometry, Image, read_header, read_image, write_image

GEOMETRY = Geometry((1.0, 1.0, 1.0), (0.0, 0.0, 0.0), (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0))
OBLIQUE = (math.cos(0.3), -math.sin(0.3), 0.0, math.sin(0.3), math.cos(0.3), 0.0, 0.0, 0.0, 1.0)


@pytest.mark.parametrize("ending", [".nii.gz", ".nii", ".mha", ".nrrd"])
def test_round_trip_keeps_values_and_geometry(tmp_path, ending):
    geometry = Geometry((3.0, 2.0, 0.5), (10.0, -20.0, 5.5), OBLIQUE)
    image = Image(np.arange(24, dtype=np.uint8).reshape(2, 3, 4), geometry)
    path = tmp_path / f"case{ending}"
    write_image(path, image)
    read = read_image(path)
    assert read.array.dtype == np.uint8
    np.testing.assert_array_equal(read.array, image.array)
    assert image.geometry.difference(read.geometry) is None
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_array_order_is_z_y_x(tmp_path):
    itk = sitk.Image(4, 3, 2, sitk.sitkUInt8)
    itk.SetSpacing((0.5, 1.0, 3.0))
    itk[3, 0, 0] = 7
    sitk.WriteImage(itk, str(tmp_path / "a.nii.gz"))
    read = read_image(tmp_path / "a.nii.gz")
    assert read.array.shape == (2, 3, 4)
    assert read.array[0, 0, 3] == 7
    assert read.geometry.spacing_mm == (3.0, 1.0, 0.5)


def test_png_is_2d_with_spacing_1(tmp_path):
    geometry = Geometry((1.0, 1.0), (0.0, 0.0), (1.0, 0.0, 0.0, 1.0))
    write_image(tmp_path / "a.png", Image(np.eye(3, dtype=np.uint8), geometry))
    read = read_image(tmp_path / "a.png")
    np.testing.assert_array_equal(read.array, np.eye(3))
    assert read.geometry.spacing_mm == (1.0, 1.0)


def test_tiff_spacing_comes_from_the_json_beside_it(tmp_path):
    array = np.arange(8, dtype=np.uint16).reshape(2, 2, 2)
    geometry = Geometry((3.0, 1.0, 1.0), (0.0,) * 3, tuple(np.eye(3).ravel()))
    write_image(tmp_path / "a.tif", Image(array, geometry))
    assert json.loads((tmp_path / "a.json").read_text()) == {"spacing": [3.0, 1.0, 1.0]}
    read = read_image(tmp_path / "a.tif")
    np.testing.assert_array_equal(read.array, array)
    assert read.geometry.spacing_mm == (3.0, 1.0, 1.0)


def test_writing_twice_gives_the_same_bytes(tmp_path):
    image = Image(np.ones((2, 3, 4), np.uint8), Geometry((1.0,) * 3, (0.0,) * 3, tuple(np.eye(3).ravel())))
    write_image(tmp_path / "a.nii.gz", image)
    write_image(tmp_path / "b.nii.gz", image)
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()


def test_difference_is_by_absolute_tolerance_per_entry():
    one = Geometry((1.0, 1.0, 1.0), (50.0, -50.0, 0.0), tuple(np.eye(3).ravel()))
    shifted = Geometry((1.0, 1.0, 1.0), (0.0, 0.0, 0.0), tuple(np.eye(3).ravel()))  # signed differences sum to 0
    assert one.difference(shifted) == "origin_mm (50, -50, 0) versus (0, 0, 0)"
    assert one.difference(Geometry((1.0005, 1.0, 1.0), one.origin_mm, one.direction)) is None
    assert "spacing_mm" in (one.difference(Geometry((1.01, 1.0, 1.0), one.origin_mm, one.direction)) or "")
    assert "direction" in (one.difference(Geometry(one.spacing_mm, one.origin_mm, OBLIQUE)) or "")


def test_refuses_missing_broken_and_coloured_files(tmp_path):
    with pytest.raises(InputError, match="image not found"):
        read_image(tmp_path / "none.nii.gz")
    (tmp_path / "broken.nii.gz").write_bytes(b"no image")
    with pytest.raises(InputError, match=r"cannot read image .*broken.nii.gz"):
        read_image(tmp_path / "broken.nii.gz")
    (tmp_path / "broken.tif").write_bytes(b"no image")
    with pytest.raises(InputError, match=r"cannot read image .*broken.tif"):
        read_image(tmp_path / "broken.tif")
    sitk.WriteImage(sitk.Image([3, 3], sitk.sitkVectorUInt8, 3), str(tmp_path / "rgb.png"))
    with pytest.raises(InputError, match="one value per voxel"):
        read_image(tmp_path / "rgb.png")


@pytest.mark.parametrize("ending", [".nii.gz", ".nii"])
@pytest.mark.parametrize("kind", ["u1", "i1", "i2", "u2", "i4", "u4", "i8", "f4", "f8"])
def test_nifti_voxels_are_those_of_simpleitk(tmp_path: Path, kind: str, ending: str) -> None:
    array = np.random.default_rng(0).integers(0, 100, (3, 4, 5)).astype(kind)
    path = tmp_path / f"a{ending}"
    write_image(path, Image(array, GEOMETRY))
    found, expected = read_image(path).array, sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)
    assert found.flags.writeable


def test_nifti_that_is_scaled_or_big_endian(tmp_path: Path) -> None:
    array = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    for name, header in (("scaled", nibabel.Nifti1Header()), ("big", nibabel.Nifti1Header(endianness=">"))):
        image = nibabel.Nifti1Image(array.T, np.eye(4), header, dtype=np.int16)
        if name == "scaled":
            image.header.set_slope_inter(2, 3)
        nibabel.save(image, tmp_path / f"{name}.nii.gz")
        expected = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / f"{name}.nii.gz")))
        found = read_image(tmp_path / f"{name}.nii.gz").array
        np.testing.assert_array_equal(found, expected)
        assert found.dtype == expected.dtype


def test_several_members_of_a_gzip_file_are_one_image(tmp_path: Path) -> None:
    path = tmp_path / "a.nii.gz"
    array = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    write_image(path, Image(array, GEOMETRY))
    content = gzip.decompress(path.read_bytes())
    path.write_bytes(gzip.compress(content[:370]) + gzip.compress(content[370:]))
    np.testing.assert_array_equal(read_image(path).array, array)


@pytest.mark.parametrize("damage", ["flipped", "truncated", "tail", "few bytes"])
def test_a_damaged_file_is_an_error_not_other_voxels(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "a.nii.gz"
    write_image(path, Image(np.random.default_rng(0).integers(0, 9, (9, 10, 11)).astype(np.uint8), GEOMETRY))
    content = bytearray(path.read_bytes())
    check_complete(path)
    if damage == "flipped":
        content[len(content) // 2] ^= 0x55
    path.write_bytes(content[: {"truncated": len(content) // 2, "tail": -6, "few bytes": 20}.get(damage)])
    for read in (read_image, check_complete):
        with pytest.raises(InputError, match=r"cannot read image .*a\.nii\.gz: "):
            read(path)


def test_a_truncated_plain_nifti(tmp_path: Path) -> None:
    path = tmp_path / "a.nii"
    write_image(path, Image(np.ones((9, 10, 11), np.uint8), GEOMETRY))
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(InputError, match=r"expected 1342 bytes for shape \(9, 10, 11\), found 1332"):
        read_image(path)


FULL_DISK = """
import resource, signal, sys
import numpy as np
from nnunet_lopsided.images import Geometry, Image, write_image
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))  # writing more fails, as on a full disk
n = int(sys.argv[2])
array = np.random.default_rng(0).integers(0, 255, (200,) * n if n == 2 else (30, 40, 50)).astype(np.uint8)
try:
    write_image(sys.argv[1], Image(array, Geometry((1.0,) * n, (0.0,) * n, tuple(np.eye(n).ravel().tolist()))))
except OSError:
    sys.exit(7)
"""


@pytest.mark.parametrize(
    ("name", "n_axes"),
    [("a.nii.gz", 3), ("a.nii", 3), ("a.mha", 3), ("a.nrrd", 3), ("a.png", 2), ("a.tif", 2), ("a.nii.gz", 2)],
)
def test_a_full_disk_is_an_error_and_leaves_no_image(tmp_path: Path, name: str, n_axes: int) -> None:
    done = subprocess.run([sys.executable, "-c", FULL_DISK, str(tmp_path / name), str(n_axes)], capture_output=True)
    assert done.returncode == 7, done.stderr
    assert not (tmp_path / name).exists()


FLAT = Geometry((1.0, 1.0), (0.0, 0.0), (1.0, 0.0, 0.0, 1.0))
VOLUME = np.arange(60, dtype=np.uint8).reshape(3, 4, 5)


def spacing_file(path: Path, *spacing: float) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"spacing": spacing}))


@pytest.mark.filterwarnings("ignore:.*stored as RGB")
def test_a_volume_of_three_slices_as_nnunet_writes_it(tmp_path: Path) -> None:
    spacing_file(tmp_path / "a.json", 3, 1, 1)
    tifffile.imwrite(tmp_path / "a.tif", VOLUME, compression="zlib")
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif").array, VOLUME)


def tiff(path: Path, array: NDArray[Any] = VOLUME, **more: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(path, array, **{"photometric": "minisblack", **more})
    return path


def test_the_spacing_file_of_a_tiff_image_is_that_of_its_case(tmp_path: Path) -> None:
    """nnU-Net's name for it: the channel is left out; a label's is the label's own."""
    image = tiff(tmp_path / "imagesTr" / "c_0000.tif")
    spacing_file(tmp_path / "imagesTr" / "c.json", 4, 0.25, 0.25)
    label = tiff(tmp_path / "labelsTr" / "scan_0001.tif")
    spacing_file(tmp_path / "labelsTr" / "scan_0001.json", 3, 2, 1)
    spacing_file(tmp_path / "labelsTr" / "scan.json", 9, 9, 9)
    assert read_image(image).geometry.spacing_mm == (4.0, 0.25, 0.25)
    assert read_header(label).geometry.spacing_mm == (3.0, 2.0, 1.0)
    written = Image(VOLUME, Geometry((3.0, 2.0, 1.0), (0.0,) * 3, tuple(np.eye(3).ravel())))
    write_image(tmp_path / "imagesTr" / "d_0001.tif", written)
    write_image(tmp_path / "labelsTr" / "d_0001.tif", written)
    assert (tmp_path / "imagesTr" / "d.json").is_file()
    assert (tmp_path / "labelsTr" / "d_0001.json").is_file()
    assert Tiff3DIO().read_images([str(tmp_path / "imagesTr" / "d_0001.tif")])[1] == {"spacing": [3.0, 2.0, 1.0]}


def test_nnunets_copies_of_tiff_labels_have_the_spacing_of_the_raw_dataset(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setenv("nnUNet_raw", str(tmp_path / "raw"))
    copy = tiff(tmp_path / "preprocessed" / "Dataset501_X" / "gt_segmentations" / "c.tif")
    assert read_image(copy).geometry.spacing_mm == (1.0, 1.0, 1.0)
    assert "c.tif has no voxel size (c.json is missing): 1 mm is taken" in capsys.readouterr().err
    read_image(copy)
    assert capsys.readouterr().err == "", "once for a folder"
    spacing_file(tmp_path / "raw" / "Dataset501_X" / "labelsTr" / "c.json", 4, 0.25, 0.25)
    assert read_image(copy).geometry.spacing_mm == (4.0, 0.25, 0.25)


@pytest.mark.parametrize("spacing", [(0, 1, 1), (-1, 1, 1), (1, 1), (1, 1, 1, 1)])
def test_spacings_of_tiff_that_cannot_be(tmp_path: Path, spacing: tuple[float, ...]) -> None:
    spacing_file(tmp_path / "a.json", *spacing)
    with pytest.raises(InputError, match=r"a\.json: spacing: expected 3 positive numbers, found"):
        read_image(tiff(tmp_path / "a.tif"))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: data[:-2000], "incomplete|cannot read"),
        (lambda data: data[:-500] + bytes([data[-500] ^ 255]) + data[-499:], "cannot read"),
        (lambda data: b"II*\0", "cannot read"),
        (lambda data: b"", "cannot read"),
    ],
)
@pytest.mark.parametrize("compression", ["zlib", "lzw"])
def test_damaged_tiff(tmp_path: Path, damage, message: str, compression: str) -> None:
    array = (np.random.default_rng(0).random((300, 300)) < 0.05).astype(np.uint8)
    path = tiff(tmp_path / "a.tif", array, compression=compression)
    np.testing.assert_array_equal(read_image(path).array, array)
    path.write_bytes(damage(path.read_bytes()))
    if compression == "lzw" and path.stat().st_size > 100 and "incomplete" not in message:
        return  # no checksum: other voxels cannot be told
    with pytest.raises(InputError, match=rf"{message}.*"):
        read_image(path)


def test_colours_are_no_slices(tmp_path: Path) -> None:
    path = tiff(tmp_path / "a.tif", np.zeros((8, 9, 3), np.uint8), photometric="rgb")
    for read in (read_image, read_header):
        with pytest.raises(InputError, match=r"a\.tif: expected .* one value per voxel, found 3 \(colours\)"):
            read(path)


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_both_nifti_endings_are_judged_alike(tmp_path: Path, ending: str) -> None:
    """Negative voxel sizes without a form: as SimpleITK's images, so nnU-Net, have them, in header and image."""
    path = tmp_path / f"a{ending}"
    image = nibabel.Nifti1Image(VOLUME.T, None)
    image.header["pixdim"][1:4] = 1, -2, 3
    image.header["qform_code"] = image.header["sform_code"] = 0
    raw_nifti(path, image.header, VOLUME)
    expected = sitk.ReadImage(str(path))
    assert read_image(path).geometry.spacing_mm == expected.GetSpacing()[::-1] == (3.0, 2.0, 1.0)
    assert read_image(path).geometry.difference(read_header(path).geometry, 0) is None
    np.testing.assert_allclose(read_image(path).geometry.direction, expected.GetDirection())
    np.testing.assert_array_equal(read_image(path).array, sitk.GetArrayFromImage(expected))


def raw_nifti(path: Path, header: nibabel.Nifti1Header, array: NDArray[Any]) -> None:
    """As the header says it, without what nibabel makes of it."""
    header["magic"] = b"n+1"
    if not np.isnan(header["vox_offset"]):
        header["vox_offset"] = 352
    content = header.binaryblock + b"\0" * 4 + array.tobytes()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_slope_0_with_an_intercept(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"a{ending}"
    header = nibabel.Nifti1Image(VOLUME.T, np.eye(4)).header
    header["scl_slope"], header["scl_inter"] = 0, 5
    raw_nifti(path, header, VOLUME)
    np.testing.assert_array_equal(read_image(path).array, sitk.GetArrayFromImage(sitk.ReadImage(str(path))))


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
@pytest.mark.parametrize(("field", "value"), [("vox_offset", np.nan), ("dim", [3, 30000, 30000, 30000, 1, 1, 1, 1])])
def test_nifti_headers_that_cannot_be(tmp_path: Path, ending: str, field: str, value) -> None:
    path = tmp_path / f"a{ending}"
    header = nibabel.Nifti1Image(VOLUME.T, np.eye(4)).header
    header[field] = value
    raw_nifti(path, header, VOLUME)
    for read in (read_image, check_complete):
        with pytest.raises(InputError, match=r"cannot read image .*a\.nii"):
            read(path)


def test_complex_numbers(tmp_path: Path) -> None:
    path = tmp_path / "a.nii.gz"
    nibabel.save(nibabel.Nifti1Image(VOLUME.astype(np.complex64), np.eye(4)), path)
    for read in (read_image, read_header):
        with pytest.raises(InputError, match="expected real numbers, found complex ones"):
            read(path)


@pytest.mark.parametrize("ending", [".png", ".bmp"])
@pytest.mark.parametrize("mode", ["1", "L"])
def test_pictures_are_those_of_nnunets_reader(tmp_path: Path, ending: str, mode: str) -> None:
    path = tmp_path / f"a{ending}"
    Picture.fromarray(np.eye(30, 40, dtype=np.uint8) * (255 if mode == "1" else 7)).convert(mode).save(path)
    expected = NaturalImage2DIO().read_seg(str(path))[0][0, 0]
    if mode == "1" and ending == ".png":
        assert set(np.unique(expected)) == {0, 1}
    np.testing.assert_array_equal(read_image(path).array, expected)
    assert read_header(path).shape == (30, 40)
    NaturalImage2DIO().write_seg(np.eye(3)[None], str(path), {})
    np.testing.assert_array_equal(read_image(path).array, np.eye(3))


def test_a_damaged_png_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    write_image(path, Image(np.random.default_rng(0).integers(0, 255, (50, 50)).astype(np.uint8), FLAT))
    content = path.read_bytes()
    for i in range(8, len(content), 97):
        path.write_bytes(content[:i] + bytes([content[i] ^ 16]) + content[i + 1 :])
        with pytest.raises(InputError, match="cannot read image"):
            read_image(path)
        path.write_bytes(content[:i])
        with pytest.raises(InputError, match="cannot read image"):
            read_image(path)


def test_a_volume_is_no_picture(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"expected a 2D image for \.png, found shape \(3, 4, 5\)"):
        write_image(tmp_path / "a.png", Image(VOLUME, GEOMETRY))
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.nii.gz")
    (tmp_path / "folder.nii.gz").mkdir()
    (tmp_path / "circle.nii.gz").symlink_to(tmp_path / "circle.nii.gz")
    for read in (read_image, read_header, check_complete):
        for name, message in (("pipe", "is a pipe"), ("folder", "is a folder"), ("circle", "Too many levels")):
            with pytest.raises(InputError, match=message):
                read(tmp_path / f"{name}.nii.gz")


def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    """SimpleITK would end the process."""
    write_image(tmp_path / "a.nii.gz", Image(VOLUME, GEOMETRY))
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.nii.gz"))
    os.rename(tmp_path / "a.nii.gz", path)
    for read in (read_image, read_header, check_complete):
        with pytest.raises(InputError, match=r"caf\\udce9.nii.gz': expected a name in UTF-8; rename it"):
            read(path)


def test_too_little_memory(tmp_path: Path, monkeypatch) -> None:
    def fails(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr("nnunet_lopsided.images._read", fails)
    write_image(tmp_path / "a.nii.gz", Image(VOLUME, GEOMETRY))
    with pytest.raises(InputError, match=r"a\.nii\.gz: not enough memory"):
        read_image(tmp_path / "a.nii.gz")
