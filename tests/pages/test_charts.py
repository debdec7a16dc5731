"""nnunet_lopsided.pages.charts, read back from the SVG. All values are asymmetric, so that nothing can be swapped."""

import xml.etree.ElementTree as ET
from functools import partial

import pytest

from nnunet_lopsided.pages.charts import (
    INK,
    MAX_POINTS,
    NO_CANDIDATES,
    SERIES,
    Curve,
    LinePoint,
    SizeBin,
    diameter_range,
    draw_froc,
    draw_histogram,
    draw_lines,
    draw_precision_recall,
    draw_sensitivity_by_diameter,
    thinned,
)
from nnunet_lopsided.pages.rendering import chart, png
from tests.pages.chart_reading import Drawn

A = Curve([0.1, 0.3, 0.8], [0.9, 0.75, 0.6], [0.0, 0.5, 2.5])
B = Curve([0.2, 0.4], [0.5, 0.35], [1.0, 4.0])
EMPTY = Curve([], [], [])
BINS = [(0, 3, 10, 2, (0.06, 0.51)), (3, 6, 8, 6, (0.41, 0.93)), (6, None, 0, 0, None)]
OTHER = [(0, 3, 10, 9, (0.6, 0.98)), (3, 6, 8, 1, (0.02, 0.47)), (6, None, 0, 0, None)]


def near(rows):
    """The same to a hundredth, which is what two decimals can tell."""
    return [pytest.approx(row, abs=0.0051) for row in rows]


def bins(rows):
    names = ("lower_mm", "upper_mm", "n_lesions", "n_detected", "interval")
    return [SizeBin(**dict(zip(names, row, strict=True))) for row in rows]


def precision_recall(*arguments, **options):
    return Drawn(chart(lambda axes: draw_precision_recall(axes, *arguments, **options)).svg, (0, 1.02), (0, 1.04))


def froc(curves, x_end, *arguments):
    return Drawn(chart(lambda axes: draw_froc(axes, curves, *arguments)).svg, (0, x_end), (0, 1.04))


def by_diameter(*evaluations):
    drawn = chart(lambda axes: draw_sensitivity_by_diameter(axes, [bins(rows) for rows in evaluations]))
    return Drawn(drawn.svg, (-0.6, 2.6), (0, 1.14))


def test_precision_recall_is_a_stair_that_holds_up_to_each_point():
    drawn = precision_recall([A], 0.4567)
    (stair,) = drawn.points("curve", "k0")
    # Recall is across and precision up; up to each recall the precision reached there counts.
    assert stair == [(0, 0.9), (0, 0.9), (0.1, 0.9), (0.1, 0.75), (0.3, 0.75), (0.3, 0.6), (0.8, 0.6)]
    assert drawn.dots("end") == [(0.8, 0.6)]
    assert {"Precision and recall   AP 0.457", "all candidates", "0.80, 0.60"} <= set(drawn.texts())
    assert {"recall (lesions)", "precision (candidates)"} <= set(drawn.texts())


def test_froc_is_a_stair_that_holds_from_each_point_on():
    drawn = froc([A], 2.6)
    (stair,) = drawn.points("curve", "k0")
    # From (0, 0); false positives are across and sensitivity up.
    assert stair == [(0, 0), (0, 0), (0, 0.1), (0.5, 0.1), (0.5, 0.3), (2.5, 0.3), (2.5, 0.8)]
    assert drawn.dots("end") == [(2.5, 0.8)]
    assert {"FROC", "false positives per case", "sensitivity"} <= set(drawn.texts())


def test_froc_shows_at_least_one_false_positive_per_case():
    (stair,) = froc([Curve([0.5], [1.0], [0.25])], 1.0).points("curve")
    assert stair[-1] == (0.25, 0.5)


def test_compared_curves_keep_their_order_and_colour():
    drawn = precision_recall([A, None, B])
    assert drawn.points("curve", "k0")[0][-1] == (0.8, 0.6)
    assert drawn.points("curve", "k1") == []
    assert drawn.points("curve", "k2")[0][-1] == (0.4, 0.35)
    assert (drawn.colours("curve", "k0"), drawn.colours("curve", "k2")) == ({"#2563a8"}, {"#007a5a"})
    assert (drawn.colours("end", "k0"), drawn.colours("end", "k2")) == ({"#2563a8"}, {"#007a5a"})
    assert not [text for text in drawn.texts() if "all candidates" in text]
    rates = froc([A, B], 4.16)
    assert [rates.points("curve", k)[0][-1] for k in ("k0", "k1")] == [(2.5, 0.8), (4.0, 0.4)]
    assert rates.colours("curve", "k1") == {"#d55e00"}


def test_evaluations_are_told_apart_by_dashes_too():
    drawn = chart(lambda axes: draw_froc(axes, [A] * 4)).svg
    dashes = [e.attrib["style"].partition("stroke-dasharray: ")[2].split(";")[0] for e in lines(drawn)]
    assert len(set(dashes)) == 4
    assert len({series.colour for series in SERIES}) == 4


def lines(svg):
    groups = [e for e in ET.fromstring(svg).iter("g") if e.get("class", "").startswith("curve")]
    return [path for group in groups for path in group.iter("path")]


@pytest.mark.parametrize("draw", [draw_precision_recall, draw_froc])
def test_a_chart_without_a_curve_says_why(draw):
    def texts(curves, **options):
        return " ".join(Drawn(chart(lambda axes: draw(axes, curves, **options)).svg, (0, 1), (0, 1)).texts())

    assert "the predictions are hard labels" in texts([None], undefined="the predictions are hard labels")
    assert NO_CANDIDATES in texts([EMPTY])
    assert NO_CANDIDATES not in texts([EMPTY, A])


def test_bars_are_as_high_as_the_sensitivity():
    drawn = by_diameter(BINS)
    # 2 of 10 and 6 of 8 lesions; the bars are 0.7 wide, around 0 and 1.
    assert drawn.bars("k0") == [(-0.35, 0.35, 0.2), (0.65, 1.35, 0.75)]
    assert drawn.whiskers("k0") == [(0, 0.06, 0.51), (1, 0.41, 0.93)]
    assert (drawn.colours("bar"), drawn.colours("whisker")) == ({"#2563a8"}, {INK})
    places = drawn.text_places()
    assert [places[text][0] for text in ("0\u20133", "3\u20136", "6+", "2/10", "6/8", "none")] == [0, 1, 2, 0, 1, 2]


def test_bars_of_several_evaluations_stand_side_by_side_in_their_order():
    drawn = by_diameter(BINS, OTHER)
    assert drawn.bars("k0") == [(-0.35, 0.0, 0.2), (0.65, 1.0, 0.75)]
    assert drawn.bars("k1") == near([(0.0, 0.35, 0.9), (1.0, 1.35, 0.125)])
    assert drawn.whiskers("k0") == near([(-0.175, 0.06, 0.51), (0.825, 0.41, 0.93)])
    assert drawn.whiskers("k1") == near([(0.175, 0.6, 0.98), (1.175, 0.02, 0.47)])
    assert (drawn.colours("bar", "k0"), drawn.colours("bar", "k1")) == ({"#2563a8"}, {"#d55e00"})
    places = drawn.text_places()
    assert [places[text][0] for text in ("n=10", "n=8", "none")] == [0, 1, 2]


def test_a_bar_without_interval_has_no_whisker():
    drawn = by_diameter([(0, 3, 4, 1, None), *BINS[1:]])
    assert drawn.bars()[0] == (-0.35, 0.35, 0.25)
    assert [x for x, _, _ in drawn.whiskers()] == [1]


def test_histogram_shows_shares_over_the_probability():
    drawn = Drawn(chart(lambda axes: draw_histogram(axes, [6, 0, 1, 3], 1.234)).svg, (0, 1), (0, 0.63))
    assert drawn.bars() == [(0.0, 0.25, 0.6), (0.5, 0.75, 0.1), (0.75, 1.0, 0.3)]
    assert {"Lesion voxels by probability, entropy 1.23 bits", "predicted probability"} <= set(drawn.texts())


@pytest.mark.parametrize(
    ("counts", "undefined", "said"), [([0, 0], None, "there are no lesion voxels"), ([], "hard labels", "hard labels")]
)
def test_an_empty_histogram_says_why(counts, undefined, said):
    drawn = Drawn(chart(lambda axes: draw_histogram(axes, counts, None, undefined)).svg, (0, 1), (0, 1))
    assert said in drawn.texts()
    assert drawn.bars() == []


def test_lines_over_what_was_varied():
    of_a = [LinePoint(10, 0.2, (0.1, 0.35)), LinePoint(40, 0.8, None)]
    given = {"a": of_a, "nothing": [], "b": [LinePoint(20, 0.5, (0.3, 0.6))]}
    # x ends at 42, y at 0.84.
    drawn = Drawn(chart(lambda axes: draw_lines(axes, "mAP", "patients", given)).svg, (-0.84, 42), (0, 0.84))
    assert drawn.points("curve", "k0") == [[(10, 0.2), (40, 0.8)]]
    assert drawn.points("curve", "k2") == [[(20, 0.5)]]
    assert (drawn.dots("point", "k0"), drawn.dots("point", "k2")) == ([(10, 0.2), (40, 0.8)], [(20, 0.5)])
    assert drawn.whiskers("k0") == [(10, 0.1, 0.35)]
    # Beside the others, by a hundred and fiftieth of the axis for each model before.
    assert drawn.whiskers("k2") == [(20.56, 0.3, 0.6)]
    assert (drawn.colours("point", "k0"), drawn.colours("point", "k2")) == ({"#2563a8"}, {"#007a5a"})
    places = drawn.text_places()
    assert [places[text][0] for text in ("10", "20", "40")] == [10, 20, 40]
    assert {"mAP", "patients"} <= set(drawn.texts())


def test_charts_beside_each_other_have_one_scale():
    """With a top the axis ends there, whatever the points; without, at the highest of them."""
    low, high = {"a": [LinePoint(1, 0.25, None)]}, {"a": [LinePoint(1, 0.75, (0.5, 1.0))]}
    for given in (low, high):
        draw = partial(draw_lines, title="mAP", x_label="rate", lines=given, top=1.0)
        drawn = Drawn(chart(draw).svg, (-0.021, 1.05), (0, 1.05))
        assert drawn.dots("point", "k0") == [(1, given["a"][0].value)]


def test_each_axis_has_the_name_of_what_is_along_it():
    line = {"a": [LinePoint(1, 0.5, None)]}
    names = {
        "recall": precision_recall([A]).axis_names(),
        "FROC": froc([A], 2.6).axis_names(),
        "bars": by_diameter(BINS).axis_names(),
        "histogram": Drawn(chart(lambda axes: draw_histogram(axes, [6, 1])).svg, (0, 1), (0, 1)).axis_names(),
        "lines": Drawn(chart(lambda axes: draw_lines(axes, "mAP", "patients", line)).svg, (0, 1), (0, 1)).axis_names(),
    }
    assert names == {
        "recall": ("recall (lesions)", "precision (candidates)"),
        "FROC": ("false positives per case", "sensitivity"),
        "bars": ("lesion diameter, mm", "sensitivity"),
        "histogram": ("predicted probability", "share of lesion voxels"),
        "lines": ("patients", "mAP"),
    }


def test_the_markers_cross_reaches_from_the_axes():
    """The page's script moves the other ends: of one line from the left, of the other from below."""
    root = ET.fromstring(chart(lambda axes: draw_froc(axes, [A]), [(2.5, 0.8)], "froc").svg)
    one, other = (line.attrib for line in root.iter("line"))
    assert (one, other) == ({"class": "cross", "x1": "50"}, {"class": "cross", "y2": "260"})
    drawn = froc([A], 2.6)
    assert drawn.data((50, 260)) == (0, 0)


def test_lines_without_any_value():
    drawn = Drawn(chart(lambda axes: draw_lines(axes, "mAP", "patients", {"a": []})).svg, (0, 1), (0, 1))
    assert "nothing evaluated yet" in drawn.texts()


def test_thinning_keeps_both_ends():
    assert thinned(3) == [0, 1, 2]
    kept = thinned(100_000)
    assert (len(kept), kept[0], kept[-1]) == (MAX_POINTS, 0, 99_999)
    values = [i / 100_000 for i in range(100_000)]
    curve = Curve(values, [1 - v for v in values], [2 * v for v in values]).thinned()
    assert (curve.recall[-1], curve.precision[-1], curve.false_positives_per_case[-1]) == pytest.approx(
        (0.99999, 0.00001, 1.99998)
    )


def test_ranges_of_diameters():
    assert (diameter_range(0, 2.5), diameter_range(20, None)) == ("0\u20132.5", "20+")


def test_svg_and_png_are_the_same_twice_and_stand_alone():
    first, second = (chart(lambda axes: draw_froc(axes, [A, B]), [(2.5, 0.8)], "froc") for _ in range(2))
    assert first == second
    assert "http" not in first.svg
    assert " id=" not in first.svg
    assert "<style" not in first.svg
    root = ET.fromstring(first.svg)
    assert (root.attrib["role"], root.attrib["tabindex"], root.attrib["data-curve"]) == ("img", "0", "froc")
    assert root.attrib["aria-label"] == "FROC: sensitivity against false positives per case"
    # The place is that of the dot at the end of the first curve.
    assert Drawn(first.svg, (0, 4.16), (0, 1.04)).data(first.places[0]) == (2.5, 0.8)

    def figure():
        from matplotlib.figure import Figure

        figure = Figure(figsize=(3, 2))
        draw_froc(figure.subplots(), [A, B])
        return figure

    assert png(figure) == png(figure)


def test_names_are_text_and_no_formulas():
    hostile = "<b>$x_1$</b> & \"'"
    drawn = chart(lambda axes: draw_lines(axes, hostile, "$", {"a": [LinePoint(1, 0.5, None)]})).svg
    assert hostile in Drawn(drawn, (0, 1), (0, 1)).texts()
    assert "<b>" not in drawn


def test_the_style_of_others_changes_nothing():
    """nnU-Net calls seaborn.set, whose bars have white edges, in the process in which it trains."""
    import matplotlib

    plain = by_diameter(BINS)
    with matplotlib.rc_context({"patch.edgecolor": "w", "patch.force_edgecolor": True, "font.size": 30}):
        other = by_diameter(BINS)
    assert other.colours("bar") == plain.colours("bar") == {"#2563a8"}
