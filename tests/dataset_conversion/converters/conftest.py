"""Synthetic releases: folders with the names and quirks of the real ones, holding tiny volumes."""

from __future__ import annotations

import csv
import json
import multiprocessing
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.pool import ThreadPool
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from nnunet_lopsided.dataset_conversion.converters import convert
from nnunet_lopsided.dataset_conversion.converters.options import Converted, Options
from nnunet_lopsided.images import Geometry, Image, read_image, write_image

SHAPE = (4, 6, 8)
IDENTITY = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
GEOMETRY = Geometry((2.0, 1.0, 0.5), (-3.0, 4.0, 5.5), IDENTITY)


@dataclass
class Tree:
    """A release to be filled, below ``root``."""

    root: Path

    def write(self, path: str, array: NDArray[Any], geometry: Geometry = GEOMETRY) -> Path:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        write_image(file, Image(array, geometry))
        return file

    def image(self, path: str, geometry: Geometry = GEOMETRY, shape: Sequence[int] = SHAPE) -> Path:
        """An image that differs from every other one, but is always the same."""
        seed = sum(ord(c) * (i + 1) for i, c in enumerate(path))
        return self.write(path, np.random.default_rng(seed).integers(0, 99, shape).astype(np.int16), geometry)

    def label(self, path: str, *values: int, geometry: Geometry = GEOMETRY, dtype: type = np.uint8) -> Path:
        """A label map with one separate voxel per value."""
        return self.write(path, label_array(*values, dtype=dtype), geometry)

    def text(self, path: str, content: str = "") -> Path:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
        return file


def label_array(*values: int, dtype: type = np.uint8) -> NDArray[Any]:
    array: NDArray[Any] = np.zeros(SHAPE, dtype)
    places = [(z, y, x) for z in (0, 2) for y in (0, 2, 4) for x in (0, 2, 4, 6)]
    for place, value in zip(places, values, strict=False):
        array[place] = value
    return array


@dataclass(frozen=True)
class Written:
    """A converted dataset, read back."""

    folder: Path
    converted: Converted

    @property
    def dataset_json(self) -> dict[str, Any]:
        return json.loads((self.folder / "dataset.json").read_text())

    @property
    def conversion(self) -> dict[str, Any]:
        return json.loads((self.folder / "conversion.json").read_text())

    @property
    def splits(self) -> list[dict[str, list[str]]]:
        return json.loads((self.folder / "splits_final.json").read_text())

    @property
    def cases(self) -> dict[str, dict[str, str]]:
        with (self.folder / "cases.csv").open(newline="") as file:
            return {row["case"]: row for row in csv.DictReader(file)}

    @property
    def channels(self) -> list[str]:
        return list(self.dataset_json["channel_names"].values())

    def names(self, kind: str) -> list[str]:
        folder = self.folder / kind
        return sorted(p.name for p in folder.iterdir()) if folder.is_dir() else []

    def label(self, case: str, side: str = "Tr") -> NDArray[Any]:
        return read_image(self.folder / f"labels{side}" / f"{case}.nii.gz").array

    def image_path(self, case: str, channel: str, side: str = "Tr") -> Path:
        index = self.channels.index(channel)
        return self.folder / f"images{side}" / f"{case}_{index:04d}{self.dataset_json['file_ending']}"

    def source_of(self, case: str, channel: str, side: str = "Tr") -> Path:
        """Where the link of an image leads."""
        path = self.image_path(case, channel, side)
        assert path.is_symlink()
        return path.resolve()


@pytest.fixture
def raw(nnunet_paths: Path) -> Path:
    return nnunet_paths / "nnUNet_raw"


@pytest.fixture
def tree(nnunet_paths: Path) -> Tree:
    (nnunet_paths / "release").mkdir()
    return Tree(nnunet_paths / "release")


class Convert:
    """``run(converter, **options)`` writes dataset 501 from the tree; options of find and of writing mixed."""

    def __init__(self, tree: Tree) -> None:
        self.tree = tree

    def __call__(self, converter: str, source: Path | None = None, **options: Any) -> Written:
        own = {key: options.pop(key) for key in list(options) if key in Options.__dataclass_fields__}
        own = {"dataset_id": 501, "name": "", **own}
        converted = convert(converter, source or self.tree.root, Options(**own), **options)
        return Written(converted.folder, converted)


@pytest.fixture
def run(tree: Tree, raw: Path) -> Convert:
    return Convert(tree)


@pytest.fixture
def verify(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """nnU-Net's own check of a dataset folder, in threads: spawned processes would import torch again."""

    def check(folder: Path) -> None:
        from nnunetv2.experiment_planning.verify_dataset_integrity import verify_dataset_integrity

        monkeypatch.setattr(multiprocessing, "get_context", lambda method=None: SimpleNamespace(Pool=ThreadPool))
        monkeypatch.setattr("nnunetv2.utilities.utils.Pool", ThreadPool)
        verify_dataset_integrity(str(folder), num_processes=1)
        out = capsys.readouterr().out
        assert "verify_dataset_integrity Done" in out
        assert "Error" not in out
        assert "Warning" not in out

    return check


@pytest.fixture
def a_label():
    """``label_array``, which importlib mode keeps test files from importing."""
    return label_array
