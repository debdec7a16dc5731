"""Channels on the label's grid: by hand, and against SciPy's interpolation."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import map_coordinates

from nnunet_lopsided.dataset_conversion.converters.resampling import ResampledVolume, inside, share_inside
from nnunet_lopsided.images import Geometry, Header, Image

LPS = tuple(np.eye(3).ravel().tolist())


@dataclass(frozen=True)
class InMemory:
    image: Image
    path: Path = Path("memory.nii.gz")

    def header(self) -> Header:
        return Header(self.image.shape, self.image.geometry)

    def read(self) -> Image:
        return self.image


def test_halves_by_hand() -> None:
    coarse = Image(np.array([[[10, 20, 40]]], np.int16), Geometry((1.0, 1.0, 2.0), (0.0, 0.0, 0.0), LPS))
    grid = Header((1, 1, 6), Geometry((1.0, 1.0, 1.0), (-1.0, 0.0, 0.0), LPS))
    new = ResampledVolume(InMemory(coarse), grid)
    assert new.read().array.tolist() == [[[10, 10, 15, 20, 30, 40]]]
    assert (new.header(), new.read().geometry, new.read().array.dtype) == (grid, grid.geometry, np.float32)
    assert share_inside(coarse_header := InMemory(coarse).header(), grid) == 1.0  # -1 mm is the edge of voxel 0
    beyond = Header((1, 1, 6), Geometry((1.0, 1.0, 1.0), (3.0, 0.0, 0.0), LPS))
    assert inside(coarse_header, beyond, np.argwhere(np.ones(beyond.shape))).tolist() == [True] * 2 + [False] * 4
    assert ResampledVolume(InMemory(coarse), beyond).read().array.tolist() == [[[30, 40, 10, 10, 10, 10]]]


@pytest.mark.parametrize("seed", range(3))
def test_as_scipy_interpolates(seed: int) -> None:
    """Inside of the channel's outer centres; oblique grids."""
    rng = np.random.default_rng(seed)
    rotation, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    rotation *= np.sign(np.linalg.det(rotation))
    middle = rotation @ (np.array([1.3, 0.9, 1.1]) * (np.array([11, 10, 9]) - 1) / 2)
    channel = Image(
        rng.normal(size=(9, 10, 11)).astype(np.float32),
        Geometry((1.1, 0.9, 1.3), tuple((-middle).tolist()), tuple(rotation.ravel().tolist())),
    )
    grid = Header((5, 4, 6), Geometry((0.8, 1.2, 0.7), (-1.0, -0.5, 0.0), LPS))
    new = ResampledVolume(InMemory(channel), grid).read().array
    indices = np.stack(np.meshgrid(*map(np.arange, grid.shape), indexing="ij"), -1).reshape(-1, 3)
    points = indices[:, ::-1] * grid.geometry.spacing_mm[::-1] + np.array(grid.geometry.origin_mm)
    places = (points - channel.geometry.origin_mm) @ rotation / np.array(channel.geometry.spacing_mm[::-1])
    expected = map_coordinates(channel.array.astype(np.float64), places[:, ::-1].T, order=1)
    within = ((places >= 0) & (places <= np.array(channel.shape[::-1]) - 1)).all(axis=1)
    assert within.sum() > 20
    np.testing.assert_allclose(new.reshape(-1)[within], expected[within], atol=1e-4)
    sure = np.abs(places + 0.5).min() > 1e-3
    by_hand = ((places > -0.5) & (places < np.array(channel.shape[::-1]) - 0.5)).all(axis=1)
    assert not sure or np.array_equal(inside(Header(channel.shape, channel.geometry), grid, indices), by_hand)
