"""Broken and incomplete files, which SimpleITK reads without a word."""

from __future__ import annotations

import gzip
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st

from nnunet_lopsided.dataset_conversion.converters.volumes import VolumeFile
from nnunet_lopsided.errors import InputError
from nnunet_lopsided.files.completeness import check_complete
from nnunet_lopsided.images import Geometry, Image, read_image, write_image

GEOMETRY = Geometry((3.0, 1.0, 0.5), (1.0, 2.0, 3.0), (0.0, -1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    array = np.random.default_rng(0).integers(0, 1000, (10, 30, 40)).astype(np.int16)
    write_image(tmp_path / "a.nii.gz", Image(array, GEOMETRY))
    return tmp_path / "a.nii.gz"


def test_a_whole_file(file: Path) -> None:
    check_complete(file)
    header, image = VolumeFile(file).header(), read_image(file)
    assert header.shape == (10, 30, 40)
    assert header.geometry.difference(image.geometry, 0) is None


def test_why_this_exists(file: Path) -> None:
    """Half a file is an image to SimpleITK; when this fails, it has learned to complain."""
    data = file.read_bytes()
    file.write_bytes(data[: len(data) // 2])
    assert sitk.ReadImage(str(file)).GetSize() == (40, 30, 10)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data[: len(data) // 2], "broken gzip: the file ends too early"),
        (lambda data: data[:-8], "broken gzip: the file ends too early"),
        (lambda data: data[:-6] + bytes([data[-6] ^ 255]) + data[-5:], "broken gzip: .*incorrect data check"),
        (lambda data: b"", "not a gzip file"),
        (lambda data: b"not an image at all", "not a gzip file"),
        (lambda data: gzip.decompress(data), "not a gzip file"),
        (lambda data: gzip.compress(gzip.decompress(data)[:5000]), "incomplete, expected 24352 bytes .*, found 5000"),
        (lambda data: gzip.compress(b"x" * 5000), "not a NIfTI file"),
        (lambda data: gzip.compress(b""), "not a NIfTI file"),
    ],
)
def test_broken_gzip(file: Path, change, message) -> None:
    file.write_bytes(change(file.read_bytes()))
    for look in (VolumeFile(file).header, VolumeFile(file).read):
        with pytest.raises(InputError, match=rf"cannot read image .*a\.nii\.gz: {message}"):
            look()


def test_several_gzip_members_and_padding(file: Path) -> None:
    data = gzip.decompress(file.read_bytes())
    file.write_bytes(gzip.compress(data[:9000]) + gzip.compress(data[9000:]) + bytes(512))
    check_complete(file)


@settings(deadline=None)
@given(st.data())
def test_any_cut_is_noticed(data: st.DataObject) -> None:
    whole = gzip.compress(nibabel.Nifti1Image(np.arange(60, dtype=np.int16).reshape(3, 4, 5), np.eye(4)).to_bytes())
    cut = data.draw(st.integers(0, len(whole) - 1))
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.nii.gz"
        path.write_bytes(whole)
        check_complete(path)
        path.write_bytes(whole[:cut])
        with pytest.raises(InputError):
            check_complete(path)


@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
@pytest.mark.parametrize("order", ["<", ">"])
def test_uncompressed_nifti_of_both_versions_and_byte_orders(tmp_path: Path, kind, order) -> None:
    path = tmp_path / "a.nii"
    header = kind.header_class(endianness=order)
    header.set_data_dtype(np.float64)
    kind(np.ones((4, 5, 6)), np.eye(4), header).to_filename(path)
    check_complete(path)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(InputError, match="incomplete, expected"):
        check_complete(path)


def test_mhd(tmp_path: Path) -> None:
    path = tmp_path / "a.mhd"
    sitk.WriteImage(sitk.GetImageFromArray(np.ones((4, 5, 6), np.int16)), str(path))
    assert VolumeFile(path).header().shape == (4, 5, 6)
    (tmp_path / "a.raw").write_bytes((tmp_path / "a.raw").read_bytes()[:100])
    with pytest.raises(InputError, match=r"a\.raw is incomplete, 100 of 240 bytes"):
        VolumeFile(path).header()
    (tmp_path / "a.raw").unlink()
    with pytest.raises(InputError, match=r"its data file a\.raw is missing"):
        VolumeFile(path).read()


def test_not_one_value_per_voxel(tmp_path: Path) -> None:
    nibabel.save(nibabel.Nifti1Image(np.zeros((3, 4, 5, 2)), np.eye(4)), tmp_path / "a.nii.gz")
    with pytest.raises(InputError, match="expected a 2D or 3D image with one value per voxel"):
        VolumeFile(tmp_path / "a.nii.gz").header()
    with pytest.raises(InputError, match="image not found"):
        VolumeFile(tmp_path / "b.nii.gz").header()
