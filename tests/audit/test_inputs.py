"""Which predictions an audit accepts."""

import json
import re
import shutil

import numpy as np
import pytest

from nnunet_lopsided.audit import inputs as audit_inputs
from nnunet_lopsided.audit.inputs import Model, find_inputs
from nnunet_lopsided.errors import InputError, InputErrors
from nnunet_lopsided.images import Image, read_image, write_image
from tests.audit.conftest import TRAINER

MODEL = Model(TRAINER, "nnUNetPlans", "2.5d")


def refused(message, *models, **options):
    with pytest.raises(InputError, match=re.escape(message)):
        find_inputs(511, models or [MODEL], **options)


def test_every_case_gets_the_prediction_of_the_fold_that_validates_it(audited):
    found = find_inputs(511, [MODEL])
    assert found.folds == (0, 1)
    assert [case.name for case in found.cases] == [f"p{i:02d}" for i in range(10)]
    assert [case.fold for case in found.cases] == [0, 1] * 5
    assert found.left_out == ()
    for case in found.cases:
        assert case.predictions[0].array == audited.validation(case.fold) / f"{case.name}.npz"


def test_magnified_predictions_follow_those_of_each_model(audited, monkeypatch):
    audited.write_checkpoints()
    asked: list[tuple[object, ...]] = []
    by_torch: list[bool] = []

    def fake(folder, checkpoint, factors, cases, device, n_workers, torch_resampling=False):
        by_torch.append(torch_resampling)
        asked.extend((folder.name, factor, cases[0].name, device, n_workers) for factor in factors)
        return {case.name: [folder / f"x{factor:g}" / case.name for factor in factors] for case in cases}

    monkeypatch.setattr(audit_inputs, "predict_magnified", fake)
    found = find_inputs(511, [MODEL], device="cpu", n_workers=3)
    assert asked == [(f"fold_{f}", x, f"p0{f}", "cpu", 3) for f in (0, 1) for x in (1.5, 2.0)]
    assert (found.magnify, found.not_magnified) == ((1.5, 2.0), "")
    for case in found.cases:
        arrays = [prediction.array for prediction in case.predictions]
        fold = audited.results / f"fold_{case.fold}"
        assert arrays == [fold / "validation" / f"{case.name}.npz", fold / "x1.5" / case.name, fold / "x2" / case.name]
    assert find_inputs(511, [MODEL], [1], magnify=[3, 1.25], device="cpu").magnify == (1.25, 3)
    assert asked[4:] == [("fold_1", 1.25, "p01", "cpu", 2), ("fold_1", 3, "p01", "cpu", 2)]
    assert find_inputs(511, [MODEL], magnify=[]).magnify == ()
    assert len(asked) == 6
    assert find_inputs(511, [MODEL]).magnify == (1.5, 2)
    assert asked[-1][3] is None  # cuda where there is one
    assert not any(by_torch)
    find_inputs(511, [MODEL], torch_resampling=True)
    assert by_torch[-1] is True


def test_without_checkpoints_nothing_is_magnified(audited):
    found = find_inputs(511, [MODEL])
    reason = f"{audited.results.name} has no fold_0/checkpoint_final.pth"
    assert (found.magnify, found.not_magnified) == ((), reason)
    refused(f"cannot predict magnified images: {reason}; --magnify without a number audits", magnify=[2])
    assert find_inputs(511, [MODEL], magnify=[]).not_magnified == ""


@pytest.mark.parametrize(
    ("configurations", "magnified"),
    [
        ({"2.5d": {"previous_stage": "3d_lowres"}}, False),
        ({"2.5d": {"inherits_from": "a"}, "a": {"inherits_from": "b"}, "b": {"previous_stage": "3d_lowres"}}, False),
        ({"2.5d": {"inherits_from": "a"}, "a": {"inherits_from": "2.5d"}}, True),
        ({"2.5d": {"inherits_from": "a"}}, True),
    ],
)
def test_a_cascade_is_not_magnified(audited, monkeypatch, configurations, magnified):
    audited.write_checkpoints(configurations)
    monkeypatch.setattr(
        audit_inputs,
        "predict_magnified",
        lambda folder, _, factors, cases, *__, **___: {c.name: [folder for _ in factors] for c in cases},
    )
    reason = "2.5d is a cascade, which needs the predictions of its previous stage"
    assert find_inputs(511, [MODEL]).not_magnified == ("" if magnified else reason)


@pytest.mark.parametrize("factors", [[1], [0.5], [2, 2], [1.5, 1.5000001], [float("nan")], [float("inf")]])
def test_impossible_magnifications(audited, factors):
    refused("--magnify must be different numbers above 1, got ", magnify=factors)


def test_some_folds_only(audited):
    found = find_inputs(511, [MODEL], [1])
    assert [case.fold for case in found.cases] == [1] * 5
    assert found.left_out == tuple(f"p{i:02d}" for i in range(0, 10, 2))


def test_patients_come_from_the_dataset_or_the_pattern(audited):
    (audited.raw / "cases.csv").write_text("case,patient\n" + "".join(f"p{i:02d},q{i // 2}\n" for i in range(10)))
    assert {case.patient for case in find_inputs(511, [MODEL]).cases} == {f"q{i}" for i in range(5)}
    assert {case.patient for case in find_inputs(511, [MODEL], patients_regex="(p.)").cases} == {"p0"}


def test_fold_all_is_refused(audited):
    refused("fold all trains on every case", folds=["all"])


def test_splits_without_folds(audited):
    (audited.preprocessed / "splits_final.json").write_text("[]")
    refused("expected the folds of a cross-validation, found none")


def test_without_splits(audited):
    (audited.preprocessed / "splits_final.json").unlink()
    refused("splits_final.json not found: it says which cases a fold trained on")


def test_a_fold_that_does_not_exist(audited):
    refused("fold 2:", folds=[0, 2])


def test_a_case_that_is_trained_and_validated(audited):
    audited.edit_splits(lambda splits: splits[0]["train"].append("p00"))
    refused("fold 0 trains on case p00 and validates on it")


def test_a_case_in_two_folds(audited):
    audited.edit_splits(lambda splits: (splits[1]["val"].append("p00"), splits[1]["train"].remove("p00")))
    refused("case p00 is validated by the folds 0 and 1")


def test_a_prediction_of_a_case_the_fold_trained_on(audited):
    shutil.copy(audited.validation(1) / "p01.npz", audited.validation(0))
    refused(f"{audited.validation(0)} holds case p01, but fold 0 trained on it")


def test_folds_that_have_changed_are_refused_before_anything_is_predicted(audited):
    """A fold without probabilities would be predicted: not among those that are there."""
    audited.edit_splits(lambda splits: splits.reverse())
    (audited.validation(1) / "p01.npz").unlink()
    for fold in (0, 1):
        (audited.results / f"fold_{fold}" / "checkpoint_final.pth").write_bytes(b"")
    before = sorted(path.name for path in audited.results.rglob("*"))
    refused("holds case p00, but fold 0 trained on it")
    assert sorted(path.name for path in audited.results.rglob("*")) == before


def test_an_archive_that_was_cut_off_holds_no_probabilities(audited):
    path = audited.validation(1) / "p03.npz"
    path.write_bytes(path.read_bytes()[:-40])
    refused(
        f"fold 1 has no predictions with probabilities in {audited.validation(1)}: no whole CASE.npz of 1 cases (p03)"
    )


def test_a_prediction_of_a_case_that_is_in_no_fold(audited):
    shutil.copy(audited.validation(1) / "p01.npz", audited.validation(0) / "stranger.npz")
    refused("holds case stranger, but fold 0 does not validate it by splits_final.json")


def test_predictions_without_probabilities_and_without_checkpoint(audited):
    (audited.validation(1) / "p03.npz").unlink()
    refused(
        f"fold 1 has no predictions with probabilities in {audited.validation(1)}: no whole CASE.npz of 1 cases (p03)"
    )


def test_a_fold_that_was_never_trained(audited):
    shutil.rmtree(audited.results / "fold_1")
    refused(
        "no such folder, and no checkpoint_final.pth to make them with; train it by nnUNetv2_train Dataset511_Cut 2.5d "
        f"1 -tr {TRAINER} -p nnUNetPlans --npz, or choose folds by -f"
    )


def test_missing_probabilities_are_made_with_the_checkpoint(audited, monkeypatch):
    kept = audited.root / "kept"
    shutil.move(audited.validation(0), kept)
    (audited.results / "fold_0" / "checkpoint_final.pth").write_bytes(b"")
    commands = []

    def fake(command, *_):
        commands.append(" ".join(command))
        shutil.copytree(kept, audited.validation(0))
        return 0

    monkeypatch.setattr(audit_inputs, "run_logged", fake)
    found = find_inputs(511, [MODEL], device="cpu")
    assert len(found.cases) == 10
    assert commands == [f"nnUNetv2_train Dataset511_Cut 2.5d 0 -tr {TRAINER} -p nnUNetPlans --val --npz -device cpu"]


@pytest.mark.slow
def test_the_command_that_makes_them_fails(audited):
    shutil.rmtree(audited.validation(0))
    (audited.results / "fold_0" / "checkpoint_final.pth").write_bytes(b"no checkpoint")
    # nnU-Net itself runs here, and does not know the plans of this dataset.
    refused("fold 0: nnUNetv2_train Dataset511_Cut 2.5d 0", device="cpu")


def test_labels_that_changed_since_the_training(audited):
    for name in ("p02", "p05"):
        path = audited.raw / "labelsTr" / f"{name}.nii.gz"
        label = read_image(path)
        array = np.asarray(label.array).copy()
        array[0, 0, 0] = 1
        write_image(path, Image(array, label.geometry))
    with pytest.raises(InputErrors) as caught:
        find_inputs(511, [MODEL])
    assert [problem.split(":")[0] for problem in caught.value.problems] == ["case p02", "case p05"]
    assert "the labels have changed since the training" in caught.value.problems[0]


def test_labels_with_the_same_voxels_in_another_file_are_the_same(audited):
    path = audited.raw / "labelsTr" / "p02.nii.gz"
    label = read_image(path)
    write_image(path, Image(label.array.astype(np.int16), label.geometry))
    assert len(find_inputs(511, [MODEL]).cases) == 10


def test_a_case_that_left_the_dataset(audited):
    (audited.raw / "labelsTr" / "p04.nii.gz").unlink()
    for channel in range(2):
        (audited.raw / "imagesTr" / f"p04_000{channel}.nii.gz").unlink()
    refused("case p04 of")


def test_a_case_that_the_training_did_not_see_preprocessed(audited):
    (audited.preprocessed / "gt_segmentations" / "p04.nii.gz").unlink()
    refused("so it is not known which labels the training saw")


def test_several_models_must_all_have_their_folds(audited):
    other = Model("nnUNetTrainer25D", "nnUNetPlans", "2.5d")
    refused("nnUNetTrainer25D__nnUNetPlans__2.5d/fold_0/validation: no such folder", MODEL, other)
    shutil.copytree(audited.results, other.folder("Dataset511_Cut"))
    found = find_inputs(511, [MODEL, other])
    assert [len(case.predictions) for case in found.cases] == [2] * 10


def test_splits_that_are_none(audited):
    (audited.preprocessed / "splits_final.json").write_text(json.dumps({"train": []}))
    refused("splits_final.json: expected a list, found a mapping")
