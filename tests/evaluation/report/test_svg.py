"""nnunet_lopsided.pages.svg and charts."""

import xml.etree.ElementTree as ET

import pytest
from nnunet_lopsided.pages.svg import Plot, say, steps, ticks

from nnunet_lopsided.pages.charts import MAX_POINTS, lines_over, sensitivity_by_diameter, thinned


@pytest.mark.parametrize(
    ("end", "expected"),
    [(1, [0, 0.2, 0.4, 0.6, 0.8, 1]), (0.079, [0, 0.02, 0.04, 0.06]), (4.2, [0, 1, 2, 3, 4]), (130, [0, 50, 100])],
)
def test_ticks(end, expected):
    assert ticks(end) == expected


def test_places():
    plot = Plot("", "", "", x_end=10, y_end=2)
    # 56 to 504 across, 310 up to 34.
    assert [plot.x(v) for v in (0, 5, 10)] == [56, 280, 504]
    assert [plot.y(v) for v in (0, 1, 2)] == [310, 172, 34]


def test_stairs():
    plot = Plot("", "", "")
    assert steps(plot, [0.5, 1.0], [1.0, 0.5], first="y") == '<path class="curve" d="M56 34V34H280V172H504"/>'
    assert steps(plot, [0.0, 1.0], [0.5, 1.0], first="x") == '<path class="curve" d="M56 310H56V172H504V34"/>'


def test_chart_is_well_formed_and_escaped():
    chart = Plot("<a> & b", "x", "y").svg([say("word " * 30)], curve="pr")
    parsed = ET.fromstring(chart)
    assert parsed.attrib["tabindex"] == "0"
    assert "".join(parsed.itertext()).startswith("<a> & b")
    assert [e.attrib["class"] for e in parsed.iter() if e.tag in ("circle", "line") and "class" in e.attrib][-3:] == [
        "cross",
        "cross",
        "marker",
    ]


def test_bars_by_hand():
    bins = [
        {
            "lower_mm": 0,
            "upper_mm": 5,
            "lesions": 2,
            "detected": 1,
            "sensitivity": 0.5,
            "sensitivity_ci95_wilson": [0, 1],
        },
        {
            "lower_mm": 5,
            "upper_mm": None,
            "lesions": 0,
            "detected": 0,
            "sensitivity": None,
            "sensitivity_ci95_wilson": None,
        },
    ]
    parsed = ET.fromstring(sensitivity_by_diameter({"": {"by_diameter": bins}}))
    (bar,) = parsed.iter("rect")
    # The bin takes the left half of 448, its bar 70% of that.
    assert [float(bar.attrib[k]) for k in ("x", "y", "width", "height")] == pytest.approx([89.6, 172, 156.8, 138])
    words = [e.text for e in parsed.iter("text")]
    assert {"0\u20135", "5+", "1/2", "0/0"} <= set(words)


def test_thinning_keeps_both_ends():
    assert thinned(3) == [0, 1, 2]
    kept = thinned(100_000)
    assert (len(kept), kept[0], kept[-1]) == (MAX_POINTS, 0, 99_999)


def test_lines_over_what_was_varied():
    chart = lines_over("mAP", "patients", {"a": [(10, 0.2, (0.1, 0.4)), (40, 0.8, None)], "b": []})
    root = ET.fromstring(chart)
    assert root.get("aria-label") == "mAP: mAP against patients"
    (line,) = [e for e in root.iter() if e.get("class") == "curve k0"]
    # x ends at 42, y at 0.84: 56 + x / 42 * 448 across, 310 - y / 0.84 * 276 up.
    assert line.get("d") == "M162.7 244.3L482.7 47.1"
    (whisker,) = [e for e in root.iter() if e.get("class") == "whisker"]
    assert whisker.get("d").startswith("M158.7 277.1h8M158.7 178.6h8")
    assert [e.text for e in root.iter() if e.text in ("10", "40")] == ["10", "40"]
    assert "nothing evaluated yet" in lines_over("mAP", "patients", {"a": []})
