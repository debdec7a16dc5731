"""nnunet_lopsided.evaluation.report: the page of an evaluation."""

from base64 import b64encode
from dataclasses import fields
from hashlib import sha256

import numpy as np
import pytest

import nnunet_lopsided
from nnunet_lopsided.evaluation import EvaluationRules, Metrics, evaluate_folder
from nnunet_lopsided.evaluation.report import report_html
from nnunet_lopsided.evaluation.report.findings import MAX_ROWS
from nnunet_lopsided.evaluation.report.gallery import gallery
from nnunet_lopsided.evaluation.report.numbers import COUNTS, DETAILS, METRICS
from nnunet_lopsided.evaluation.summary_json import summary_dict
from nnunet_lopsided.pages.html import data_block, page

HOSTILE = ["<img src=x onerror=alert(1)>", "\"'><b>&amp;", "a' onclick='b"]


def html_of(result, pictures=()):
    return report_html(result, summary_dict(result), pictures)


def evaluated(folders, **options):
    return evaluate_folder(folders.references, folders.predictions, n_replicates=100, **options)


def write_images(folders, cases, shape=(8, 10, 12)):
    images = folders.references.parent / "images"
    images.mkdir()
    rng = np.random.default_rng(0)
    for case in cases:
        folders.write_reference(f"../images/{case}_0000.nii.gz", rng.normal(100, 20, shape).astype(np.float32))
    return images


def test_structure_and_values(two_cases, parse_self_contained):
    parsed = parse_self_contained(html_of(evaluated(two_cases)))
    assert parsed.tables["lesions"] == [
        ["case", "lesion", "outcome", "diameter, mm", "confidence", "Dice", "mean probability", "voxel (x, y, z)"],
        ["a", "2", "missed", "1.2", "", "", "0.000", "6, 6, 6"],
        ["a", "1", "detected", "3.7", "0.800", "0.800", "0.533", "2, 2, 2"],
    ]
    assert [row[:5] for row in parsed.tables["candidates"]][1:] == [
        ["a", "2", "false positive", "1.6", "0.500"],
        ["b", "1", "false positive", "1.2", "0.300"],
    ]
    assert parsed.tables["cases"][1:] == [["a", "2", "1", "1", "1", "0"], ["b", "0", "0", "0", "1", "0"]]
    text = "".join(parsed.text)
    assert "Precision and recall   AP 0.500" in text
    assert "centroid within 1 mm of a voxel's box" in text
    assert "1 / 2" in text
    (sizes,) = [table for table in parsed.tables.values() if table[0][0] == "diameter, mm"]
    assert [row[:4] for row in sizes[1:4]] == [
        ["0\u20133", "0 / 1", "0.000", "0.000 to 0.793"],
        ["3\u20136", "1 / 1", "1.000", "0.207 to 1.000"],
        ["6\u201310", "0 / 0", "", ""],
    ]
    (counts,) = [table for table in parsed.tables.values() if table[0] == ["", "number", "of what"]]
    assert ["false positives", "2", COUNTS["false_positives"]] in counts
    assert ["merges", "0", DETAILS["merges"]] in counts


def test_policy_admits_our_script_alone(parse):
    text = page("pages/templates/page.html", "title")
    policy = next(m["content"] for m in parse(text).all("meta") if "http-equiv" in m)
    script = text[text.index("<script>") + 8 : text.rindex("</script>")]
    digest = b64encode(sha256(script.encode()).digest()).decode()
    assert policy == (f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'")


def test_data_cannot_end_its_element():
    block = data_block("name", {"text": "</script><!--&\u2028", "n": [1.5, None]})
    assert block.count("<") == 2
    assert "\\u003c/script\\u003e\\u003c!--\\u0026\\u2028" in block
    with pytest.raises(ValueError, match="Out of range float"):
        data_block("name", float("nan"))


def test_readings_say_what_each_threshold_means(two_cases):
    text = html_of(evaluated(two_cases))
    assert (
        "0.800 or more: sensitivity 0.500 (1 of 2 lesions), precision 1.000, 0.00 false positives per case (0 in all)"
        in text
    )


def test_names_are_text_everywhere(folders, parse_self_contained):
    shape = (4, 9, 9)
    reference, lesion = np.zeros(shape, np.uint8), np.zeros(shape, np.float32)
    reference[1, 1:3, 1:3] = 1
    lesion[2, 6:8, 6:8] = 0.5
    for name in HOSTILE:
        folders.write_reference(f"{name}.nii.gz", reference)
        folders.write_image(f"{name}.nii.gz", (lesion > 0).astype(np.uint8))
        folders.write_npz(name, lesion)
    images = write_images(folders, HOSTILE, shape)
    result = evaluated(folders)
    parsed = parse_self_contained(html_of(result, gallery(result, images)))
    assert {row[0] for row in parsed.tables["cases"][1:]} == set(HOSTILE)
    assert {row[0] for row in parsed.tables["lesions"][1:]} == set(HOSTILE)
    labels = [attributes.get("aria-label", "") for attributes in parsed.all("svg")]
    assert sorted(label.split(", lesion")[0] for label in labels if label.startswith("missed")) == sorted(
        f"missed, {name}" for name in HOSTILE
    )
    assert not parsed.all("img")


def test_settings_are_escaped(two_cases, parse_self_contained):
    text = html_of(evaluated(two_cases, patients_regex="(.)|</script><i>"))
    assert "&lt;/script&gt;&lt;i&gt;" in text
    parse_self_contained(text)
    assert "<i>" not in text


def test_same_bytes_twice(two_cases):
    images = write_images(two_cases, ["a", "b"])
    first, second = evaluated(two_cases), evaluated(two_cases)
    assert html_of(first, gallery(first, images)) == html_of(second, gallery(second, images))


def test_every_metric_and_count_is_explained(two_cases):
    summary = summary_dict(evaluated(two_cases))
    assert set(METRICS) == {f.name for f in fields(Metrics) if "_ci95" not in f.name} - {"map_by_confidence"}
    assert set(COUNTS) == set(summary["counts"])


def test_hard_labels(two_cases, parse_self_contained):
    parsed = parse_self_contained(html_of(evaluated(two_cases, hard_labels=True)))
    assert "the predictions are hard labels; a curve" in " ".join("".join(parsed.text).split())
    assert [row[4] for row in parsed.tables["lesions"][1:]] == ["", ""]


@pytest.mark.parametrize(("lesion", "found"), [(0, 0.0), (1, 0.0), (0, 0.5)])
def test_empty_cases(folders, lesion, found, parse_self_contained):
    """No lesions, no candidates, or neither."""
    reference = np.zeros((3, 5, 5), np.uint8)
    reference[1, 1, 1] = lesion
    folders.write_reference("a.nii.gz", reference)
    probability = np.zeros(reference.shape, np.float32)
    probability[1, 3, 3] = found
    folders.write_npz("a", probability)
    text = html_of(evaluated(folders))
    parsed = parse_self_contained(text)
    words = " ".join(parsed.text)
    assert ("there are no reference lesions" if not lesion else "there are no candidates") in words
    assert "nan" not in text.split("<script>")[0].lower()


def test_versions_are_told(two_cases, parse):
    tables = parse(html_of(evaluated(two_cases))).tables
    (versions,) = [table for table in tables.values() if table[0] == ["library", "version"]]
    assert ["nnunet-lopsided", nnunet_lopsided.__version__] in versions
    assert ["numpy", np.__version__] in versions


def test_thresholds_and_kept_and_censored_lesions_are_tables(two_cases, tmp_path, parse_self_contained):
    censored = tmp_path / "censored"
    censored.mkdir()
    reference = np.zeros((8, 10, 12), np.uint8)
    reference[1:4, 1:4, 1:4] = 1
    two_cases.write_reference("../censored/a.nii.gz", reference)
    two_cases.write_reference("../censored/b.nii.gz", reference * 0)
    result = evaluated(two_cases, thresholds=(0.1, 0.6), censored_references=censored)
    parsed = parse_self_contained(html_of(result))
    tables = list(parsed.tables.values())
    (thresholds,) = [t for t in tables if t[0][0] == "p of at least"]
    assert [(row[0], row[-2], row[-1]) for row in thresholds[1:]] == [("0.1", "1", "2"), ("0.6", "1", "0")]
    (annotation,) = [t for t in tables if t[0][0] == "in the censored reference"]
    assert [row[1] for row in annotation[1:]] == ["1 / 1", "0 / 1"]


def test_skipped_cases_are_named(two_cases):
    (two_cases.predictions / "b.npz").write_bytes(b"PK")
    text = html_of(evaluated(two_cases, skip_bad=True))
    assert "Skipped, in none of the numbers: b (" in text


def test_large_evaluations_make_no_huge_pages(folders, parse):
    reference = np.zeros((101, 101), np.uint8)
    reference[::2, ::2] = 1
    folders.write_reference("a.png", reference)
    np.save(folders.predictions / "a.npy", np.where(reference, np.linspace(0.2, 0.9, 101)[None], 0).astype(np.float32))
    result = evaluated(folders, rules=EvaluationRules(tolerance_mm=0))
    text = html_of(result)
    parsed = parse(text)
    assert len(parsed.tables["lesions"]) == 1 + MAX_ROWS
    assert f"{MAX_ROWS} of 2601 rows" in text
    assert len(text) < 1_500_000
    beyond = [attributes for attributes in parsed.all("tr") if attributes.get("class") == "beyond-paper"]
    assert len(beyond) == MAX_ROWS - 40


def test_a_missed_lesion_under_a_candidate_is_counted_and_explained(folders, parse_self_contained):
    """One candidate joins three lesions in a row; its centroid lies in the middle one."""
    reference, lesion = np.zeros((3, 9, 15), np.uint8), np.zeros((3, 9, 15), np.float32)
    reference[1, 4, 1:4] = reference[1, 4, 6:9] = reference[1, 4, 11:14] = 1
    lesion[1, 4, 3:12] = 0.75
    lesion[1, 4, 1:3] = 0.75
    lesion[1, 4, 12] = 0.75
    folders.write_reference("a.nii.gz", reference)
    folders.write_npz("a", lesion)
    result = evaluated(folders)
    pictures = gallery(result, write_images(folders, ["a"], reference.shape))
    assert [p.caption.split(", mean")[1] for p in pictures if p.kind == "missed"] == [
        " probability 0.75, covered to 100%; candidate 1 merges 3 lesions and counts for another lesion",
        " probability 0.50, covered to 67%; candidate 1 merges 3 lesions and counts for another lesion",
    ]
    text = "".join(parse_self_contained(html_of(result, pictures)).text)
    assert "2 of the missed lie at least half under a candidate" in text


def test_an_anonymous_page_has_neither_paths_nor_case_names(two_cases, parse_self_contained):
    cases = ["NAME_1", "NAME_2"]
    for old, new in zip("ab", cases, strict=True):
        for folder in (two_cases.references, two_cases.predictions):
            for path in folder.glob(f"{old}.*"):
                path.rename(path.with_name(path.name.replace(old, new, 1)))
    (two_cases.references.parent / "references" / "NAME_3.nii.gz").write_bytes(
        (two_cases.references / "NAME_1.nii.gz").read_bytes()
    )
    images = write_images(two_cases, cases)
    result = evaluated(two_cases, allow_missing=True)
    two_cases.write_reference("../images/NAME_3_0000.nii.gz", np.zeros((8, 10, 12), np.float32))
    text = report_html(result, summary_dict(result), gallery(result, images), anonymous=True)
    assert "NAME" not in text
    assert str(two_cases.references.parent) not in text
    parsed = parse_self_contained(text)
    assert [row[0] for row in parsed.tables["cases"][1:]] == ["case 1", "case 2", "case 3"]
    assert "their lesions counted as missed: case 3." in "".join(parsed.text)


def test_where_there_is_no_interval_the_reason_stands(two_cases, parse_self_contained):
    result = evaluated(two_cases)
    parsed = parse_self_contained(html_of(result))
    reason = result.summary.undefined["map_ci95_bootstrap"]
    assert "".join(parsed.text).count(reason) > 3
    (sizes,) = [table for table in parsed.tables.values() if table[0][0] == "diameter, mm"]
    assert [bool(row[4]) for row in sizes[1:]] == [True, True, False, False, False]
