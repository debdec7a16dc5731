"""Lesions cut out, scaled, turned and pasted: asymmetric cases by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage

from nnunet_lopsided.lesions import find_lesions
from nnunet_lopsided.trainers.lesion_pasting import (
    CutLesion,
    Paster,
    Room,
    box_around,
    cut_lesion,
    diameter_mm,
    scaled_and_turned,
)

F = np.array([[1, 1, 1, 1, 1], [1, 0, 0, 0, 0], [1, 1, 1, 0, 0], [1, 0, 0, 0, 0], [1, 0, 0, 0, 0]])
# Every cell of the letter is four voxels wide, so that a soft edge of half a voxel leaves it as it is.
LETTER: NDArray[np.int16] = np.pad(np.kron(F, np.ones((4, 4), int)), 3)[None].astype(np.int16)


def drawn(
    label: NDArray[np.int16], **changes: object
) -> tuple[NDArray[np.float32], NDArray[np.int16], NDArray[np.float32]]:
    how = {"factor": 1.0, "angle": 0.0, "mirrored": False, "shift": (0.0, 0.0, 0.0), "slicewise": True} | changes
    return scaled_and_turned(label, np.ones((1, *label.shape)), **how)  # type: ignore[arg-type]


def anywhere(
    label: NDArray[np.int16], diameter_mm: float, pasted_mm: tuple[float, float], *, slicewise: bool
) -> Paster:
    """Pastes one lesion, by 1 brighter than what surrounds it, on any background."""
    lesion = CutLesion(
        label=label,
        surroundings=np.zeros(1, np.float32),
        spread=np.zeros(1, np.float32),
        difference=np.ones((1, *label.shape), np.float32),
        diameter_mm=diameter_mm,
    )
    background = np.array([[-99.0], [99.0]], np.float32)
    return Paster(lesions=[lesion], diameters_mm=pasted_mm, background=background, slicewise=slicewise)


def trimmed(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


@pytest.mark.parametrize(
    ("angle", "mirrored", "expected"),
    [
        (0, False, F),
        (np.pi / 2, False, np.rot90(F, -1)),
        (0, True, F[:, ::-1]),
        (np.pi / 2, True, np.rot90(F[:, ::-1], -1)),
    ],
)
def test_turned_and_mirrored(angle: float, mirrored: bool, expected: NDArray[np.int_]) -> None:
    # The letter's extents are even, so its middle lies between voxels.
    share, _, _ = drawn(LETTER, angle=angle, mirrored=mirrored, shift=(0, 0.5, 0.5))
    middle = trimmed(share[0] >= 0.5)
    whole = np.kron(expected, np.ones((4, 4), int)) > 0
    assert abs(middle.shape[0] - 20) <= 1
    assert abs(middle.shape[1] - 20) <= 1
    # Of each cell its inner voxels.
    for row, column in np.ndindex(5, 5):
        assert middle[4 * row + 1, 4 * column + 1] == whole[4 * row + 1, 4 * column + 1]


def test_half_as_large_and_values_stay_on_their_side() -> None:
    label = np.zeros((1, 16, 16), np.int16)
    label[0, 4:12, 4:8], label[0, 4:12, 8:12] = 1, 2
    share, values, added = drawn(label, factor=0.5, shift=(0, 0.5, 0.5))
    lesion = share[0] >= 0.5
    assert trimmed(lesion).shape == (4, 4)
    columns = np.flatnonzero(lesion.any(0))
    assert np.unique(values[0][lesion[:, : columns[1] + 1].nonzero()]).tolist() == [1]
    assert set(values[0][:, columns[3]][lesion[:, columns[3]]].tolist()) == {2}
    assert added.shape == (1, *share.shape)
    np.testing.assert_allclose(added[0], share, atol=1e-6)  # the difference is 1 everywhere


def test_in_the_plane_alone_or_in_space() -> None:
    label = np.zeros((9, 15, 15), np.int16)
    label[2:7, 5:10, 5:10] = 1
    share, _, _ = drawn(label, factor=1.9, slicewise=False)
    assert tuple(np.ptp(axis) + 1 for axis in np.nonzero(share >= 0.5)) == (9, 9, 9)  # within 4.75 of the middle
    share, _, _ = drawn(label[4:5], factor=2.0)
    assert share.shape[0] == 1


def test_a_lesion_keeps_its_difference_to_what_surrounds_it() -> None:
    image = np.full((2, 3, 9, 9), 10.0)
    image[1] = -4
    label = np.zeros((3, 9, 9), np.int16)
    label[1, 3:6, 3:6] = 2
    label[0, 0, 0] = -1
    image[0, 1, 3:6, 3:6], image[1, 1, 3:6, 3:6], image[:, 0, 0, 0] = 17, -5, 1000
    cut = cut_lesion(image, label, label == 2, 5.0)
    assert cut is not None
    assert (cut.surroundings.tolist(), cut.spread.tolist()) == ([10, -4], [0, 0])
    assert cut.difference[:, 1, 4, 4].tolist() == [7, -1]
    assert cut.difference[:, 2, 8, 8].tolist() == [0, 0]

    anything = np.array([[-99.0, -99], [99, 99]], np.float32)
    paster = Paster(lesions=[cut], diameters_mm=(5.0, 5.0), background=anything, slicewise=True)
    patch, target = np.full((2, 1, 21, 21), 3.0), np.zeros((1, 21, 21), np.int16)
    room = Room(taken=np.zeros_like(target, bool), outside=np.ones_like(target, bool))
    room.outside[0, 6:15, 6:15] = False
    assert paster.paste(np.random.default_rng(3), patch, target, room) == pytest.approx(5.0)
    assert set(np.unique(target)) == {0, 2}
    assert 5 <= (target == 2).sum() <= 13
    assert patch[0].max() == pytest.approx(10, abs=0.3)  # 3 + 7
    assert patch[1].min() == pytest.approx(2, abs=0.1)  # 3 - 1
    assert room.taken[target == 2].all()


def test_nothing_around_a_lesion_nothing_cut() -> None:
    label = np.array([[[1, -1]]])
    assert cut_lesion(np.zeros((1, 1, 1, 2)), label, label == 1, 1.0) is None


def test_a_box_ends_with_the_image() -> None:
    mask = np.zeros((4, 9, 20), bool)
    mask[0, 8, 10] = True
    assert box_around(find_lesions(mask, (1, 1, 1)), 0) == (slice(0, 4), slice(5, 9), slice(7, 14))


def test_diameters() -> None:
    assert diameter_mm(1, (3.0, 2.0, 2.0)) == pytest.approx((6 * 12 / np.pi) ** (1 / 3))
    assert diameter_mm(9, (2.0, 2.0)) == pytest.approx(2 * np.sqrt(36 / np.pi))
    small, large = (
        CutLesion(
            label=np.ones((1, 1, 1), np.int16),
            surroundings=np.array([d, 0], np.float32),
            spread=np.array([0.5, 0.25], np.float32),
            difference=np.ones((2, 1, 1, 1), np.float32),
            diameter_mm=d,
        )
        for d in (6.0, 14.0)
    )
    assert Paster.of([large, small], (3.0, 2.0, 2.0), slicewise=False).diameters_mm == (3.0, 12.0)  # the upper quartile
    assert Paster.of([large, small], (4.0, 4.0), slicewise=True).diameters_mm == (5.0, 12.0)


def test_the_end_of_a_large_lesion_shrunk_to_nothing() -> None:
    """A cone's tip is a voxel; a tenth of it is below all that is seen, and no reason to end a training."""
    cone = np.zeros((1, 31, 31), np.int16)
    cone[0, 15, 15] = 1
    share, values, added = drawn(cone, factor=0.05)
    assert share.tolist() == [[[0.0]]]
    assert values.tolist() == [[[0]]]
    assert added.shape == (1, 1, 1, 1)
    paster = anywhere(cone, 40.0, (2.0, 2.0), slicewise=True)
    image, label = np.zeros((1, 1, 9, 9), np.float32), np.zeros((1, 9, 9), np.int16)
    assert paster.paste(np.random.default_rng(0), image, label, Room.of(label)) is None
    assert not image.any()


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0.01, 1), st.booleans())
def test_any_lesion_in_any_size(seed: int, factor: float, slicewise: bool) -> None:
    rng = np.random.default_rng(seed)
    label = (rng.random((1 if slicewise else 3, 9, 9)) < rng.choice([0.02, 0.3])).astype(np.int16)
    label[0, 4, 4] = 1
    share, values, added = drawn(label, factor=factor, angle=rng.uniform(0, 7), slicewise=slicewise)
    assert share.shape == values.shape == added.shape[1:]
    assert all(side % 2 for side in share.shape)
    assert np.isfinite(share).all()
    assert set(np.unique(values)) <= {0, 1}
    assert (added >= 0).all()


def test_a_place_must_look_like_what_surrounds_lesions() -> None:
    """Lesions lie in 10 and 12 of the first channel; the patch is 11 on the left, 30 on the right."""
    lesions = [
        CutLesion(
            label=np.ones((1, 3, 3), np.int16),
            surroundings=np.array([grey, 5], np.float32),
            spread=np.array([0.5, 0.25], np.float32),
            difference=np.full((2, 1, 3, 3), 7, np.float32),
            diameter_mm=4.0,
        )
        for grey in (10, 12)
    ]
    paster = Paster.of(lesions, (1.0, 1.0), slicewise=True)
    assert paster.background.tolist() == [[pytest.approx(9.54), 4.75], [pytest.approx(12.46), 5.25]]
    places = []
    for seed in range(40):
        image, target = np.full((2, 1, 16, 40), 5.0), np.zeros((1, 16, 40), np.int16)
        image[0, :, :, :20], image[0, :, :, 20:] = 11, 30
        paster.paste(np.random.default_rng(seed), image, target, Room.of(target))
        places += np.nonzero(target[0])[1].tolist()
    assert len(places) > 40
    assert max(places) < 22  # a few voxels over the border, as the median decides
    image[1] = 5.5  # the other channel forbids it everywhere
    assert paster.paste(np.random.default_rng(0), image, np.zeros_like(target), Room.of(target)) is None


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.booleans())
def test_what_is_there_stays(seed: int, slicewise: bool) -> None:
    """Labels, the ignored one and what is outside are never touched, nor the image within two voxels of a label."""
    rng = np.random.default_rng(seed)
    shape = (1 if slicewise else 5, 24, 24)
    label = np.zeros(shape, np.int16)
    label[0, rng.integers(24), rng.integers(24)] = 1
    label[-1, rng.integers(24), rng.integers(24)] = 3  # ignored, say
    label[:, :3] = -1
    mask = np.zeros((5, 11, 11), np.int16)
    mask[1:4, 3:8, 4:7] = 1
    paster = anywhere(mask, 6.0, (2.0, 8.0), slicewise=slicewise)
    image, target = np.zeros((1, *shape), np.float32), label.copy()
    box = np.ones([1 if slicewise else 5, 5, 5], bool)
    before = ndimage.binary_dilation(label > 0, box) | (label < 0)
    room = Room.of(label)
    pasted = [paster.paste(rng, image, target, room) for _ in range(3)]
    assert (target[label != 0] == label[label != 0]).all()
    assert (target[before] == label[before]).all()
    assert (np.abs(image[0][before]) <= 0.02).all()
    assert (target != label).any() == any(d is not None for d in pasted)
    assert (image[0][target != label] >= 0.5).all()
