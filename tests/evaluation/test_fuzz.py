"""Damaged inputs: a result or an error that names the case, never a traceback."""

import json

import numpy as np
import pytest

from nnunet_lopsided.errors import InputError
from nnunet_lopsided.evaluation import evaluate_folder
from nnunet_lopsided.evaluation.summary_json import summary_dict


@pytest.fixture
def small(folders):
    """One uncompressed case whose bytes all matter."""
    reference = np.zeros((3, 5, 6), np.uint8)
    reference[1, 1:3, 1:3] = 1
    folders.write_reference("a.nii", reference)
    folders.write_image("a.nii", reference)
    folders.write_npz("a", (reference * 0.75).astype(np.float32))
    folders.write_dataset_json({"background": 0, "lesion": 1})
    return folders


@pytest.mark.parametrize("target", ["reference", "image", "array", "dataset.json"])
@pytest.mark.parametrize("seed", range(12))
def test_changed_bytes(small, target, seed):
    path = {
        "reference": small.references / "a.nii",
        "image": small.predictions / "a.nii",
        "array": small.predictions / "a.npz",
        "dataset.json": small.predictions / "dataset.json",
    }[target]
    rng = np.random.default_rng(seed)
    content = bytearray(path.read_bytes())
    header = min(len(content), 352)  # of NIfTI: where changes do most
    for place in rng.integers(0, header, rng.integers(1, 6)):
        content[place] = rng.integers(256)
    path.write_bytes(content)
    try:
        result = evaluate_folder(small.references, small.predictions, n_replicates=100)
    except InputError as error:
        message = str(error)
    else:
        assert json.loads(json.dumps(summary_dict(result), allow_nan=False))["counts"]["cases"] == 1
        return
    assert "case a" in message or "dataset.json" in message


@pytest.mark.parametrize(
    "labels",
    [
        None,
        [],
        {},
        {"background": 0},
        {"background": 0, "lesion": "one"},
        {"0": "background", "1": "lesion"},
        {"background": 0, "lesion": [1, [2]]},
    ],
)
def test_dataset_json_of_another_make(small, labels):
    small.write_dataset_json(labels)
    with pytest.raises(InputError, match=r"dataset\.json"):
        evaluate_folder(small.references, small.predictions, n_replicates=0)
