"""LIDC's contours: what they enclose, exclusions, points, and what readers agree on."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hypothesis_numpy
from matplotlib.path import Path as Polygon
from numpy.typing import NDArray
from scipy.spatial import ConvexHull, QhullError
from skimage.measure import label as components

from nnunet_lopsided.dataset_conversion.converters.lidc import (
    Contour,
    Nodule,
    agreed_mask,
    draw_nodule,
    encloses_nothing,
    inside,
    read_reading,
    reader_masks,
    slice_index,
)
from nnunet_lopsided.errors import InputError
from nnunet_lopsided.images import Geometry, Header

IDENTITY = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
HEADER = Header((5, 12, 14), Geometry((2.5, 0.7, 0.7), (-100.0, -90.0, -50.0), IDENTITY))


def square(x0: int, y0: int, x1: int, y1: int) -> tuple[tuple[int, int], ...]:
    """Every pixel of a square's outline, in order."""
    return (
        *((x, y0) for x in range(x0, x1)),
        *((x1, y) for y in range(y0, y1)),
        *((x, y1) for x in range(x1, x0, -1)),
        *((x0, y) for y in range(y1, y0, -1)),
    )


def drawn(*contours: Contour) -> NDArray[Any]:
    mask = np.zeros(HEADER.shape, bool)
    assert draw_nodule(Nodule("n", contours), HEADER, mask) == mask.sum()
    return mask


def test_the_outline_itself_is_not_nodule() -> None:
    mask = drawn(Contour(-45.0, True, square(3, 2, 7, 5)))
    expected = np.zeros(HEADER.shape, bool)
    expected[2, 3:5, 4:7] = True  # z = (-45 + 50) / 2.5; y and x strictly inside
    np.testing.assert_array_equal(mask, expected)


def test_an_exclusion_takes_its_outline_with_it() -> None:
    mask = drawn(Contour(-50.0, True, square(0, 0, 11, 11)), Contour(-50.0, False, square(4, 4, 6, 6)))
    expected = np.zeros(HEADER.shape, bool)
    expected[0, 1:11, 1:11] = True
    expected[0, 4:7, 4:7] = False
    np.testing.assert_array_equal(mask, expected)


def test_an_exclusion_in_another_slice_or_nodule_takes_nothing() -> None:
    inclusion = Contour(-50.0, True, square(0, 0, 11, 11))
    assert drawn(inclusion, Contour(-47.5, False, square(4, 4, 6, 6))).sum() == 100
    other = Nodule("other", (Contour(-50.0, False, square(4, 4, 6, 6)),))
    assert reader_masks([[Nodule("n", (inclusion,)), other]], HEADER)[0].sum() == 100


@pytest.mark.parametrize("points", [[(3, 3)], [(3, 3), (4, 3)], [(3, 3), (8, 8)], square(3, 3, 4, 4)])
def test_what_encloses_nothing(points) -> None:
    enclosed, edge, _ = inside(points)
    assert not enclosed.any()
    assert edge.any()
    assert encloses_nothing(Nodule("n", (Contour(0.0, True, tuple(points)),))) == (len(points) > 1)


def test_a_diagonal_outline_does_not_leak() -> None:
    diamond = [(5, 0), (10, 5), (5, 10), (0, 5)]
    enclosed, _, _ = inside(diamond)
    y, x = np.mgrid[:11, :11]
    np.testing.assert_array_equal(enclosed, abs(x - 5) + abs(y - 5) < 5)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), min_size=3, max_size=14, unique=True))
def test_convex_shapes_against_a_polygon_library(spread) -> None:
    try:
        corners = np.array(spread)[ConvexHull(spread).vertices]
    except QhullError:
        assume(False)  # all on one line
    enclosed, edge, (top, left) = inside([(int(x), int(y)) for x, y in corners])
    y, x = np.mgrid[: enclosed.shape[0], : enclosed.shape[1]]
    centres = np.stack([x.ravel() + left, y.ravel() + top], axis=1)
    expected = Polygon([*corners, corners[0]], closed=True).contains_points(centres).reshape(enclosed.shape)
    # The drawn line is at most half a pixel from the real one, so it takes the pixels that could be on either side.
    np.testing.assert_array_equal(enclosed[~edge], expected[~edge])
    assert not (enclosed & edge).any()


def test_slices_of_flipped_scans() -> None:
    flipped = Header((5, 12, 14), Geometry((2.5, 0.7, 0.7), (0, 0, -50.0), (-1.0, 0, 0, 0, -1.0, 0, 0, 0, 1.0)))
    assert [slice_index(z, flipped) for z in (-50.0, -47.4, -40.0)] == [0, 1, 4]
    downwards = Header((5, 12, 14), Geometry((2.5, 0.7, 0.7), (0, 0, -50.0), (1.0, 0, 0, 0, -1.0, 0, 0, 0, -1.0)))
    assert slice_index(-52.5, downwards) == 1
    for z in (-48.7, -37.5, -52.5):
        with pytest.raises(InputError, match=f"no slice at z = {z:g} mm"):
            slice_index(z, HEADER)
    sagittal = Header((5, 12, 14), Geometry((2.5, 0.7, 0.7), (0, 0, 0), (0, 0, 1.0, 1.0, 0, 0, 0, 1.0, 0)))
    with pytest.raises(InputError, match="expected axial slices"):
        slice_index(0.0, sagittal)


def test_a_contour_that_leaves_the_image() -> None:
    with pytest.raises(InputError, match="a contour of nodule n leaves the image of 14 x 12"):
        drawn(Contour(-50.0, True, square(10, 3, 14, 6)))


def test_agreement_by_voxel() -> None:
    masks = [np.array([[1] * n + [0] * (4 - n)], bool) for n in (4, 3, 2, 1)]
    assert [int(agreed_mask(masks, n).sum()) for n in (1, 2, 3, 4)] == [4, 3, 2, 1]


def test_a_lesion_that_enough_readers_saw_does_not_vanish_with_its_outline() -> None:
    row = np.zeros((4, 1, 12), bool)
    row[0, 0, 0:4] = row[1, 0, 2:6] = row[2, 0, 4:8] = True  # no voxel is in all three
    row[3, 0, 10] = True  # what one reader saw
    assert agreed_mask(list(row), 3).tolist() == [[0, 0, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0]]
    assert not agreed_mask(list(row), 4).any()


@settings(deadline=None)
@given(hypothesis_numpy.arrays(bool, (4, 3, 4, 5), elements=st.booleans(), fill=st.just(False)))
def test_agreement_keeps_what_was_promised(masks) -> None:
    agreed = [agreed_mask(list(masks), n).astype(bool) for n in (1, 2, 3, 4)]
    for fewer, more in pairwise(agreed):
        assert not (more & ~fewer).any()
    lesions = components(masks.any(axis=0), connectivity=3)
    for n, mask in enumerate(agreed, 1):
        assert (mask >= (masks.sum(axis=0) >= n)).all()
        for lesion in range(1, lesions.max() + 1):
            n_readers = sum((m & (lesions == lesion)).any() for m in masks)
            assert (mask & (lesions == lesion)).any() == (n_readers >= n)


XML = """<?xml version="1.0" encoding="UTF-8"?>
<LidcReadMessage uid="1" xmlns="http://www.nih.gov" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance">
<ResponseHeader><Version>1.8.1</Version><SeriesInstanceUid>1.2.3</SeriesInstanceUid></ResponseHeader>
<readingSession><annotationVersion>3.12</annotationVersion>
<unblindedReadNodule><noduleID>MI014</noduleID><characteristics><subtlety>5</subtlety></characteristics>
<roi><imageZposition>-45.0 </imageZposition><imageSOP_UID>1</imageSOP_UID><inclusion>TRUE</inclusion>
<edgeMap><xCoord>3</xCoord><yCoord>2</yCoord></edgeMap><edgeMap><xCoord>7</xCoord><yCoord>2</yCoord></edgeMap>
<edgeMap><xCoord>7</xCoord><yCoord>5</yCoord></edgeMap></roi>
<roi><imageZposition>-45.0</imageZposition><imageSOP_UID>1</imageSOP_UID><inclusion>FALSE</inclusion>
<edgeMap><xCoord>5</xCoord><yCoord>3</yCoord></edgeMap></roi></unblindedReadNodule>
<unblindedReadNodule><noduleID>0</noduleID><roi><imageZposition>-50</imageZposition><inclusion>TRUE</inclusion>
<edgeMap><xCoord>9</xCoord><yCoord>9</yCoord></edgeMap></roi></unblindedReadNodule>
<nonNodule><nonNoduleID>2</nonNoduleID><imageZposition>-50</imageZposition><locus><xCoord>1</xCoord>
<yCoord>1</yCoord></locus></nonNodule></readingSession>
<readingSession></readingSession>
</LidcReadMessage>
"""


def test_reading_xml(tmp_path: Path) -> None:
    path = tmp_path / "069.xml"
    path.write_text(XML)
    reading = read_reading(path)
    assert reading is not None
    assert reading.series == "1.2.3"
    assert [len(slot) for slot in reading.slots] == [2, 0]
    large, small = reading.slots[0]
    assert large == Nodule(
        "MI014",
        (Contour(-45.0, True, ((3, 2), (7, 2), (7, 5))), Contour(-45.0, False, ((5, 3),))),
    )
    assert (large.is_point, small.is_point) == (False, True)
    assert not reader_masks([[small]], HEADER)[0].any()


def test_xml_of_another_kind(tmp_path: Path) -> None:
    path = tmp_path / "a.xml"
    path.write_text('<IdriReadMessage xmlns="http://www.nih.gov/idri"></IdriReadMessage>')
    assert read_reading(path) is None
    path.write_text("<LidcReadMessage")
    with pytest.raises(InputError, match=r"cannot read .*a\.xml"):
        read_reading(path)
    path.write_text(XML.replace("<SeriesInstanceUid>1.2.3</SeriesInstanceUid>", ""))
    with pytest.raises(InputError, match=r"a\.xml: no ResponseHeader/SeriesInstanceUid in LidcReadMessage"):
        read_reading(path)
    path.write_text(XML.replace("<xCoord>3</xCoord>", "<xCoord>three</xCoord>"))
    with pytest.raises(InputError, match=r"a\.xml: invalid literal"):
        read_reading(path)
