"""A small folder of references and nnU-Net predictions."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
        arrays: dict[str, Any] = {key: np.stack([1 - lesion, lesion])}
        np.savez_compressed(self.predictions / f"{case}.npz", **arrays)

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


@pytest.fixture
def two_models(two_models_once, tmp_path):
    """Copies of the folders of :func:`two_models_once`, which may be changed."""
    for folder in two_models_once:
        shutil.copytree(folder, tmp_path / folder.name)
    return tuple(tmp_path / folder.name for folder in two_models_once)


@pytest.fixture(scope="session")
def two_models_once(tmp_path_factory):
    """Evaluation folders of two models on 19 small 2D cases of 10 patients, p0_0, p0_1, ... p9_0; case p9_0 is empty.

    Model b finds fewer lesions than model a and makes other false positives.
    """
    from nnunet_lopsided.evaluation import evaluate_folder
    from nnunet_lopsided.evaluation.writing import write_results

    tmp_path = tmp_path_factory.mktemp("two_models")
    rng = np.random.default_rng(7)
    references = tmp_path / "references"
    references.mkdir()
    for model in "ab":
        (tmp_path / model).mkdir()
    for case in [f"p{i}_{j}" for i in range(9) for j in range(2)] + ["p9_0"]:
        n = 0 if case == "p9_0" else int(rng.integers(2, 6))
        reference = np.zeros((30, 30), np.uint8)
        places = rng.permutation(25)
        for place, size in zip(places[:n], rng.integers(1, 4, n), strict=True):
            y, x = 6 * (place // 5), 6 * (place % 5)
            reference[y : y + size, x : x + size] = 1
        write_image(references / f"{case}.png", Image(reference, plain(2)))
        for model, hits, n_false in (("a", 0.8, 2), ("b", 0.5, 1)):
            probability = np.zeros((30, 30), np.float32)
            for place in places[:n]:
                y, x = 6 * (place // 5), 6 * (place % 5)
                if rng.random() < hits:
                    # A seventh of the confidences are equal.
                    probability[y : y + 2, x : x + 2] = rng.choice([0.5, rng.uniform(0.2, 0.9)], p=[1 / 7, 6 / 7])
            for place in places[n : n + n_false]:
                probability[6 * (place // 5) + 1, 6 * (place % 5) + 1] = rng.choice([0.5, rng.uniform(0.11, 0.8)])
            np.save(tmp_path / model / f"{case}.npy", probability)
    for model in "ab":
        result = evaluate_folder(references, tmp_path / model, n_replicates=0, patients_regex="(p.)_")
        write_results(result, tmp_path / f"out_{model}")
    return tmp_path / "out_a", tmp_path / "out_b"
