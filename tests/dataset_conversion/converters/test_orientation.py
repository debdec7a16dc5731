"""Exchanged and flipped axes, by hand and against SimpleITK's own way of doing it."""

from __future__ import annotations

from itertools import permutations, product

import numpy as np
import pytest
import SimpleITK as sitk

from nnunet_lopsided.dataset_conversion.converters.orientation import (
    Turning,
    direction_of,
    orientation_of,
    turning_to,
)
from nnunet_lopsided.errors import InputError
from nnunet_lopsided.images import Geometry, Header, Image

ALL = sorted("".join(letters) for pairs in permutations(("RL", "AP", "SI")) for letters in product(*pairs))
OBLIQUE = np.array([[0.96, -0.28, 0.0], [0.28 * 0.8, 0.96 * 0.8, -0.6], [0.28 * 0.6, 0.96 * 0.6, 0.8]])


def itk_of(image: Image) -> sitk.Image:
    itk = sitk.GetImageFromArray(image.array)
    itk.SetSpacing(image.geometry.spacing_mm[::-1])
    itk.SetOrigin(image.geometry.origin_mm)
    itk.SetDirection(image.geometry.direction)
    return itk


def oblique() -> Image:
    geometry = Geometry((3.0, 1.5, 0.5), (7.0, -2.0, 4.0), tuple(OBLIQUE.ravel().tolist()))
    return Image(np.arange(24, dtype=np.int16).reshape(2, 3, 4), geometry)


def test_by_hand() -> None:
    image = Image(
        np.array([[[1, 2, 3]]]), Geometry((1.0, 1.0, 2.0), (10.0, 0.0, 0.0), tuple(np.eye(3).ravel().tolist()))
    )
    turning = turning_to(image.geometry, direction_of("RPS"))
    assert turning == Turning((0, 1, 2), (True, False, False))
    turned = turning.image(image)
    assert turned.array.tolist() == [[[3, 2, 1]]]
    assert turned.geometry.origin_mm == (14.0, 0.0, 0.0)
    assert turned.geometry.direction == (-1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
    upright = turning_to(image.geometry, direction_of("SLP"))
    assert upright == Turning((2, 0, 1), (False, False, False))
    assert upright.image(image).array.tolist() == [[[1], [2], [3]]]
    assert upright.header(Header(image.shape, image.geometry)).geometry.spacing_mm == (1.0, 2.0, 1.0)


@pytest.mark.parametrize("orientation", ALL)
def test_as_simpleitk_orients(orientation: str) -> None:
    image = oblique()
    turning = turning_to(image.geometry, direction_of(orientation))
    turned = turning.image(image)
    expected = sitk.DICOMOrient(itk_of(image), orientation)
    np.testing.assert_array_equal(turned.array, sitk.GetArrayFromImage(expected))
    np.testing.assert_allclose(turned.geometry.spacing_mm[::-1], expected.GetSpacing())
    np.testing.assert_allclose(turned.geometry.origin_mm, expected.GetOrigin(), atol=1e-9)
    np.testing.assert_allclose(turned.geometry.direction, expected.GetDirection(), atol=1e-12)
    assert orientation_of(turned.geometry) == orientation
    assert turning.header(Header(image.shape, image.geometry)) == Header(turned.shape, turned.geometry)
    back = turning_to(turned.geometry, np.array(image.geometry.direction).reshape(3, 3)).image(turned)
    np.testing.assert_array_equal(back.array, image.array)
    assert back.geometry.difference(image.geometry, 1e-9) is None


@pytest.mark.parametrize("orientation", ["RAA", "RA", "ras", "RASL", "first"])
def test_what_is_no_orientation(orientation: str) -> None:
    with pytest.raises(InputError, match="three letters as in RAS"):
        direction_of(orientation)


def test_what_lies_as_wanted_stays() -> None:
    assert turning_to(oblique().geometry, OBLIQUE).changes_nothing
