"""A small folder of references and nnU-Net predictions."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from nnunet_lopsided.images import Geometry, Image, write_image


@dataclass(frozen=True)
class Folders:
    """Where references and predictions lie, and writers for both."""

    references: Path
    predictions: Path

    def write_reference(self, name, array, geometry=None):
        write_image(self.references / name, Image(array, geometry or plain(array.ndim)))

    def write_image(self, name, array, geometry=None):
        write_image(self.predictions / name, Image(array, geometry or plain(array.ndim)))

    def write_npz(self, case, lesion, key="probabilities"):
        np.savez_compressed(self.predictions / f"{case}.npz", **{key: np.stack([1 - lesion, lesion])})

    def write_dataset_json(self, labels):
        (self.predictions / "dataset.json").write_text(json.dumps({"labels": labels}))


def plain(ndim, spacing_mm=None):
    return Geometry(spacing_mm or (1.0,) * ndim, (0.0,) * ndim, tuple(np.eye(ndim).ravel().tolist()))


@pytest.fixture
def folders(tmp_path):
    """Empty folders ``references`` and ``predictions``."""
    found = Folders(tmp_path / "references", tmp_path / "predictions")
    found.references.mkdir()
    found.predictions.mkdir()
    return found


@pytest.fixture
def two_cases(folders):
    """Case a: lesions of 27 (found at .8) and 1 voxels (missed), a false positive at .5. Case b: empty, one at .3."""
    reference, lesion = np.zeros((8, 10, 12), np.uint8), np.zeros((8, 10, 12), np.float32)
    reference[1:4, 1:4, 1:4] = reference[6, 6, 6] = 1
    lesion[1:4, 1:4, 1:3] = 0.8
    lesion[1, 8, 8:10] = 0.5
    folders.write_reference("a.nii.gz", reference)
    folders.write_image("a.nii.gz", (lesion > 0.5).astype(np.uint8))
    folders.write_npz("a", lesion)
    other = np.zeros_like(lesion)
    other[4, 4, 4] = 0.3
    folders.write_reference("b.nii.gz", np.zeros_like(reference))
    folders.write_image("b.nii.gz", np.zeros_like(reference))
    folders.write_npz("b", other)
    folders.write_dataset_json({"background": 0, "lesion": 1})
    return folders
