"""Label maps that number their lesions: nnunet_lopsided.lesions.find_instances, and evaluations of them."""

import csv
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from nnunet_lopsided.commands.evaluate import main
from nnunet_lopsided.errors import InputError
from nnunet_lopsided.evaluation import EvaluationRules, evaluate_case, evaluate_folder
from nnunet_lopsided.evaluation.comparison import compare
from nnunet_lopsided.evaluation.report.gallery import gallery
from nnunet_lopsided.evaluation.rules import InstanceMaps, profile_rules
from nnunet_lopsided.evaluation.saved import read_evaluation
from nnunet_lopsided.evaluation.writing import write_results
from nnunet_lopsided.images import Image, read_image, write_image
from nnunet_lopsided.lesions import find_instances, find_lesions, pieces_of

BOTH = EvaluationRules(instances="both")
MAPS = arrays(np.int16, (3, 5, 6), elements=st.sampled_from([0, 0, 0, 1, 2, 9]))


def touching():
    """Two lesions of 8 and 12 voxels that share a face; numbers 300 and 7."""
    numbers = np.zeros((4, 8, 10), np.int32)
    numbers[1:3, 2:4, 2:4] = 300
    numbers[1:3, 2:4, 4:7] = 7
    return numbers


def test_two_that_touch_are_two():
    lesions = find_instances(touching(), (1, 1, 1))
    assert lesions.n_voxels.tolist() == [8, 12]
    assert find_lesions(touching(), (1, 1, 1)).n_voxels.tolist() == [20]
    assert lesions.boxes[1].tolist() == [[1, 3], [2, 4], [4, 7]]


@pytest.mark.parametrize("value", [-1, 1.5, np.inf, np.nan])
def test_what_is_no_number_of_a_lesion(value):
    with pytest.raises(ValueError, match="positive whole numbers"):
        find_instances(np.array([[0, value]]), (1, 1))


@given(MAPS)
@settings(max_examples=50, deadline=None)
def test_every_value_is_one_lesion(numbers):
    lesions = find_instances(numbers, (2, 1, 0.5))
    flat, values = numbers.ravel(), [v for v in np.unique(numbers) if v]
    by_first = sorted(values, key=lambda v: np.flatnonzero(flat == v)[0])
    assert lesions.n_voxels.tolist() == [int((flat == v).sum()) for v in by_first]
    for k, value in enumerate(by_first):
        np.testing.assert_array_equal(lesions.instances() == k + 1, numbers == value)
        np.testing.assert_allclose(lesions.centroids[k], np.argwhere(numbers == value).mean(axis=0))
    expected = [ndimage.label(numbers == v, np.ones((3, 3, 3)))[1] for v in by_first]
    assert pieces_of(lesions).tolist() == expected


def same(a, b):
    """Whether two results are the same but for what instance maps add."""
    for x, y in ((a.lesions, b.lesions), (a.candidates, b.candidates)):
        np.testing.assert_array_equal(x.n_voxels, y.n_voxels)
        np.testing.assert_array_equal(x.centroid, y.centroid)
        np.testing.assert_array_equal(x.boxes, y.boxes)
    for name in ("status", "lesion_of_candidate", "candidate_of_lesion", "dice", "covered_share", "lesions_touched"):
        np.testing.assert_array_equal(getattr(a.matches, name), getattr(b.matches, name))
    np.testing.assert_array_equal(a.confidence, b.confidence)
    np.testing.assert_array_equal(a.covered_by, b.covered_by)
    assert a.segmentation_overlap == b.segmentation_overlap
    assert a.n_dropped == b.n_dropped


@given(
    arrays(bool, (3, 6, 7)),
    arrays(bool, (3, 6, 7)),
    st.sampled_from([{}, {"match": "overlap", "dice": "union"}, {"match": "overlap", "one_to_one": True}]),
    st.integers(1, 3),
    st.randoms(use_true_random=False),
)
@settings(max_examples=50, deadline=None)
def test_components_as_instances_give_what_components_give(reference, predicted, changes, least, random):
    """Whatever the numbers of the components are."""
    changes = {**changes, "min_candidate_voxels": least, "confidence": "sum"}

    def numbered(mask):
        lesions = find_lesions(mask, (1, 1, 1))
        return np.array([0, *random.sample(range(1, 1000), len(lesions))])[lesions.instances()]

    lesions, candidates = numbered(reference), numbered(predicted)
    plain = evaluate_case(reference, predicted, (1, 1, 1), EvaluationRules(**changes))
    same(plain, evaluate_case(lesions, candidates, (1, 1, 1), EvaluationRules(**changes, instances="both")))
    same(plain, evaluate_case(lesions, predicted, (1, 1, 1), EvaluationRules(**changes, instances="reference")))
    same(plain, evaluate_case(reference, candidates, (1, 1, 1), EvaluationRules(**changes, instances="prediction")))


def panoptic(reference, predicted):
    """True and false positives, misses and sum of Dice by an IoU above 0.5, which pairs at most one with one."""
    true, dice = 0, 0.0
    for r in np.unique(reference[reference > 0]):
        for p in np.unique(predicted[predicted > 0]):
            a, b = reference == r, predicted == p
            if (a & b).sum() > 0.5 * (a | b).sum():
                true += 1
                dice += 2 * (a & b).sum() / (a.sum() + b.sum())
    n = [len(np.unique(m[m > 0])) for m in (reference, predicted)]
    return true, n[1] - true, n[0] - true, dice


@given(MAPS, st.lists(st.integers(0, 89), max_size=20), st.permutations([4, 5, 6]))
@settings(max_examples=60, deadline=None)
def test_counts_of_a_panoptic_evaluation(reference, changed, numbers):
    """The prediction is the reference with other numbers, some voxels being another instance's or background."""
    predicted = np.select([reference == v for v in (1, 2, 9)], numbers, 0).astype(np.int16)
    predicted.ravel()[changed] = np.resize([0, 4, 5, 6], len(changed))
    rules = EvaluationRules(match="overlap", min_iou=0.5 + 1e-9, instances="both")
    case = evaluate_case(reference, predicted, (1, 1, 1), rules)
    statuses = [int((case.matches.status == status).sum()) for status in (1, 0)]
    found = (*statuses, int(case.missed.sum()), np.nansum(case.matches.dice))
    assert found == pytest.approx(panoptic(reference, predicted))


def test_a_candidate_over_two_touching_lesions_and_one_for_each():
    one = evaluate_case(touching(), touching() > 0, (1, 1, 1), EvaluationRules(instances="reference"))
    assert (one.detected.sum(), one.n_merges, one.missed.sum()) == (1, 1, 1)
    assert one.covered_by[one.missed].tolist() == [1]
    each = evaluate_case(touching(), touching(), (1, 1, 1), BOTH)
    assert (each.detected.tolist(), each.n_merges, each.matches.dice.tolist()) == ([True, True], 0, [1.0, 1.0])
    assert each.lesions.instance.tolist() == [300, 7]
    assert each.kind == "labels"


def test_surfaces_of_touching_lesions_are_their_own():
    rules = EvaluationRules(instances="both", surface_distances=True)
    case = evaluate_case(touching(), touching(), (3, 1, 1), rules)
    assert (case.surface.hd95_mm.tolist(), case.surface.nsd.tolist()) == ([0.0, 0.0], [1.0, 1.0])


def test_one_in_two_pieces_is_one_and_its_number_survives_what_is_dropped():
    predicted = touching()
    predicted[3, 7, 9] = 7
    predicted[0, 0, 0] = 5
    case = evaluate_case(touching(), predicted, (1, 1, 1), EvaluationRules(instances="both", min_candidate_voxels=2))
    assert case.candidates.instance.tolist() == [300, 7]
    assert case.candidates.n_pieces.tolist() == [1, 2]
    assert (case.n_dropped, case.lesions.n_in_pieces, case.candidates.n_in_pieces) == (1, 0, 1)


def test_where_no_annotation_is_there_is_no_instance():
    valid = np.ones((4, 8, 10), bool)
    valid[:, :, 4:] = False
    case = evaluate_case(touching(), touching(), (1, 1, 1), BOTH, valid=valid)
    assert case.lesions.instance.tolist() == case.candidates.instance.tolist() == [300]


def test_probabilities_are_no_instance_map():
    rules, probability = EvaluationRules(instances="prediction"), (touching() > 0).astype(np.float32)
    with pytest.raises(InputError, match="instances prediction needs whole numbers as prediction, got float32"):
        evaluate_case(touching(), probability, (1, 1, 1), rules)


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ({"candidates": "dynamic", "instances": "prediction"}, "needs candidates threshold"),
        ({"connectivity": 6, "instances": "both"}, "connectivity 6 has no part"),
        ({"profile": "brats-mets-2023", "instances": "reference"}, "give --no-join-dilated"),
        ({"instances": "references"}, "instances must be one of none, reference, prediction, both"),
    ],
)
def test_rules_that_contradict_themselves(rules, message):
    with pytest.raises(InputError, match=message):
        profile_rules(rules.pop("profile", "paper"), **rules)


def table(path):
    with path.open() as file:
        return list(csv.DictReader(file))


@pytest.fixture
def maps(folders):
    """Case a: two touching lesions, both found, one by a candidate in two pieces; values that nothing declares."""
    predicted = np.where(touching() > 0, 308 - touching(), 0).astype(np.int16)
    predicted[3, 7, 9] = 8
    folders.write_reference("a.nii.gz", touching().astype(np.int16))
    folders.write_image("a.nii.gz", predicted)
    folders.write_dataset_json({"background": 0, "lesion": 1})
    return folders


def run(folders, out, *options):
    return main(["-g", str(folders.references), "-p", str(folders.predictions), "-o", str(out), *options])


def test_folders(maps, tmp_path, capsys):
    assert run(maps, tmp_path / "plain", "--bootstrap", "0") == 2
    assert "unknown label value 7, 300" in capsys.readouterr().err
    options = ("--instances", "both", "--bootstrap", "0", "--write-maps", "--confidence", "sum")
    assert run(maps, tmp_path / "out", *options, "--match", "overlap") == 0
    printed = capsys.readouterr()
    assert printed.err == (
        "lopsided-eval: warning: 1 instances of the predictions lie in several pieces; each counts as one candidate\n"
    )
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["instances"] == {"lesions_in_pieces": 0, "candidates_in_pieces": 1}
    assert summary["settings"]["instances"] == "both"
    assert (summary["counts"]["reference_lesions"], summary["counts"]["true_positives"]) == (2, 2)
    lesions, candidates = (table(tmp_path / "out" / f"{name}.csv") for name in ("lesions", "candidates"))
    assert [(row["instance"], row["pieces"], row["n_voxels"]) for row in lesions] == [
        ("300", "1", "8"),
        ("7", "1", "12"),
    ]
    assert [(row["instance"], row["pieces"]) for row in candidates] == [("8", "2"), ("301", "1")]
    assert (
        "1 instances lie in several pieces; each counts as one candidate."
        in (tmp_path / "out" / "report.html").read_text()
    )
    values, n_voxels = np.unique(read_image(tmp_path / "out" / "maps" / "a.nii.gz").array, return_counts=True)
    assert dict(zip(values.tolist(), n_voxels.tolist(), strict=True)) == {0: 320 - 21, 1: 21}


def test_numbers_saved_as_floating_point(maps):
    maps.write_reference("a.nii.gz", touching().astype(np.float32))
    result = evaluate_folder(maps.references, maps.predictions, rules=BOTH, n_replicates=0)
    assert result.summary.counts.reference_lesions == 2


def test_read_back_and_compared_with_its_like_alone(maps, tmp_path):
    numbered: dict[str, InstanceMaps] = {"a": "both", "b": "both", "c": "reference"}
    for name, instances in numbered.items():
        if instances == "reference":
            maps.write_image("a.nii.gz", (touching() > 0).astype(np.uint8))
        rules = EvaluationRules(instances=instances, confidence="sum")
        result = evaluate_folder(maps.references, maps.predictions, rules=rules, n_replicates=0)
        write_results(result, tmp_path / name)
    a, b, c = (read_evaluation(tmp_path / name) for name in "abc")
    assert compare([a, b], n_replicates=0).pairs[0].differences["tp_dice"].difference == 0
    with pytest.raises(InputError, match="instances is 'both' versus 'reference'"):
        compare([a, c], n_replicates=0)
    plain = c.__class__(**{**vars(c), "name": "plain", "rules": EvaluationRules(confidence="sum")})
    for pair in ([c, plain], [plain, c]):
        with pytest.raises(InputError, match=r"instances is .*'off'"):
            compare(pair, n_replicates=0)


def test_references_alone_beside_probabilities(maps):
    lesion = np.where(touching() == 7, 0.9, 0.0).astype(np.float32)
    maps.write_image("a.nii.gz", (lesion > 0).astype(np.uint8))
    maps.write_npz("a", lesion)
    rules = EvaluationRules(instances="reference")
    result = evaluate_folder(maps.references, maps.predictions, rules=rules, label="lesion", n_replicates=0)
    assert (result.cases[0].kind, result.cases[0].detected.tolist()) == ("probabilities", [False, True])
    assert result.cases[0].candidates.instance is None


def test_predictions_alone(maps):
    maps.write_reference("a.nii.gz", (touching() > 0).astype(np.uint8))
    rules = EvaluationRules(instances="prediction", match="overlap")
    result = evaluate_folder(maps.references, maps.predictions, rules=rules, n_replicates=0)
    assert (result.summary.counts.reference_lesions, result.summary.counts.candidates) == (1, 2)


def test_kept_and_censored_instances(maps, tmp_path):
    (tmp_path / "censored").mkdir()
    image = read_image(maps.references / "a.nii.gz")
    write_image(
        tmp_path / "censored" / "a.nii.gz", Image(np.where(image.array == 7, 7, 0).astype(np.int16), image.geometry)
    )
    result = evaluate_folder(
        maps.references, maps.predictions, rules=BOTH, censored_references=tmp_path / "censored", n_replicates=0
    )
    assert result.cases[0].censored.tolist() == [True, False]


def test_the_page_outlines_every_instance(maps, tmp_path):
    (tmp_path / "images").mkdir()
    geometry = read_image(maps.references / "a.nii.gz").geometry
    write_image(tmp_path / "images" / "a_0000.nii.gz", Image(touching().astype(np.float32), geometry))
    maps.write_image("a.nii.gz", np.zeros((4, 8, 10), np.uint8))
    result = evaluate_folder(maps.references, maps.predictions, rules=BOTH, n_replicates=0)
    picture = gallery(result, tmp_path / "images")[0]
    assert picture.reference.count("M") == 2
    assert picture.candidate == ""


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--instances", "both", "--label", "lesion", "other"), "--instances needs at most one --label"),
        (("--instances", "both", "--label", "lesion"), "label lesion has no part in instances both"),
        (("--instances", "prediction", "--threshold", "0.1", "0.5"), "--instances prediction has no --threshold"),
        (("--instances", "both", "--candidates", "dynamic"), "needs candidates threshold"),
        (("--instances", "reference", "--profile", "brats-mets-2023"), "give --no-join-dilated"),
    ],
)
def test_options_that_contradict_themselves(maps, tmp_path, capsys, options, message):
    assert run(maps, tmp_path / "out", *options) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert message in line
    assert not (tmp_path / "out").exists()


def refused(maps, tmp_path, capsys, instances="both"):
    assert run(maps, tmp_path / "out", "--instances", instances) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "case a" in line
    return line


def test_probabilities_beside_numbered_candidates(maps, tmp_path, capsys):
    maps.write_npz("a", np.zeros((4, 8, 10), np.float32))
    line = refused(maps, tmp_path, capsys)
    assert "found probabilities" in line
    assert "--hard-labels leaves them aside" in line
    assert run(maps, tmp_path / "out", "--instances", "both", "--hard-labels", "--bootstrap", "0") == 0


@pytest.mark.parametrize(("value", "shown"), [(-3.0, "-3"), (1.5, "1.5 (a fraction)")])
def test_values_that_number_nothing(maps, tmp_path, capsys, value, shown):
    maps.write_reference("a.nii.gz", np.where(touching() == 7, value, 0).astype(np.float32))
    assert f"expected an instance map: unknown label value {shown} in 12 voxels" in refused(maps, tmp_path, capsys)


def test_an_ignore_label_would_be_a_lesion(maps, tmp_path, capsys):
    maps.write_dataset_json({"background": 0, "lesion": 1, "ignore": 2})
    assert "declares the ignore label 2" in refused(maps, tmp_path, capsys)
