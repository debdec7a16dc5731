"""An audit from end to end, without the command line."""

import json
import shutil

import numpy as np
import pytest

from nnunet_lopsided.audit.auditing import audit
from nnunet_lopsided.audit.candidates import position_mm
from nnunet_lopsided.audit.inputs import Model, find_inputs
from nnunet_lopsided.audit.stored import read_audit
from nnunet_lopsided.audit.writing import write_audit
from nnunet_lopsided.errors import InputError
from nnunet_lopsided.evaluation.learned_confidence import Coefficients, ConfidenceModel
from nnunet_lopsided.images import Geometry, Image, read_image, write_image
from nnunet_lopsided.lesions import find_lesions
from tests.audit.conftest import GEOMETRY, TRAINER

MODEL = Model(TRAINER, "nnUNetPlans", "2.5d")


@pytest.fixture
def found(audited):
    return audit(find_inputs(511, [MODEL]), n_replicates=20)


def test_the_candidates_are_the_predicted_components_without_annotation(audited, found):
    expected = {}
    for path in sorted((audited.raw / "labelsTr").iterdir()):
        case = path.name.removesuffix(".nii.gz")
        fold = int(case[1:]) % 2
        probability = np.load(audited.validation(fold) / f"{case}.npz")["probabilities"][1]
        components = find_lesions(probability >= 0.1, GEOMETRY.spacing_mm)
        label = np.asarray(read_image(path).array).reshape(-1)
        for i in range(1, len(components) + 1):
            voxels = components.select([i])
            if not label[voxels].any():
                expected[case, voxels.tobytes()] = fold
    assert {(c.case, c.voxels.tobytes()): c.fold for c in found.candidates} == expected
    assert (found.n_annotated, found.n_found, len(found.candidates)) == (30, 30, 50)


def test_missed_lesions_come_first(audited, found):
    whole = {}
    for candidate in found.candidates[:30]:
        if candidate.case not in whole:
            path = audited.whole / "labelsTr" / f"{candidate.case}.nii.gz"
            whole[candidate.case] = np.asarray(read_image(path).array).reshape(-1)
        assert whole[candidate.case][candidate.voxels].all()
    scores = [candidate.score for candidate in found.candidates]
    assert scores == sorted(scores, reverse=True)
    assert all(0 <= score <= 1 for score in scores)
    assert found.miss_rates[0].rate == pytest.approx(0.5, abs=0.1)


def test_numbers_count_from_one_in_every_case_by_rank(found):
    for case in {candidate.case for candidate in found.candidates}:
        assert [c.number for c in found.candidates if c.case == case] == [1, 2, 3, 4, 5]


def test_where_a_candidate_lies(found):
    candidate = found.candidates[0]
    z, y, x = candidate.centroid
    assert candidate.position_mm == pytest.approx((-20 + x, -30 + y, 40 + 3 * z))
    assert candidate.diameter_mm == pytest.approx(np.cbrt(6 * len(candidate.voxels) * 3 / np.pi))
    oblique = Geometry((2.0, 1.0, 1.0), (5.0, 0.0, 0.0), (0, 1, 0, 1, 0, 0, 0, 0, 1))
    assert position_mm(oblique, np.array([1, 2, 3])) == (5 + 2, 3, 2)


def test_a_case_without_one_of_its_images_is_named(audited):
    (audited.raw / "imagesTr" / "p03_0001.nii.gz").unlink()
    with pytest.raises(
        InputError,
        match=r"^Dataset511_Cut, case p03: expected 2 channel images, found _0000: _0001 \(FLAIR\) is missing",
    ):
        audit(find_inputs(511, [MODEL]), n_replicates=0)


def test_without_enough_to_learn_from_mean_probability_ranks(audited):
    for path in (audited.raw / "labelsTr").iterdir():
        if path.name > "p03":
            label = read_image(path)
            write_image(path, Image(np.zeros_like(label.array), label.geometry))
            shutil.copy(path, audited.preprocessed / "gt_segmentations")
    found = audit(find_inputs(511, [MODEL]), n_replicates=0)
    assert found.rank_by == "mean-probability"
    assert found.no_model == "there are 9 annotated lesions that are found and 71 candidates; a model needs 20 of each"
    assert [c.score for c in found.candidates] == sorted((c.mean_probability for c in found.candidates), reverse=True)
    assert found.miss_rates[0].rate is None


def test_mean_probability_on_request(audited):
    found = audit(find_inputs(511, [MODEL]), rank_by="mean-probability", n_replicates=0)
    assert [c.score for c in found.candidates] == sorted((c.mean_probability for c in found.candidates), reverse=True)
    assert found.likeness is not None


@pytest.mark.parametrize("name", ["max", "sum", "sqrt"])
def test_every_confidence_ranks_on_request(audited, found, name):
    ranked = audit(find_inputs(511, [MODEL]), rank_by=name, n_replicates=0)
    assert ranked.rank_by == name
    values = {"max": "max_probability", "sum": "total", "sqrt": "root"}[name]
    scores = [c.score for c in ranked.candidates]
    assert scores == sorted((getattr(c, values) for c in found.candidates), reverse=True)
    assert scores == [getattr(c, values) for c in ranked.candidates]
    for c in found.candidates:
        n = (c.total / c.mean_probability) if c.mean_probability else 0
        assert n == pytest.approx(round(n), abs=1e-3)
        assert n >= len(c.voxels) - 1e-3 or c.fainter
        assert c.root == pytest.approx(c.mean_probability * np.sqrt(n), abs=1e-5)


def test_the_learned_confidence_of_the_other_folds_ranks(audited, tmp_path):
    model = ConfidenceModel(
        path=tmp_path,
        threshold=0.03,
        all_folds={"all foreground": Coefficients(0.0, (0.0, 1.0, 0.0, 0.0, 0.0))},
        without_fold={"all foreground": {0: Coefficients(0.0, (1.0, 0.0, 0.0, 0.0, 0.0))}},
        fold_of_case={"p00": 0},
    )
    ranked = audit(find_inputs(511, [MODEL]), rank_by="learned", confidence_model=model, n_replicates=0)
    for c in ranked.candidates:
        # By the volume in the case that the model has seen, by the mean probability in the others.
        odds = c.total / c.mean_probability * 3 if c.case == "p00" else c.mean_probability
        assert c.score == pytest.approx(odds / (1 + odds), abs=1e-4)


def test_fainter_candidates_change_nothing_else(audited, found, tmp_path):
    for path in sorted(audited.results.glob("fold_*/validation/*.npz")):
        probability = np.load(path)["probabilities"][1]
        assert probability[0, 0, :3].tolist() == [0, 0, 0]
        probability[0, 0, :2] = 0.02
        np.savez_compressed(path, probabilities=np.stack([1 - probability, probability]))
    more = audit(find_inputs(511, [MODEL]), n_replicates=20)
    assert (len(more.candidates), more.n_fainter, found.n_fainter) == (60, 10, 0)
    assert {(c.total, c.root) for c in more.candidates if c.fainter} == {(0.0, 0.0)}
    assert more.likeness.coefficients == found.likeness.coefficients
    assert more.likeness.reliability == found.likeness.reliability
    assert (more.miss_rates, more.fraction, more.n_found) == (found.miss_rates, found.fraction, found.n_found)
    sure = [candidate for candidate in more.candidates if not candidate.fainter]
    assert [(c.case, c.score) for c in sure] == [(c.case, c.score) for c in found.candidates]
    assert not any(candidate.fainter for candidate in more.candidates[:30])
    reasons = [candidate.reason for candidate in more.candidates if candidate.fainter]
    assert all(reason.startswith("probability up to 0.02, over ") for reason in reasons)
    write_audit(more, tmp_path / "out")
    assert json.loads((tmp_path / "out" / "audit.json").read_text())["counts"]["fainter_candidates"] == 10
    page = (tmp_path / "out" / "audit.html").read_text(encoding="utf-8")
    assert "60 candidates that no annotation explains, 10 of them below 0.1;" in page
    assert "Neither the model nor the miss rate is fitted to candidates of which no voxel reaches 0.1." in page


def test_arrays_in_the_frame_of_a_reader_that_turns_images(audited, found):
    """nnU-Net's NibabelIOWithReorient saves them in RAS, and the files are in LPS: x and y are the other way round."""
    for path in sorted(audited.results.glob("fold_*/validation/*.npz")):
        np.savez_compressed(path, probabilities=np.load(path)["probabilities"][..., ::-1, ::-1])
    path = audited.raw / "dataset.json"
    content = json.loads(path.read_text()) | {"overwrite_image_reader_writer": "NibabelIOWithReorient"}
    path.write_text(json.dumps(content))
    turned = audit(find_inputs(511, [MODEL]), n_replicates=0)
    assert (turned.n_annotated, turned.n_found) == (30, 30)
    assert [(c.case, c.voxels.tolist(), c.score) for c in turned.candidates] == [
        (c.case, c.voxels.tolist(), c.score) for c in found.candidates
    ]


def test_two_models_are_averaged_and_their_agreement_counts(audited):
    other = Model("nnUNetTrainer25D", "nnUNetPlans", "2.5d")
    shutil.copytree(audited.results, other.folder("Dataset511_Cut"))
    for path in other.folder("Dataset511_Cut").glob("fold_*/validation/*.npz"):
        probability = np.load(path)["probabilities"][1]
        probability[probability < 0.5] = 0  # this model makes no false positives
        np.savez_compressed(path, probabilities=np.stack([1 - probability, probability]))
    found = audit(find_inputs(511, [MODEL, other]), n_replicates=0)
    agreement = np.array([candidate.agreement for candidate in found.candidates])
    assert set(agreement[:30]) == {1.0}
    assert set(agreement[30:]) == {0.5}
    assert "found by 1 of 2 predictions" in found.candidates[-1].reason
    assert [name for name, _ in found.likeness.coefficients[:3]] == [
        "mean probability",
        "highest probability",
        "agreement",
    ]


def test_a_second_miss_rate_counts_what_only_magnified_images_show(audited, monkeypatch, tmp_path):
    """Half of the lesions are missed, to which the network gives a tenth of their probability at their own size."""
    for fold in (0, 1):
        shutil.copytree(audited.validation(fold), audited.results / f"fold_{fold}" / "larger")
    for path in sorted(audited.results.glob("fold_*/validation/*.npz")):
        probability = np.load(path)["probabilities"][1]
        annotated = read_image(audited.raw / "labelsTr" / f"{path.stem}.nii.gz").array != 0
        probability[~annotated & (probability > 0.5)] *= 0.1
        np.savez_compressed(path, probabilities=np.stack([1 - probability, probability]))
    audited.write_checkpoints()
    monkeypatch.setattr(
        "nnunet_lopsided.audit.inputs.predict_magnified",
        lambda folder, _, factors, cases, *__, **___: {
            case.name: [folder / "larger" / f"{case.name}.npz" for _ in factors] for case in cases
        },
    )
    alone = audit(find_inputs(511, [MODEL], magnify=[]), n_replicates=0)
    assert alone.miss_rates[0].rate < 0.1
    assert alone.miss_rate_in_any is None
    found = audit(find_inputs(511, [MODEL], magnify=[2], device="cpu"), n_replicates=20)
    assert found.miss_rates[0].rate < 0.25
    assert found.miss_rate_in_any.rate == pytest.approx(0.5, abs=0.06)
    write_audit(found, tmp_path / "out")
    record = json.loads((tmp_path / "out" / "audit.json").read_text())
    assert record["miss_rate_in_any_prediction"]["miss_rate"] == found.miss_rate_in_any.rate
    page = (tmp_path / "out" / "audit.html").read_text(encoding="utf-8")
    assert f"<p><b>{found.miss_rate_in_any.rate:.3f}</b> (95% interval " in page
    assert "images as they are and magnified 2 times" in page


def test_classes_regions_and_the_ignore_label(audited):
    """Lesions of the second class become that class; nothing is found where the annotation is to be ignored."""
    for folder in (audited.raw, audited.preprocessed):
        content = json.loads((folder / "dataset.json").read_text())
        content["labels"] = {"background": 0, "rim": 1, "core": 2, "ignore": 3}
        (folder / "dataset.json").write_text(json.dumps(content))
    for fold in (0, 1):
        for path in audited.validation(fold).glob("*.npz"):
            lesion = np.load(path)["probabilities"][1]
            odd = np.indices(lesion.shape)[0] > 2
            channels = np.stack([1 - lesion, np.where(odd, 0.1, 0.9) * lesion, np.where(odd, 0.9, 0.1) * lesion])
            np.savez_compressed(path, probabilities=channels)
    path = audited.raw / "labelsTr" / "p00.nii.gz"
    label = np.asarray(read_image(path).array).copy()
    label[label == 0] = 3
    write_image(path, Image(label, GEOMETRY))
    shutil.copy(path, audited.preprocessed / "gt_segmentations")
    found = audit(find_inputs(511, [MODEL]), n_replicates=0)
    assert "p00" not in {candidate.case for candidate in found.candidates}
    assert {(c.label, c.centroid[0] > 2) for c in found.candidates} == {(1, False), (2, True)}
    one = audit(find_inputs(511, [MODEL]), label="core", n_replicates=0)
    assert {c.label for c in one.candidates} == {2}
    # Another model, not quite as sure of the contrary: the class is that of the mean of both.
    other = Model("nnUNetTrainer25D", "nnUNetPlans", "2.5d")
    shutil.copytree(audited.results, other.folder("Dataset511_Cut"))
    for path in other.folder("Dataset511_Cut").glob("fold_*/validation/*.npz"):
        background, rim, core = np.load(path)["probabilities"]
        lesion = rim + core
        channels = np.stack([background, 0.8 * core + 0.1 * lesion, lesion - 0.8 * core - 0.1 * lesion])
        np.savez_compressed(path, probabilities=channels)
    both = audit(find_inputs(511, [other, MODEL]), n_replicates=0)
    assert {(c.label, c.centroid[0] > 2) for c in both.candidates} == {(1, False), (2, True)}


def test_the_same_audit_gives_the_same_bytes(audited, found, tmp_path):
    names = [write_audit(found, tmp_path / "one"), write_audit(found, tmp_path / "two", n_workers=1)]
    assert names[0] == names[1]
    files = sorted(path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*") if path.is_file())
    assert len(files) == 4 + 10
    for file in files:
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_the_maps_hold_every_candidate_by_its_number(audited, found, tmp_path):
    write_audit(found, tmp_path / "out")
    for candidate in found.candidates:
        image = read_image(tmp_path / "out" / "maps" / f"{candidate.case}.nii.gz")
        assert np.flatnonzero(np.asarray(image.array) == candidate.number).tolist() == candidate.voxels.tolist()
        assert image.geometry.difference(GEOMETRY) is None


def test_an_audit_can_be_read_again(audited, found, tmp_path):
    name = write_audit(found, tmp_path / "out")
    stored = read_audit(tmp_path / "out")
    assert (stored.id, stored.dataset) == (name, "Dataset511_Cut")
    assert [(c.case, c.number) for c in stored.candidates] == [(c.case, c.number) for c in found.candidates]
    table = tmp_path / "out" / "audit.csv"
    table.write_text(table.read_text().replace(name, "0" * 16, 1))
    with pytest.raises(InputError, match=f"line 2: expected a candidate of audit {name}, found 0000000000000000"):
        read_audit(tmp_path / "out")


def test_other_settings_or_labels_are_another_audit(audited, found, tmp_path):
    name = write_audit(found, tmp_path / "out")
    again = audit(find_inputs(511, [MODEL]), n_replicates=20, seed=1)
    assert write_audit(again, tmp_path / "seed") != name


def test_what_cannot_be_read_is_named(audited):
    probabilities = np.zeros((2, 6, 36, 35), np.float32)
    np.savez_compressed(audited.validation(1) / "p01.npz", probabilities=probabilities)
    with pytest.raises(InputError, match="case p01"):
        audit(find_inputs(511, [MODEL]), n_replicates=0)


def test_an_image_of_another_shape_is_named(audited):
    path = audited.raw / "imagesTr" / "p01_0001.nii.gz"
    write_image(path, Image(np.zeros((6, 36, 35), np.float32), GEOMETRY))
    with pytest.raises(InputError, match="case p01"):
        audit(find_inputs(511, [MODEL]), n_replicates=0)


def test_models_that_predict_nothing_beside_the_annotations(audited, tmp_path):
    for fold in (0, 1):
        for path in audited.validation(fold).glob("*.npz"):
            probability = np.zeros((6, 36, 36), np.float32)
            np.savez_compressed(path, probabilities=np.stack([1 - probability, probability]))
            path.with_name(path.name.replace(".npz", ".nii.gz")).unlink()
    found = audit(find_inputs(511, [MODEL]), n_replicates=20)
    assert (found.candidates, found.n_annotated, found.n_found) == ((), 30, 0)
    write_audit(found, tmp_path / "out")
    assert read_audit(tmp_path / "out").candidates == ()
    assert "No candidates to show." in (tmp_path / "out" / "audit.html").read_text(encoding="utf-8")
