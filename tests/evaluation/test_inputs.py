"""nnunet_lopsided.evaluation.inputs: nnU-Net's folders as they are."""

import json
import multiprocessing
import pickle
import shutil
from multiprocessing.pool import ThreadPool
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from nnunet_lopsided.errors import InputError, InputErrors
from nnunet_lopsided.evaluation import evaluate_folder
from nnunet_lopsided.evaluation.summary_json import summary_dict
from nnunet_lopsided.evaluation.writing import write_results
from nnunet_lopsided.images import Geometry, Image, write_image

PLAIN = Geometry((1.0,) * 3, (0.0,) * 3, tuple(np.eye(3).ravel().tolist()))
CASES = ("a", "b", "c", "d")


@pytest.fixture
def results(nnunet_paths):
    """A trained cross-validation of two folds as nnU-Net leaves it: case a, b in fold 0, c, d in fold 1."""
    dataset = "Dataset901_Toy"
    preprocessed = nnunet_paths / "nnUNet_preprocessed" / dataset
    folder = nnunet_paths / "nnUNet_results" / dataset / "nnUNetTrainer__nnUNetPlans__2d"
    (preprocessed / "gt_segmentations").mkdir(parents=True)
    splits = [{"train": ["c", "d"], "val": ["a", "b"]}, {"train": ["a", "b"], "val": ["c", "d"]}]
    (preprocessed / "splits_final.json").write_text(json.dumps(splits))
    folder.mkdir(parents=True)
    (folder / "dataset.json").write_text(json.dumps({"labels": {"background": 0, "rim": 1, "core": 2}}))
    for i, case in enumerate(CASES):
        reference = np.zeros((3, 6, 7), np.uint8)
        reference[1, 1:3, 1:3], reference[1, 4, 5] = 1, 2
        write_image(preprocessed / "gt_segmentations" / f"{case}.nii.gz", Image(reference, PLAIN))
        validation = folder / f"fold_{i // 2}" / "validation"
        validation.mkdir(parents=True, exist_ok=True)
        probability = np.zeros((3, *reference.shape), np.float32)
        probability[1] = 0.75 * (reference == 1)
        probability[0] = 1 - probability[1]
        np.savez_compressed(validation / f"{case}.npz", probabilities=probability)
        write_image(validation / f"{case}.nii.gz", Image((reference == 1).astype(np.uint8), PLAIN))
        (validation / f"{case}.pkl").write_bytes(b"not to be opened")
        (validation / "summary.json").write_text("{}")
    return folder


def evaluate(predictions, references=None, **options):
    return evaluate_folder(references, predictions, n_replicates=0, **options)


def test_all_folds_at_once(results):
    result = evaluate(results, cross_validation=True)
    assert [case.case for case in result.cases] == list(CASES)
    assert {name: files.fold for name, files in result.files.items()} == {"a": 0, "b": 0, "c": 1, "d": 1}
    assert result.inputs.folds == (0, 1)
    assert result.inputs.references.name == "gt_segmentations"
    assert result.inputs.dataset_json == results / "dataset.json"
    assert (result.summary.counts.reference_lesions, result.summary.metrics.max_sensitivity) == (8, 0.5)
    assert evaluate(results, cross_validation=True, label="rim").summary.metrics.max_sensitivity == 1.0


def test_some_folds(results):
    result = evaluate(results, cross_validation=True, folds=(1,))
    assert [case.case for case in result.cases] == ["c", "d"]
    with pytest.raises(InputError, match="folds needs cross_validation"):
        evaluate(results, folds=(1,))


def test_one_validation_folder_expects_the_cases_of_its_fold(results):
    result = evaluate(results / "fold_1" / "validation")
    assert [case.case for case in result.cases] == ["c", "d"]
    assert result.missing_predictions == ()
    assert result.inputs.dataset_json == results / "dataset.json"
    (results / "fold_1" / "validation" / "d.npz").unlink()
    (results / "fold_1" / "validation" / "d.nii.gz").unlink()
    with pytest.raises(InputError, match=r"1 of 2 references have no prediction in .*: d;"):
        evaluate(results / "fold_1" / "validation")


def test_what_would_tell_the_cases_of_a_fold_is_said(results, tmp_path):
    references = tmp_path / "nnUNet_preprocessed" / "Dataset901_Toy" / "gt_segmentations"
    (references.parent / "splits_final.json").unlink()
    hint = r"; no splits_final.json below nnUNet_preprocessed tells the fold's own cases$"
    for folder, options in (
        (results / "fold_1" / "validation", {}),
        (results, {"cross_validation": True, "folds": (1,)}),
    ):
        with pytest.raises(InputError, match=r"2 of 4 references have no prediction.*" + hint):
            evaluate(folder, **options)


def test_a_case_of_the_fold_without_any_file_is_a_problem(results, tmp_path):
    references = tmp_path / "nnUNet_preprocessed" / "Dataset901_Toy" / "gt_segmentations"
    for path in (*(results / "fold_1" / "validation").glob("d.*"), *references.glob("d.*")):
        path.unlink()
    with pytest.raises(InputError, match=r"^case d: splits_final.json names it, found neither its reference in"):
        evaluate(results / "fold_1" / "validation")
    result = evaluate(results, cross_validation=True, skip_bad=True)
    assert [s.case for s in result.skipped] == ["d"]
    write_results(result, tmp_path / "out")
    assert "d,,,skipped," in (tmp_path / "out" / "cases.csv").read_text()


def test_a_patient_without_name_is_refused(results):
    with pytest.raises(InputError, match=r"gives the cases b, c, d no patient"):
        evaluate(results, cross_validation=True, patients_regex="(a)?")


def test_fold_all_expects_every_case(results):
    shutil.move(results / "fold_0", results / "fold_all")
    with pytest.raises(InputError, match="2 of 4 references have no prediction"):
        evaluate(results / "fold_all" / "validation")


def test_an_unfinished_fold_is_refused(results):
    shutil.rmtree(results / "fold_1" / "validation")
    with pytest.raises(
        InputError, match=r"no validation folder for fold 1; finish by .* --val, or choose .*--folds \(with one: 0\)"
    ):
        evaluate(results, cross_validation=True)
    assert len(evaluate(results, cross_validation=True, folds=(0,)).cases) == 2
    shutil.rmtree(results / "fold_1")
    with pytest.raises(InputError, match="no validation folder for fold 1"):
        evaluate(results, cross_validation=True)  # splits_final.json declares it


def test_a_case_in_two_folds_is_refused(results):
    shutil.copy(results / "fold_0" / "validation" / "a.npz", results / "fold_1" / "validation" / "a.npz")
    with pytest.raises(InputError, match=r"case a lies in two folds of .*: 0 and 1"):
        evaluate(results, cross_validation=True)
    skipped = evaluate(results, cross_validation=True, skip_bad=True).skipped
    assert [case.case for case in skipped] == ["a"]


def test_every_case_with_two_files_is_named_at_once(results):
    references = results.parents[2] / "nnUNet_preprocessed" / "Dataset901_Toy" / "gt_segmentations"
    for folder, name in ((references, "a"), (results / "fold_0" / "validation", "b")):
        shutil.copy(folder / f"{name}.nii.gz", folder / f"{name}.nii")
    shutil.copy(results / "fold_1" / "validation" / "c.npz", results / "fold_1" / "validation" / "c.npy")
    with pytest.raises(InputErrors) as error:
        evaluate(results, cross_validation=True)
    assert [problem.split(" in ")[0] for problem in error.value.problems] == [
        f"case {name} has two files" for name in "abc"
    ]
    result = evaluate(results, cross_validation=True, skip_bad=True)
    assert [case.case for case in result.cases] == ["d"]
    assert [case.case for case in result.skipped] == ["a", "b", "c"]


def test_a_folder_without_folds_or_of_no_dataset(results, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="expected folders fold_0, fold_1"):
        evaluate(tmp_path / "empty", cross_validation=True)
    with pytest.raises(InputError, match="folder not found"):
        evaluate(tmp_path / "none", cross_validation=True)
    with pytest.raises(InputError, match=r"lies below no folder DatasetXXX_NAME.*give -g"):
        evaluate(tmp_path / "empty")
    shutil.move(results, tmp_path / "elsewhere")
    with pytest.raises(InputError, match=r"lies below no folder DatasetXXX_NAME.*give -g"):
        evaluate(tmp_path / "elsewhere", cross_validation=True)
    references = tmp_path / "nnUNet_preprocessed" / "Dataset901_Toy" / "gt_segmentations"
    assert len(evaluate(tmp_path / "elsewhere", references, cross_validation=True).cases) == 4


def test_references_default_to_those_of_the_dataset(results, nnunet_paths):
    shutil.rmtree(nnunet_paths / "nnUNet_preprocessed" / "Dataset901_Toy" / "gt_segmentations")
    with pytest.raises(InputError, match=r"no reference segmentations of Dataset901_Toy: folder not found"):
        evaluate(results, cross_validation=True)


def test_broken_splits(results, nnunet_paths):
    path = nnunet_paths / "nnUNet_preprocessed" / "Dataset901_Toy" / "splits_final.json"
    path.write_text('[{"train": []}]')
    with pytest.raises(InputError, match=r"splits_final\.json: \[0\]: expected the key val, found train"):
        evaluate(results, cross_validation=True)


def test_ensembles_of_nnunet(folders, tmp_path, monkeypatch):
    """The output of nnUNetv2_ensemble, made by nnU-Net's own function, of a region-based model."""
    from nnunetv2.ensembling import ensemble

    # A thread instead of a spawned process, which would import torch again.
    monkeypatch.setattr(multiprocessing, "get_context", lambda method=None: SimpleNamespace(Pool=ThreadPool))
    labels = {"background": 0, "whole": [1, 2], "core": [2]}
    dataset = {"labels": labels, "regions_class_order": [1, 2], "channel_names": {"0": "T1"}, "file_ending": ".nii.gz"}
    reference = np.zeros((4, 8, 8), np.uint8)
    reference[1:3, 1:4, 1:4], reference[2, 2, 2], reference[2, 6, 6] = 1, 2, 1
    folders.write_reference("a.nii.gz", reference)
    members = []
    for i, level in enumerate((0.9, 0.5)):
        member = tmp_path / f"member{i}"
        member.mkdir()
        members.append(str(member))
        whole, core = level * (reference > 0), level * (reference == 2)
        np.savez_compressed(member / "a.npz", probabilities=np.stack([whole, core]).astype(np.float32))
        (member / "a.pkl").write_bytes(pickle.dumps({"sitk_stuff": _sitk_stuff(), "shape": (4, 8, 8)}))
        (member / "dataset.json").write_text(json.dumps(dataset))
        (member / "plans.json").write_text(json.dumps(_plans()))
    output = tmp_path / "ensemble"
    ensemble.ensemble_folders(members, str(output), save_merged_probabilities=True, num_processes=1)
    for label, confidence in ((None, 0.7), ("whole", 0.7), ("core", 0.7)):
        result = evaluate_folder(folders.references, output, label=label, n_replicates=0)
        assert result.summary.metrics.max_sensitivity == 1.0
        assert result.cases[0].confidence.tolist() == pytest.approx([confidence] * len(result.cases[0].confidence))
        assert result.summary.metrics.voxel_dice == 1.0


def _sitk_stuff():
    return {"spacing": (1.0,) * 3, "origin": (0.0,) * 3, "direction": tuple(np.eye(3).ravel().tolist())}


def _plans():
    return {
        "dataset_name": "Dataset902_Regions",
        "plans_name": "nnUNetPlans",
        "image_reader_writer": "SimpleITKIO",
        "label_manager": "LabelManager",
        "configurations": {},
    }


def test_patients_come_from_the_datasets_table(two_cases, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As for audit and censor; the table lies beside labelsTs, or in the raw folder of gt_segmentations."""
    table = "case,patient\na,p1\nb,p1\n"
    raw = tmp_path / "raw" / "Dataset501_X"
    labels, copies = raw / "labelsTs", tmp_path / "preprocessed" / "Dataset501_X" / "gt_segmentations"
    for folder in (labels, copies):
        shutil.copytree(two_cases.references, folder)
    (raw / "cases.csv").write_text(table)
    beside = evaluate_folder(labels, two_cases.predictions)
    assert [case.patient for case in beside.cases] == ["p1", "p1"]
    assert [case.patient for case in evaluate_folder(copies, two_cases.predictions).cases] == ["a", "b"]
    monkeypatch.setenv("nnUNet_raw", str(tmp_path / "raw"))
    assert [case.patient for case in evaluate_folder(copies, two_cases.predictions).cases] == ["p1", "p1"]
    by_name = evaluate_folder(labels, two_cases.predictions, patients_regex="(.)")
    assert [case.patient for case in by_name.cases] == ["a", "b"]
    settings = [summary_dict(result)["settings"] for result in (beside, by_name)]
    assert [(s["bootstrap_unit"], s.get("patients_table")) for s in settings] == [
        ("patient", str(raw / "cases.csv")),
        ("patient", None),
    ]
    (raw / "cases.csv").write_text("case,patient\na,p1\n")
    with pytest.raises(InputError, match=r"case b has no row with its patient \(or give --patients-regex\)"):
        evaluate_folder(labels, two_cases.predictions)
