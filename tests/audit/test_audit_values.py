"""audit.html: which number of audit.json stands where. All values are asymmetric, so that nothing can be swapped."""

from __future__ import annotations

import re
from types import SimpleNamespace
from typing import cast

import pytest

from nnunet_lopsided.audit.audit_page import audit_html
from nnunet_lopsided.audit.auditing import Audit
from nnunet_lopsided.audit.record_content import AuditContent, InjectedContent, InjectedRangeContent, MissRateContent
from tests.evaluation.report.conftest import Page
from tests.pages.chart_reading import Drawn


def rate(lower: float, upper: float | None, share: float | None, undefined: str | None = None) -> MissRateContent:
    n = 10 * int(lower)
    return {
        "lower_mm": lower,
        "upper_mm": upper,
        "annotated_lesions": n + 7,
        "annotated_lesions_found": n + 5,
        "candidates": n + 3,
        "missed_share_of_candidates": None,
        "missed_lesions": None if share is None else n + 2.4,
        "miss_rate": share,
        "miss_rate_ci95_bootstrap": None if share is None else [share - 0.1, share + 0.25],
        "undefined": undefined,
    }


def injected(
    lower: float, upper: float | None, found: int, missed: float | None, seen: float | None = None
) -> InjectedRangeContent:
    return {
        "lower_mm": lower,
        "upper_mm": upper,
        "annotated_lesions": 50 + int(lower),
        "injected": 30 + int(lower),
        "found": found,
        "recall": found / 40,
        "by_injected": 51.0,
        "by_highest_scores": 52.0,
        "by_annotated": None,
        "missed_lesions": missed,
        "seen": seen,
        "seen_ci95_bootstrap": None if seen is None else [seen - 0.2, seen + 0.05],
        "seen_rising": None if seen is None else seen + 0.1,
    }


RECORD: AuditContent = {
    "id": "0123456789abcdef",
    "schema_version": 1,
    "tool": "nnunet-lopsided",
    "version": "9.8.7",
    "dataset": "Dataset511_Cut",
    "models": [
        {"trainer": "TrainerA", "plans": "plansB", "configuration": "2d"},
        {"trainer": "TrainerC", "plans": "plansD", "configuration": "2.5d"},
    ],
    "folds": [1, 3],
    "counts": {
        "cases": 11,
        "patients": 9,
        "annotated_lesions": 43,
        "annotated_lesions_found": 37,
        "candidates": 29,
        "fainter_candidates": 6,
    },
    "ranked_by": "likeness",
    "likeness": {
        "separation_auc": 0.875,
        "coefficients": {"mean probability": 0.5, "contrast": -0.25},
        "reliability": [{"predicted": 0.125, "observed": 0.375, "n": 8}],
    },
    "no_likeness": "",
    "miss_rate": rate(0, None, 0.5),
    "miss_rate_in_any_prediction": rate(0, None, 0.375),
    "miss_rate_by_diameter": [rate(3, 6, 0.25), rate(6, None, None, "too few")],
    "outside_miss_rate": {"candidates": 13, "miss_rate_if_missed": 0.625},
    "cut_back": {"fraction": 0.3, "mean_dice_of_annotated": 0.75},
    "settings": {
        "label": None,
        "magnify": [2.0, 1.5],
        "threshold": 0.03,
        "connectivity": None,
        "tolerance_mm": 1.5,
        "diameter_edges_mm": [3.0, 6.0],
        "patients": "cases",
        "seed": 4,
        "bootstrap_replicates": 1000,
    },
    "not_audited": ["p7"],
    "not_magnified": "",
    "cases": {},
    "detector": {
        "annotated_lesions": 43,
        "annotated_lesions_found": 37,
        "sensitivity": 0.86,
        "false_positives_per_case": 2.6,
        "average_precision": 0.41,
        "least_sensitivity": 0.5,
        "least_average_precision": 0.15,
    },
    "withheld": None,
    "injected": {
        "seed": 5,
        "per_case": 4,
        "lesions": 71,
        "by_diameter": [injected(3, 6, 9, None), injected(6, None, 21, 16.6, 0.7)],
        "missed_lesions": 16.6,
        "miss_rate": 0.875,
        "miss_rate_ci95_bootstrap": [0.75, 0.9],
        "undefined": None,
    },
    "maps": {},
}


NO_CANDIDATES = cast(Audit, SimpleNamespace(candidates=()))  # all else is in the record


@pytest.fixture(scope="module")
def shown() -> Page:
    return Page(audit_html(NO_CANDIDATES, RECORD, ()))


def table(shown: Page, first: str) -> list[list[str]]:
    (found,) = (rows for rows in shown.tables.values() if rows[0][0] == first)
    return found


def sentence(shown: Page, part: str) -> str:
    text = re.sub(r"\s+", " ", "".join(shown.text))
    (found,) = (s for s in re.split(r"(?<=[a-z0-9])\. ", text) if part in s)
    return found


def test_counts_and_models(shown: Page) -> None:
    text = re.sub(r"\s+", " ", "".join(shown.text))
    assert (
        "Dataset511_Cut: 11 cases, 43 annotated lesions, of which the models find 37, and 29 candidates that no "
        "annotation explains, 6 of them below 0.03; TrainerA, plansB, 2d; TrainerC, plansD, 2.5d; folds 1, 3; images "
        "as they are and magnified 2 and 1.5 times; audit 0123456789abcdef" in text
    )
    assert "Validated by none of the folds, and not audited: p7." in text
    assert "candidates of which no voxel reaches 0.03" in text


def test_miss_rates_by_diameter(shown: Page) -> None:
    rates, _ = (rows for rows in shown.tables.values() if rows[0][0] == "diameter, mm")
    assert rates[1:] == [
        ["all", "5 / 7", "3", "2", "0.500", "0.400 to 0.750"],
        ["3\u20136", "35 / 37", "33", "32", "0.250", "0.150 to 0.500"],
        ["6+", "65 / 67", "63", "", "undefined", "too few"],
    ]


def test_what_the_networks_see(shown: Page) -> None:
    _, by_diameter = (rows for rows in shown.tables.values() if rows[0][0] == "diameter, mm")
    assert by_diameter[1:] == [
        ["3\u20136", "33", "9", "0.225", "53", "", "", ""],
        ["6+", "36", "21", "0.525", "56", "17", "0.700", "0.500 to 0.750"],
    ]
    assert sentence(shown, "were injected where").startswith(
        "What the networks see 71 annotated lesions, most of them shrunk"
    )
    assert "(up to 4 per case, seed 5)" in sentence(shown, "were injected where")
    assert sentence(shown, "In all ").startswith("In all 17, or 0.875 of all lesions (95% interval 0.750 to 0.900).")
    assert "Nothing is said of lesions of 3\u20136 mm (9 of 33): fewer than 10" in "".join(shown.text)


def chart_of(record: AuditContent) -> list[Drawn]:
    charts = re.findall(r"<svg[^>]*class=.chart.*?</svg>", audit_html(NO_CANDIDATES, record, ()), re.DOTALL)
    return [Drawn(svg, (-0.6, 1.6), (0, 1.05)) for svg in charts]


def test_what_annotators_saw() -> None:
    (drawn,) = chart_of(RECORD)
    # One minus the miss rate, whose interval changes its ends.
    assert drawn.dots("point", "k0") == [pytest.approx((-0.08, 0.75), abs=0.0051)]
    assert drawn.whiskers("k0") == [pytest.approx((-0.08, 0.5, 0.85), abs=0.0051)]
    assert drawn.dots("point", "k1") == [pytest.approx((1.08, 0.7), abs=0.0051)]
    assert drawn.whiskers("k1") == [pytest.approx((1.08, 0.5, 0.75), abs=0.0051)]
    (alone,) = chart_of({**RECORD, "injected": None})
    assert alone.dots("point", "k0") == [pytest.approx((0, 0.75), abs=0.0051)]
    assert not alone.points("curve")
    assert not chart_of({**RECORD, "withheld": "weak"})
    assert not chart_of({**RECORD, "injected": None, "miss_rate_by_diameter": [rate(0, None, None, "too few")]})


def test_injected_lesions_without_an_estimate_or_none() -> None:
    of = RECORD["injected"]
    assert of is not None
    nothing: InjectedContent = {
        **of,
        "missed_lesions": None,
        "miss_rate": None,
        "miss_rate_ci95_bootstrap": None,
        "undefined": "few are found",
    }
    text = "".join(Page(audit_html(NO_CANDIDATES, {**RECORD, "injected": nothing}, ())).text)
    assert "In all" not in text
    assert "There is no estimate: few are found." in text
    assert "Nothing is said" not in text
    empty: InjectedContent = {**of, "by_diameter": [{**injected(20, None, 0, None), "injected": 0}]}
    text = "".join(Page(audit_html(NO_CANDIDATES, {**RECORD, "injected": empty}, ())).text)
    assert "Nothing is said" not in text  # of what was not injected the networks may see much
    assert "injected" not in "".join(Page(audit_html(NO_CANDIDATES, {**RECORD, "injected": None}, ())).text)


def test_what_is_said_of_the_miss_rate(shown: Page) -> None:
    assert "0.375 (95% interval 0.275 to 0.625) is the share" in sentence(shown, "if the highest probability in any")
    assert "13 candidates are of diameters that are hardly annotated" in sentence(shown, "hardly annotated")
    assert sentence(shown, "If all of them were").endswith("the rate would be 0.625")
    assert "a sensitivity of 0.86 and an average precision of 0.41, with 2.6 candidates per case" in sentence(
        shown, "out of fold"
    )
    assert sentence(shown, "miss rates are withheld") == "Below 0.5 and 0.15 miss rates are withheld"


def test_what_ranks(shown: Page) -> None:
    assert "in the order of the probability of being a missed lesion; audit.csv" in sentence(shown, "in the order of")
    assert "ROC curve: 0.875" in sentence(shown, "ROC curve")
    assert table(shown, "feature, standardised")[1:] == [["mean probability", "+0.500"], ["contrast", "-0.250"]]
    assert table(shown, "probability of being annotated")[1:] == [["0.125", "0.375", "8"]]


def test_settings_are_words(shown: Page) -> None:
    assert dict(table(shown, "setting")[1:]) == {
        "cut back at, of the highest probability": "0.3",
        "mean Dice of annotated lesions so cut back": "0.750",
        "label": "all foreground",
        "magnify": "2, 1.5",
        "threshold": "0.03",
        "connectivity": "26 in 3D, 8 in 2D",
        "tolerance_mm": "1.5",
        "diameter_edges_mm": "3, 6",
        "patients": "cases",
        "seed": "4",
        "bootstrap_replicates": "1000",
        "version": "9.8.7",
    }


def test_reasons_stand_above_the_numbers() -> None:
    record: AuditContent = {
        **RECORD,
        "ranked_by": "mean-probability",
        "likeness": None,
        "no_likeness": "there are few",
        "not_magnified": "no checkpoint",
        "withheld": "weak models",
        "not_audited": [],
        "outside_miss_rate": None,
        "miss_rate_in_any_prediction": None,
    }
    page = Page(audit_html(NO_CANDIDATES, record, ()))
    text = "".join(page.text)
    assert re.findall(r"Images were.*|Miss rates and.*|Ranked by.*", text) == [
        "Images were not magnified: no checkpoint.",
        "Miss rates and scores are withheld: weak models.",
        "Ranked by mean probability: there are few.",
    ]
    assert "not audited" not in text
    assert "hardly annotated" not in text
