"""nnunet_lopsided.images."""

import gzip
import json
import math
import subprocess
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk

from nnunet_lopsided.errors import InputError
from nnunet_lopsided.files.completeness import check_complete
from nnunet_lopsided.images import Geometry, Image, read_image, write_image

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
    (tmp_path / "a.json").unlink()
    assert read_image(tmp_path / "a.tif").geometry.spacing_mm == (1.0, 1.0, 1.0)


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
