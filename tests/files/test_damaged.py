"""Damaged files: whatever a reader meets, it says InputError, and never hangs or dies."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import tifffile

from nnunet_lopsided.errors import InputError
from nnunet_lopsided.files.completeness import check_complete
from nnunet_lopsided.files.json import Shape, read_json
from nnunet_lopsided.files.tables import read_table
from nnunet_lopsided.images import Geometry, Image, n_components, read_header, read_image, write_image
from tests.files.fuzzing import damaged, other_types

ARRAY = np.random.default_rng(0).integers(0, 9, (5, 12, 14)).astype(np.uint8)
GEOMETRY = Geometry((3.0, 1.0, 1.0), (0.0,) * 3, (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0))
FLAT = Geometry((1.0, 1.0), (0.0, 0.0), (1.0, 0.0, 0.0, 1.0))
N_VARIANTS = 40


def nifti2(path: Path) -> None:
    nibabel.save(nibabel.Nifti2Image(ARRAY.T, np.eye(4)), path)


def tiff(compression: str | None) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        tifffile.imwrite(path, ARRAY, compression=compression, photometric="minisblack")

    return write


def flat(path: Path) -> None:
    write_image(path, Image(ARRAY[0], FLAT))


def volume(path: Path) -> None:
    write_image(path, Image(ARRAY, GEOMETRY))


KINDS = {
    "a.nii": volume,
    "a.nii.gz": volume,
    "b.nii": nifti2,
    "a.mha": volume,
    "a.nrrd": volume,
    "a.tif": tiff("zlib"),
    "b.tif": tiff("lzw"),
    "c.tif": tiff(None),
    "a.png": flat,
    "a.bmp": flat,
}


@pytest.mark.parametrize("name", KINDS)
def test_images(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    KINDS[name](path)
    (tmp_path / f"{path.stem}.json").write_text('{"spacing": [3, 1, 1]}')
    whole = path.read_bytes()
    for content in damaged(whole, N_VARIANTS, seed=name):
        path.write_bytes(content)
        for read in (read_image, read_header, check_complete):
            only_input_errors(read, path)


def test_json(tmp_path: Path) -> None:
    path, content = tmp_path / "a.json", {"spacing": [1.0, 2, 3], "labels": {"lesion": 1}, "name": "a"}
    whole = json.dumps(content).encode()
    shape: Shape = {"spacing": [float], "labels": {str: int}, "name": str}
    for data in damaged(whole, 300, seed="json"):
        path.write_bytes(data)
        only_input_errors(read_json, path, shape)
    for other in other_types(content):
        path.write_text(json.dumps(other))
        with pytest.raises(InputError):
            read_json(path, shape)


@pytest.mark.parametrize(
    "text", ["[" * 100_000, '{"a":' * 50_000, "1" * 5000, str(2**63), "1e999", "-Infinity", "NaN", '"\\ud800', ""]
)
def test_json_that_nobody_wrote(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(InputError, match=r"a\.json: not valid JSON"):
        read_json(tmp_path / "a.json")


def test_tables(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    whole = b"case,id\na,1\n'=b,2\n" * 3
    for data in damaged(whole, 300, seed="csv"):
        path.write_bytes(data)
        only_input_errors(read_table, path, ("case",))


def only_input_errors(read: Callable[..., Any], path: Path, *arguments: Any) -> None:
    with suppress(InputError):
        read(path, *arguments)


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("entry", [(0, 0), (1, 3), (2, 1)])
def test_a_place_that_is_no_number_is_refused_without_a_page_of_complaints(
    tmp_path: Path, ending: str, value: float, entry: tuple[int, int], capfd: pytest.CaptureFixture[str]
) -> None:
    """VNL in SimpleITK printed a dozen lines for each reading, and made a direction of it."""
    nibabel.save(nibabel.Nifti1Image(ARRAY.T, np.eye(4)), tmp_path / f"whole{ending}")
    content = (tmp_path / f"whole{ending}").read_bytes()
    header = bytearray(gzip.decompress(content) if ending == ".nii.gz" else content)
    at = 280 + 16 * entry[0] + 4 * entry[1]
    header[at : at + 4] = np.float32(value).tobytes()
    path = tmp_path / f"a{ending}"
    path.write_bytes(gzip.compress(bytes(header)) if ending == ".nii.gz" else bytes(header))
    for read in (read_image, read_header, n_components):
        with pytest.raises(
            InputError, match=r"expected finite numbers in the sform of its NIfTI header, found .*(nan|inf)"
        ):
            read(path)
    assert capfd.readouterr().err == ""
    header[254:256] = bytes(2)  # without sform_code nobody reads it
    path.write_bytes(gzip.compress(bytes(header)) if ending == ".nii.gz" else bytes(header))
    np.testing.assert_array_equal(read_image(path).array, ARRAY)


def test_axes_that_are_not_at_right_angles_are_refused_as_nnunet_does(tmp_path: Path) -> None:
    affine = np.eye(4)
    affine[0, 1] = 0.3
    image = nibabel.Nifti1Image(ARRAY.T, None)
    image.set_qform(None, 0)
    image.set_sform(affine, 1)
    nibabel.save(image, tmp_path / "a.nii.gz")
    for read in (read_image, read_header):
        with pytest.raises(
            InputError, match=r"a\.nii\.gz: expected axes at right angles, .*found an affine with shear"
        ):
            read(tmp_path / "a.nii.gz")
