"""Files of predictions by case."""

from __future__ import annotations

import pytest

from nnunet_lopsided.errors import InputError
from nnunet_lopsided.nnunet.results import find_dataset_json, label_maps, predictions_by_case


def test_predictions_pair_images_and_arrays(tmp_path):
    for name in ("b.nii.gz", "b.npz", "a.npy", "c.d.png", "dataset.json", "b.pkl", "._b.nii.gz"):
        (tmp_path / name).touch()
    (tmp_path / "dataset.json").write_text("{}")
    found = predictions_by_case(tmp_path)
    assert list(found) == ["a", "b", "c.d"]
    assert (found["b"].image, found["b"].array) == (tmp_path / "b.nii.gz", tmp_path / "b.npz")
    assert (found["a"].image, found["a"].array) == (None, tmp_path / "a.npy")
    assert list(label_maps(tmp_path)) == ["b", "c.d"]


def test_two_files_of_one_case_are_refused(tmp_path):
    (tmp_path / "a.nii.gz").touch()
    (tmp_path / "a.mha").touch()
    with pytest.raises(InputError, match=r"case a has two files in .*a\.mha and a\.nii\.gz"):
        label_maps(tmp_path)
    with pytest.raises(InputError, match="folder not found"):
        label_maps(tmp_path / "none")


def test_find_dataset_json_prefers_the_predictions(tmp_path):
    predictions, references = tmp_path / "predictions", tmp_path / "dataset" / "labelsTs"
    predictions.mkdir()
    references.mkdir(parents=True)
    assert find_dataset_json(predictions, references) is None
    expected = [references.parent / "dataset.json", references / "dataset.json", predictions / "dataset.json"]
    for path in expected:
        path.touch()
        assert find_dataset_json(predictions, references) == path


def test_a_folder_named_like_an_image_is_not_passed_over(tmp_path):
    (tmp_path / "a.nii.gz").mkdir()
    with pytest.raises(InputError, match=r"case a: expected a file, found a folder: .*a\.nii\.gz"):
        label_maps(tmp_path)
