"""nnunet_lopsided.evaluation.report.comparison_page: the page of a comparison."""

import pytest

from nnunet_lopsided.errors import InputError
from nnunet_lopsided.evaluation.comparison import Difference, compare
from nnunet_lopsided.evaluation.comparison_writing import comparison_settings
from nnunet_lopsided.evaluation.intervals import Interval
from nnunet_lopsided.evaluation.report.comparison_page import _row, comparison_html
from nnunet_lopsided.evaluation.saved import read_evaluation

HOSTILE = '<img src=x onerror="alert(1)">'


def html_of(folders, names, **options):
    comparison = compare([read_evaluation(f, n) for f, n in zip(folders, names, strict=True)], **options)
    return comparison, comparison_html(comparison, comparison_settings(comparison))


def signed(value):
    return f"{value:+.3f}" if value else "0"


def test_structure_and_values(two_models, parse_self_contained):
    comparison, text = html_of(two_models, ["a", "b"], n_replicates=200)
    parsed = parse_self_contained(text)
    (pair,) = comparison.pairs
    tables = list(parsed.tables.values())
    (differences,) = [t for t in tables if t[0][0] == "metric"]
    assert differences[0] == ["metric", "a", "b", "difference", "95% interval"]
    of_map = pair.differences["map"]
    row = next(row for row in differences if row[0] == "average precision (mAP)")
    assert row[1:4] == [f"{of_map.first:.3f}", f"{of_map.second:.3f}", f"{of_map.difference:+.3f}"]
    assert row[4] == f"{of_map.interval.low:+.3f} to {of_map.interval.high:+.3f}"
    rows = dict(zip(pair.differences, differences[1:], strict=False))
    for name, d in pair.differences.items():
        ends = d.interval.ends
        assert rows[name][4] == (" to ".join(map(signed, ends)) if ends else d.interval.undefined), name
    assert any(d.interval.undefined for d in pair.differences.values())
    assert "centroid within 1 mm of a voxel's box" in "".join(parsed.text)
    (found,) = [t for t in tables if t[0][0] == "diameter"]
    lesions = pair.lesions
    counts = [lesions.both, lesions.only_first, lesions.only_second, lesions.neither]
    assert found[1][:6] == ["all", str(sum(counts)), *map(str, counts)]
    assert [row[0] for row in found[2:]] == ["0 to 3 mm", "3 to 6 mm", "6 to 10 mm", "10 to 20 mm", "20 or more mm"]


def test_nothing_sets_off_an_interval_that_leaves_out_0():
    """One interval holds 0 and one does not: the rows are plain text, and alike."""
    for low, high, text in ((0.4, 0.5, "+0.400 to +0.500"), (-0.4, 0.5, "-0.400 to +0.500")):
        row = _row("map", Difference(0.2, 0.7, 0.5, Interval(low, high)))
        assert row == ("map", "0.200", "0.700", "+0.500", text)
        assert {type(cell) for cell in row} == {str}
    undefined = _row("map", Difference(0.2, 0.7, 0.5, Interval.without("of <one> patient")))
    assert undefined[4] == '<span class="why">of &lt;one&gt; patient</span>'


def test_lesions_on_which_models_differ_come_first(two_models, parse_self_contained):
    comparison, text = html_of(two_models, ["a", "b"], n_replicates=0)
    table = parse_self_contained(text).tables["lesions"]
    assert table[0] == ["case", "lesion", "diameter, mm", "a", "b", "found by"]
    differs = [row[3] != row[4] for row in table[1:]]
    n_differing = comparison.pairs[0].lesions.only_first + comparison.pairs[0].lesions.only_second
    assert differs == [True] * n_differing + [False] * (len(differs) - n_differing)
    words = {"foundmissed": "a only", "missedfound": "b only", "foundfound": "all", "missedmissed": "none"}
    assert all(row[5] == words[row[3] + row[4]] for row in table[1:])


def test_hostile_names_and_three_models(two_models, parse_self_contained):
    folders = [*two_models, two_models[0]]
    _, text = html_of(folders, [HOSTILE, "b", "c&d"], n_replicates=100)
    parsed = parse_self_contained(text)
    assert not parsed.all("img")
    assert HOSTILE in "".join(parsed.text)
    titles = [title for title in parsed.text if " minus " in title]
    assert titles == [f"b minus {HOSTILE}", f"c&d minus {HOSTILE}", "c&d minus b"]
    curves = [attributes["class"] for attributes in parsed.all("g") if "curve" in attributes.get("class", "")]
    # Precision and recall, FROC, and patients by ROC.
    assert curves == ["curve k0", "curve k1", "curve k2"] * 3
    assert [a["stroke"] for a in parsed.all("path") if a.get("d") == "M1 5h32"] == ["#2563a8", "#d55e00", "#007a5a"]


def test_hard_labels_are_not_compared_with_probabilities_and_have_no_curve(two_cases, tmp_path, parse_self_contained):
    from nnunet_lopsided.evaluation import evaluate_folder
    from nnunet_lopsided.evaluation.writing import write_results

    for name, hard in (("hard", True), ("soft", False)):
        result = evaluate_folder(two_cases.references, two_cases.predictions, hard_labels=hard, n_replicates=0)
        write_results(result, tmp_path / name)
        page = (tmp_path / name / "report.html").read_text()
        assert ("hard labels)" in page, "p of at least 0.1)" in page) == (hard, not hard)
    with pytest.raises(InputError, match="predictions is 'hard labels' versus 'probabilities'"):
        html_of([tmp_path / "hard", tmp_path / "soft"], ["hard", "soft"], n_replicates=100)
    comparison, text = html_of([tmp_path / "hard"] * 2, ["one", "two"], n_replicates=100)
    difference = comparison.pairs[0].differences["map"]
    assert (difference.difference, difference.interval.undefined) == (None, "undefined for both")
    parsed = parse_self_contained(text)
    assert not [a for a in parsed.all("g") if "curve" in a.get("class", "")]
    assert "no curve without probabilities and lesions" in " ".join(" ".join(parsed.text).split())


def test_an_anonymous_page_has_neither_paths_nor_case_names(two_models, parse_self_contained):
    comparison = compare([read_evaluation(f, n) for f, n in zip(two_models, "ab", strict=True)], n_replicates=0)
    text = comparison_html(comparison, comparison_settings(comparison), anonymous=True)
    assert str(two_models[0].parent) not in text
    assert not [case.case for case in comparison.models[0].cases if case.case in text]
    assert parse_self_contained(text).tables["lesions"][1][0].startswith("case ")
