"""Arrays in the frame of nnU-Net's readers, and back in that of the file: for every orientation there is."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import nibabel
import numpy as np
import pytest

from nnunet_lopsided.errors import InputError
from nnunet_lopsided.images import read_image
from nnunet_lopsided.nnunet.frames import array_shape, reader_of, reorients, to_file_frame
from nnunet_lopsided.nnunet.results import predictions_by_case

ORIENTATIONS = [
    "".join(letters) for axes in itertools.permutations(("LR", "PA", "IS")) for letters in itertools.product(*axes)
]


def write(path: Path, axes: str) -> None:
    """A volume of (3, 4, 5) different numbers along (left-right, back-front, bottom-top), stored with these axes."""
    affine = np.diag([2.0, 3.0, 4.0, 1.0])
    rotation = np.eye(4)
    rotation[:2, :2] = [[np.cos(0.1), -np.sin(0.1)], [np.sin(0.1), np.cos(0.1)]]
    image = nibabel.Nifti1Image(np.arange(60, dtype=np.int16).reshape(3, 4, 5), rotation @ affine)
    target = nibabel.orientations.axcodes2ornt(tuple(axes))
    nibabel.save(image.as_reoriented(nibabel.orientations.ornt_transform(nibabel.io_orientation(affine), target)), path)


@pytest.mark.parametrize("axes", ORIENTATIONS)
def test_the_readers_of_nnunet(axes: str, tmp_path: Path) -> None:
    from nnunetv2.imageio.nibabel_reader_writer import NibabelIO, NibabelIOWithReorient
    from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO, SimpleITKIOWithReorient

    path = tmp_path / "a.nii.gz"
    write(path, axes)
    file = read_image(path)
    for reader in (NibabelIO, NibabelIOWithReorient, SimpleITKIO, SimpleITKIOWithReorient):
        name, array = reader.__name__, reader().read_images([str(path)])[0]
        assert array_shape(name, file) == array.shape[1:], name
        np.testing.assert_array_equal(to_file_frame(array, name, file)[0], file.array, err_msg=name)
        assert reorients(name) == ("Reorient" in name)


def test_two_dimensional_images_stay(tmp_path: Path) -> None:
    from nnunet_lopsided.images import Geometry, Header

    flat = Header((2, 3), Geometry((1.0, 1.0), (0.0, 0.0), (-1.0, 0.0, 0.0, 1.0)))
    assert array_shape("NibabelIOWithReorient", flat) == (2, 3)
    assert to_file_frame(np.ones((1, 2, 3)), "NibabelIOWithReorient", flat).shape == (1, 2, 3)


def test_which_reader(tmp_path: Path) -> None:
    folder = tmp_path / "model" / "fold_0" / "validation"
    folder.mkdir(parents=True)
    np.savez(folder / "a.npz", probabilities=np.zeros(1))
    assert reader_of([folder]) == predictions_by_case(folder)["a"].reader == ""
    given = tmp_path / "dataset.json"
    given.write_text(json.dumps({"overwrite_image_reader_writer": "NibabelIO"}))
    assert predictions_by_case(folder, dataset_json=given)["a"].reader == "NibabelIO"
    (folder.parents[1] / "dataset.json").write_text(json.dumps({"overwrite_image_reader_writer": "None"}))
    assert predictions_by_case(folder, dataset_json=given)["a"].reader == "NibabelIO"
    (folder.parents[1] / "plans.json").write_text(json.dumps({"image_reader_writer": "NibabelIOWithReorient"}))
    assert predictions_by_case(folder, dataset_json=given)["a"].reader == "NibabelIOWithReorient"
    (folder / "plans.json").write_text(json.dumps({"image_reader_writer": "SimpleITKIO"}))
    assert predictions_by_case(folder)["a"].reader == "SimpleITKIO"


def test_plans_of_nnunet_with_numbers_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "plans.json").write_text('{"image_reader_writer": "SimpleITKIO", "mean": NaN, "max": Infinity}')
    assert reader_of([tmp_path]) == "SimpleITKIO"


def test_a_reader_that_is_not_nnunets() -> None:
    with pytest.raises(
        InputError, match=r"names the reader FooIO, expected one of SimpleITKIO, .*its arrays may be turned"
    ):
        reorients("FooIO")
    names = ("", "SimpleITKIO", "NibabelIO", "Tiff3DIO", "NaturalImage2DIO", "SimpleITKIOWithReorient")
    assert [reorients(name) for name in names] == [False] * 5 + [True]
