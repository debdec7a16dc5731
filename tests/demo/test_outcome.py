"""nnunet_lopsided.demo.outcome: sentences by hand."""

from __future__ import annotations

import pytest

from nnunet_lopsided.demo.outcome import AuditScore, Difference, answers, spread

CLEAR = (Difference(0.1, (0.05, 0.15)), Difference(0.2, (0.1, 0.3)))


def said(differences: tuple[Difference, ...] = CLEAR, audit: AuditScore | None = None) -> list[str]:
    labels = {"left": (0.5, 0.52), "recipe": (0.6, 0.66)}
    return answers("Half missing", whole=0.75, differences=differences, audit=audit, **labels)


def test_certainty_cost_and_audit() -> None:
    assert said(audit=AuditScore(n_missing=121, n_read=50, n_right=44, estimated=0.7, true=0.6)) == [
        "In 2 of 2 trainings the default recipe is above nnU-Net's loss; by average precision the difference is +0.100 "
        "(95% interval +0.050 to +0.150) and +0.200 (95% interval +0.100 to +0.300), on the mean +0.150; no interval "
        "holds 0: with other test cases it would most likely have the same sign. Two trainings of the same kind, on "
        "other halves of the cases, differ by up to 0.060.",
        "Half missing, first fold: missing lesions cost nnU-Net's loss 0.250 of average precision (0.750 with full "
        "labels, 0.500). nnUNetTrainerLopsided won back 0.100 (40% of it).",
        "The audit of these labels, in which 121 lesions are missing: of its first 50 candidates 44 are such lesions. "
        "It estimates that 70% of the lesions are missing; 60% are.",
    ]


@pytest.mark.parametrize(
    ("differences", "verdict"),
    [
        ((CLEAR[0], Difference(0.1, (-0.1, 0.2))), "an interval holds 0: with other test cases"),
        ((CLEAR[0], Difference(0.1, (0.0, 0.2))), "an interval holds 0: with other test cases"),
        ((CLEAR[0], Difference(0.1, None)), "an interval holds 0: with other test cases"),
        ((CLEAR[0], Difference(-0.1, (-0.2, -0.05))), "the trainings disagree on which is better"),
        ((Difference(-0.1, (-0.2, -0.05)),) * 2, "no interval holds 0"),
    ],
)
def test_no_more_is_claimed_than_was_seen(differences: tuple[Difference, ...], verdict: str) -> None:
    assert verdict in said(differences)[0]


def test_what_is_undefined_is_not_made_up() -> None:
    undefined = answers(
        "Half", whole=None, left=(0.1, 0.1), recipe=(0.1, 0.1), differences=[Difference(None, None)], audit=None
    )
    assert undefined == ["The difference between the two losses is undefined, so nothing is said of it."]
    assert spread((None, None)) == 0.0
