"""nnunet_lopsided.evaluation.comparison and comparison_outputs."""

import csv
import json
import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from nnunet_lopsided.errors import InputError
from nnunet_lopsided.evaluation.case import evaluate_case
from nnunet_lopsided.evaluation.comparison import FoundBy, compare
from nnunet_lopsided.evaluation.comparison_writing import comparison_dict, write_comparison
from nnunet_lopsided.evaluation.folder import evaluate_folder
from nnunet_lopsided.evaluation.intervals import LEAST_PATIENTS, expanded_percentiles, patient_weights
from nnunet_lopsided.evaluation.saved import read_evaluation
from nnunet_lopsided.evaluation.writing import write_results
from nnunet_lopsided.images import Image, write_image
from tests.evaluation.conftest import plain


def rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def read(folders, names=None):
    return [read_evaluation(f, n) for f, n in zip(folders, names or [None] * len(folders), strict=True)]


def edit(path, old, new, count=1):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, count))


class BruteForce:
    """The metrics of one evaluation from its CSV files alone: every patient's rows as often as it was drawn."""

    def __init__(self, folder):
        self.cases, self.lesions, self.candidates = (
            rows(folder / f"{n}.csv") for n in ("cases", "lesions", "candidates")
        )
        self.patients = list(dict.fromkeys(row["patient"] for row in self.cases))

    def drawn(self, table, times):
        patient_of = {row["case"]: row["patient"] for row in self.cases}
        for row in table:
            yield from [row] * times[patient_of[row["case"]]]

    def metrics(self, weights):
        times = dict(zip(self.patients, weights, strict=True))
        cases, lesions, candidates = (list(self.drawn(t, times)) for t in (self.cases, self.lesions, self.candidates))
        true = [c for c in candidates if c["status"] == "true_positive"]
        false = [c for c in candidates if c["status"] == "false_positive"]
        found = [row for row in lesions if row["detected"] == "1"]
        nan = float("nan")
        values = {
            "max_sensitivity": len(found) / len(lesions) if lesions else nan,
            "precision_at_max_sensitivity": len(true) / (len(true) + len(false)) if true or false else nan,
            "false_positives_per_case": len(false) / len(cases),
            "tp_dice": sum(float(row["dice"]) for row in found) / len(found) if found else nan,
            "false_positive_volume_mm3_per_case": sum(float(c["volume_mm3"]) for c in false) / len(cases),
        }
        area = average_recall = 0.0
        for threshold in sorted({float(row["confidence"]) for row in found}, reverse=True):
            rise = sum(float(row["confidence"]) == threshold for row in found)
            n_true = sum(float(c["confidence"]) >= threshold for c in true)
            n_false = sum(float(c["confidence"]) >= threshold for c in false)
            area += rise * n_true / (n_true + n_false)
            average_recall += rise * max(0, 5 - n_false / len(cases)) / 5
        values["map"] = area / len(lesions) if lesions else nan
        values["average_recall"] = average_recall / len(lesions) if lesions else nan
        return values


def test_paired_bootstrap_against_brute_force(two_models):
    (pair,) = compare(read(two_models), n_replicates=300, seed=3).pairs
    a, b = (BruteForce(folder) for folder in two_models)
    weights = patient_weights(len(a.patients), 300, 3)
    replicates = [(a.metrics(w), b.metrics(w)) for w in weights]
    for name in replicates[0][0]:
        differences = np.array([second[name] - first[name] for first, second in replicates])
        # Nine of ten patients have lesions; all have candidates and cases.
        n = 9 if name in ("max_sensitivity", "tp_dice", "map", "average_recall") else 10
        low, high = np.percentile(differences[~np.isnan(differences)], expanded_percentiles(n))
        found = pair.differences[name]
        plain = [model.metrics([1] * 10)[name] for model in (a, b)]
        assert (found.first, found.second) == pytest.approx(tuple(plain), abs=1e-8), name
        assert found.difference == pytest.approx(plain[1] - plain[0], abs=1e-8), name
        assert (found.interval.low, found.interval.high) == pytest.approx((low, high), abs=1e-8), name


def test_an_evaluation_compared_with_itself_differs_by_exactly_0(two_models):
    (pair,) = compare(read([two_models[0]] * 2, ["one", "two"]), n_replicates=200).pairs
    for name, d in pair.differences.items():
        if d.difference is None:
            assert d.interval.undefined == "undefined for both", name
            continue
        assert d.difference == 0, name
        if name in ("lesion_entropy_bits", "smallest_detected_diameter_mm"):
            assert d.interval.undefined == "there is no bootstrap of this metric"
        elif "lesion_free" in name or name in ("patient_auc", "patient_specificity"):
            assert "and there is 1" in d.interval.undefined, name
        else:
            assert (d.interval.low, d.interval.high) == (0, 0), name
    assert (pair.lesions.only_first, pair.lesions.only_second, pair.lesions.mcnemar_p) == (0, 0, None)


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_both_models_must_have_enough_patients_in_a_denominator(two_models, order):
    """One model has candidates in every patient and the other in three: its precision has no interval, nor has the
    difference, whichever comes first."""
    a, b = read(two_models)
    few = sorted({case.patient for case in b.cases})[:3]
    sparse = replace(b, cases=tuple(case if case.patient in few else without_candidates(case) for case in b.cases))
    (pair,) = compare([(a, sparse)[i] for i in order], n_replicates=100).pairs
    why = pair.differences["precision_at_max_sensitivity"].interval.undefined
    assert why.startswith("a bootstrap needs at least 8 patients that contribute to the denominator, and there are 3; ")
    assert pair.differences["false_positives_per_case"].interval.undefined is None


def without_candidates(case):
    empty = evaluate_case(np.zeros((30, 30), bool), None, (1, 1))
    matches = replace(
        case.matches,
        **{name: getattr(empty.matches, name) for name in ("status", "lesion_of_candidate", "distance_mm")},
        overlap_voxels=empty.matches.overlap_voxels,
        lesions_touched=empty.matches.lesions_touched,
        candidate_of_lesion=np.zeros(len(case.lesions), np.int64),
        dice=np.full(len(case.lesions), np.nan),
        pairs=replace(empty.matches.pairs, n_lesions=len(case.lesions)),
    )
    return replace(case, candidates=empty.candidates, confidence=empty.confidence, scores=empty.scores, matches=matches)


def test_lesion_by_lesion(two_models):
    comparison = compare(read(two_models), n_replicates=0)
    (pair,) = comparison.pairs
    tables = [{(r["case"], r["lesion"]): r for r in rows(folder / "lesions.csv")} for folder in two_models]
    counts: dict[tuple[object, ...], int] = {}
    for place, row in tables[0].items():
        diameter = float(row["diameter_mm"])
        hits = row["detected"], tables[1][place]["detected"]
        for key in (("all", *hits), (sum(diameter >= e for e in (3, 6, 10, 20)), *hits)):
            counts[key] = counts.get(key, 0) + 1

    def expected(group):
        return FoundBy(*(counts.get((group, *hits), 0) for hits in ("11", "10", "01", "00")))

    assert pair.lesions == expected("all")
    assert pair.lesions.only_first > 0
    assert [b.found_by for b in pair.by_diameter] == [expected(i) for i in range(5)]
    assert pair.by_diameter[-1].upper_mm is None
    assert comparison.detected.sum(axis=0).tolist() == [
        sum(r["detected"] == "1" for r in table.values()) for table in tables
    ]


@pytest.mark.parametrize(
    ("first", "second", "p"), [(0, 5, 0.0625), (1, 1, 1.0), (2, 8, 0.109375), (0, 1, 1.0), (0, 0, None)]
)
def test_mcnemar_by_hand(first, second, p):
    """Two-sided binomial: 2 (1/2)^5; 2 (1 + 10 + 45) / 1024."""
    assert FoundBy(3, first, second, 4).mcnemar_p == (None if p is None else pytest.approx(p))


def test_three_models_are_compared_two_by_two(two_models):
    models = read([*two_models, two_models[0]], ["a", "b", "c"])
    comparison = compare(models, n_replicates=100)
    assert [(p.first, p.second) for p in comparison.pairs] == [(0, 1), (0, 2), (1, 2)]
    forth, back = (comparison.pairs[i].differences["map"] for i in (0, 2))
    assert back.difference == -forth.difference
    assert (back.interval.low, back.interval.high) == pytest.approx((-forth.interval.high, -forth.interval.low))


def test_without_bootstrap_the_reason_is_said(two_models):
    (pair,) = compare(read(two_models), n_replicates=0).pairs
    assert pair.differences["map"].interval.undefined == "the bootstrap was switched off"
    assert pair.differences["map"].difference is not None


def test_one_patient_has_no_bootstrap(two_cases, tmp_path):
    result = evaluate_folder(two_cases.references, two_cases.predictions, patients_regex="^()")
    write_results(result, tmp_path / "out")
    (pair,) = compare(read([tmp_path / "out"] * 2, ["a", "b"])).pairs
    assert pair.differences["map"].interval.undefined.startswith(
        "a bootstrap needs at least 8 patients, and there is 1; "
    )


def test_files(two_models, tmp_path):
    comparison = compare(read(two_models), n_replicates=100, seed=1)
    for name in ("one", "two"):
        write_comparison(comparison, tmp_path / name)
    files = sorted(p.name for p in (tmp_path / "one").iterdir())
    assert files == [".lopsided.json", "compare.html", "comparison.json", "lesions.csv"]
    for name in files:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    written = json.loads((tmp_path / "one" / "comparison.json").read_text())
    assert written == comparison_dict(comparison)
    assert written["counts"]["patients"] == 10
    assert (written["settings"]["seed"], written["settings"]["bootstrap_replicates"]) == (1, 100)
    assert written["settings"]["threshold"] == 0.1
    assert written["settings"]["bootstrap_unit"] == "patient"
    (pair,) = written["pairs"]
    assert (pair["first"], pair["second"]) == ("out_a", "out_b")
    assert pair["differences"]["map"]["ci95_bootstrap"][0] < pair["differences"]["map"]["difference"]
    lesions, (of_a, of_b) = rows(tmp_path / "one" / "lesions.csv"), (rows(f / "lesions.csv") for f in two_models)
    assert len(lesions) == len(of_a)
    for row, first, second in zip(lesions, of_a, of_b, strict=True):
        for column in ("case", "lesion", "n_voxels", "diameter_mm", "centroid_x"):
            assert row[column] == first[column]
        for column in ("detected", "confidence", "dice"):
            assert (row[f"out_a:{column}"], row[f"out_b:{column}"]) == (first[column], second[column])
        found = [n for n, r in (("out_a", first), ("out_b", second)) if r["detected"] == "1"]
        assert row["found_by"] == "; ".join(found)
        assert row["patient"] == row["case"][:2]


def test_only_a_comparison_is_replaced(two_models, tmp_path):
    comparison = compare(read(two_models), n_replicates=0)
    write_comparison(comparison, tmp_path / "out")
    with pytest.raises(InputError, match="output folder exists"):
        write_comparison(comparison, tmp_path / "out")
    write_comparison(comparison, tmp_path / "out", overwrite=True)
    with pytest.raises(InputError, match="contains the input"):
        write_comparison(comparison, two_models[0], overwrite=True)
    (tmp_path / "out" / "comparison.json").unlink()
    with pytest.raises(InputError, match=r"holds no comparison\.json"):
        write_comparison(comparison, tmp_path / "out", overwrite=True)


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("summary.json", '"tolerance_mm": 1.0', '"tolerance_mm": 2.0', "tolerance_mm is 1.0 versus 2.0"),
        ("summary.json", '"label": "all foreground"', '"label": "x"', "label is 'all foreground' versus 'x'"),
        ("cases.csv", "p0_0,p0", "p0_0,p1", "case p0_0 is of patient p0 versus p1"),
        ("cases.csv", "p9_0,p9", "q9_0,p9", "out_b lacks p9_0"),
    ],
)
def test_what_was_not_measured_alike(two_models, file, old, new, message):
    edit(two_models[1] / file, old, new)
    if new == "q9_0,p9":
        edit(two_models[1] / "candidates.csv", "p9_0", "q9_0", -1)
    with pytest.raises(InputError, match=re.escape(message)):
        compare(read(two_models), n_replicates=0)


def test_cases_that_the_first_lacks(two_models):
    for file in ("cases.csv", "candidates.csv"):
        edit(two_models[0] / file, "p9_0,", "z_0,", -1)
    with pytest.raises(InputError, match=r"out_b cannot be compared: .*out_b lacks z_0"):
        compare(read(two_models), n_replicates=0)


def test_other_reference_lesions(two_models):
    models = read(two_models)
    for old in (b.centroid for b in (models[1].cases[0].lesions,)):
        old[0] += 0.5
    with pytest.raises(InputError, match=r"case p0_0 has other reference lesions \((\d) versus \1 of them\)"):
        compare(models)


def test_too_few_models_and_equal_names(two_models):
    models = read(two_models, ["a", "a"])
    with pytest.raises(InputError, match="at least two evaluations, got 1"):
        compare(models[:1])
    with pytest.raises(InputError, match="names must be unique, got a, a; give others by --names"):
        compare(models)
    with pytest.raises(InputError, match="--seed must be at least 0, got -1"):
        compare(read(two_models), 100, -1)
    with pytest.raises(InputError, match=r"--bootstrap must be 0 .* or at least 100, got 5"):
        compare(read(two_models), 5)


def test_kept_and_censored_lesions_apart(two_models, tmp_path):
    a, b = read(two_models)
    assert all(pair.by_annotation == () for pair in compare([a, b], 0).pairs)
    # Every second lesion of a case is censored.
    marked = [
        replace(m, cases=tuple(replace(c, censored=np.arange(len(c.lesions)) % 2 == 1) for c in m.cases))
        for m in (a, b)
    ]
    comparison = compare(marked, 200, seed=3)
    kept, censored = comparison.pairs[0].by_annotation
    hits: dict[str, list[tuple[bool, bool]]] = {"kept": [], "censored": []}
    for of_a, of_b in zip(a.cases, b.cases, strict=True):
        for k, hit in enumerate(zip(of_a.detected.tolist(), of_b.detected.tolist(), strict=True)):
            hits["censored" if k % 2 else "kept"].append(hit)
    for group in (kept, censored):
        found = hits[group.name]
        of_both = ((True, True), (True, False), (False, True), (False, False))
        assert group.found_by == FoundBy(*(found.count(which) for which in of_both))
        shares = [sum(hit[i] for hit in found) / len(found) for i in range(2)]
        assert (group.sensitivity.first, group.sensitivity.second) == pytest.approx(shares)
        assert group.sensitivity.interval.low <= group.sensitivity.difference <= group.sensitivity.interval.high
    written: Any = comparison_dict(comparison)["pairs"]
    content = written[0]["by_annotation"]
    assert [row["name"] for row in content] == ["kept", "censored"]
    write_comparison(comparison, tmp_path / "compared")
    assert "Sensitivity on censored lesions" in (tmp_path / "compared" / "compare.html").read_text()
    assert all(pair.by_annotation == () for pair in compare([marked[0], b], 0).pairs)


@pytest.mark.parametrize("swapped", [False, True])
def test_patients_that_contribute_to_one_model_alone_are_too_few(swapped, tmp_path):
    """One model detects a lesion in every patient, the other in one: of a Dice of detected lesions that one tells."""
    (tmp_path / "references").mkdir()
    for model in "ab":
        (tmp_path / model).mkdir()
    for i in range(LEAST_PATIENTS + 1):
        reference = np.zeros((8, 8), np.uint8)
        reference[2:4, 2:5] = 1
        write_image(tmp_path / "references" / f"p{i}.png", Image(reference, plain(2)))
        np.save(tmp_path / "a" / f"p{i}.npy", 0.9 * reference.astype(np.float32))
        np.save(tmp_path / "b" / f"p{i}.npy", (0.9 * reference * (i == 0)).astype(np.float32))
    for model in "ab":
        result = evaluate_folder(tmp_path / "references", tmp_path / model, n_replicates=0)
        write_results(result, tmp_path / f"out_{model}")
    folders = [tmp_path / f"out_{model}" for model in ("ba" if swapped else "ab")]
    (pair,) = compare(read(folders), n_replicates=200).pairs
    assert pair.differences["max_sensitivity"].interval.undefined is None
    assert "contribute to the denominator, and there is 1" in pair.differences["tp_dice"].interval.undefined
