"""nnunet_lopsided.images."""

import json
import math

import numpy as np
import pytest
import SimpleITK as sitk

from nnunet_lopsided.errors import InputError
from nnunet_lopsided.images import Geometry, Image, read_image, write_image

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
