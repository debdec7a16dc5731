"""nnunet_lopsided.study.answers: sentences by hand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from nnunet_lopsided.study.answers import answers


@dataclass
class Row:
    """As much of a row of the report as sentences need."""

    labels: str
    arm: str
    value: float | None
    runs: tuple[int, ...] = (1, 2, 3)
    metrics: Mapping[str, float | None] = field(default_factory=dict)

    def mean(self, metric: str) -> float | None:
        return self.metrics.get(metric, self.value)


def said(*rows: Row) -> list[str]:
    return answers(rows, "plain")  # type: ignore[arg-type]  # rows stand in for those of a report


FULL = Row("full", "plain", 0.75)


def test_what_was_lost_and_won_back() -> None:
    rows = (
        FULL,
        Row("full", "recipe", 0.7),
        Row("size50", "plain", 0.5),
        Row("size50", "recipe", 0.6),
        Row("size50", "read", 0.8),
    )
    assert said(*rows, Row("size50", "worse", 0.4)) == [
        "size50: missing lesions cost plain 0.250 of average precision (0.750 with full labels, 0.500). "
        "recipe won back 0.100 (40% of it), read won back 0.300 (120% of it), worse lost 0.100 more."
    ]


def test_every_kind_of_labels_has_its_sentence_in_the_order_of_the_rows() -> None:
    sentences = said(FULL, Row("size50", "plain", 0.5), Row("reader", "plain", 0.7), Row("size25", "plain", None))
    assert [sentence.split(":")[0] for sentence in sentences] == ["size50", "reader"]


def test_nothing_lost_is_no_share() -> None:
    assert said(FULL, Row("size50", "plain", 0.745), Row("size50", "recipe", 0.9), Row("size50", "worse", 0.7)) == [
        "size50: missing lesions cost plain no average precision (0.750 with full labels, 0.745). "
        "recipe is 0.155 above it, worse is 0.045 below it."
    ]


def test_a_single_training_is_said() -> None:
    (sentence,) = said(FULL, Row("size50", "plain", 0.5, runs=(1,)))
    assert sentence.endswith(
        "(0.750 with full labels, 0.500). A single training of some arm: another one would give other numbers."
    )


def test_without_the_baseline_there_is_no_answer() -> None:
    assert said(Row("full", "recipe", 0.7), Row("size50", "plain", 0.5)) == []
    assert said(FULL, Row("size50", "recipe", 0.5)) == []
    assert said(Row("full", "plain", None), Row("size50", "plain", 0.5)) == []
