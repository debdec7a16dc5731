"""What came out of a demo, in sentences that need no table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from nnunet_lopsided.evaluation.report.cost_of_missing import cost_in_words
from nnunet_lopsided.pages.html import interval, number


@dataclass(frozen=True)
class Difference:
    """By how much one model is above another in a metric, on the same test cases.

    Attributes:
        difference: None: undefined.
        ends: of its 95% interval over test cases; None: undefined.
        why: it has no interval; None: it has one.
    """

    difference: float | None
    ends: Sequence[float] | None
    why: str | None = None

    @property
    def is_clear(self) -> bool:
        """Whether the interval leaves out 0."""
        return self.ends is not None and not self.ends[0] <= 0 <= self.ends[1]


@dataclass(frozen=True, kw_only=True)
class AuditScore:
    """How many lesions the audit gives back.

    Attributes:
        n_missing: lesions that were deleted from the audited labels.
        n_read: candidates that a reader looks at.
        n_right: how many of these are deleted lesions.
        estimated: share of missing lesions that the audit tells without knowing the truth; None: it tells none.
        true: share of the lesions that were deleted; None: there are no lesions.
    """

    n_missing: int
    n_read: int
    n_right: int
    estimated: float | None
    true: float | None


def answers(
    missing: str,
    *,
    whole: float | None,
    left: Sequence[float | None],
    recipe: Sequence[float | None],
    differences: Sequence[Difference],
    audit: AuditScore | None,
) -> list[str]:
    """The sentences.

    Args:
        missing: what the labels lack.
        whole: average precision of nnU-Net's loss with whole labels, in the first fold.
        left: of the same loss with labels that lack lesions, by fold.
        recipe: of the recipe with these.
        differences: the recipe minus nnU-Net's loss, on these labels, by fold.
        audit: of the labels that lack lesions; None: it could not be scored.
    """
    sentences = [_certainty(differences, [spread(values) for values in (left, recipe)])]
    if whole is not None and left[0] is not None and recipe[0] is not None:
        # On the same half of the cases: between halves lies more than between losses.
        sentences.append(
            cost_in_words(
                f"{missing}, first fold",
                "nnU-Net's loss",
                whole=whole,
                left=left[0],
                others={"nnUNetTrainerLopsided": recipe[0]},
                title="average precision",
            )
        )
    if audit is not None:
        sentence = (
            f"The audit of these labels, in which {audit.n_missing} lesions are missing: of its first {audit.n_read} "
            f"candidates {audit.n_right} are such lesions."
        )
        if audit.estimated is not None and audit.true is not None:
            sentence += f" It estimates that {audit.estimated:.0%} of the lesions are missing; {audit.true:.0%} are."
        sentences.append(sentence)
    return sentences


def spread(values: Sequence[float | None]) -> float:
    """By how much the trainings of an arm differ, the most and the least of them."""
    known = [value for value in values if value is not None]
    return max(known) - min(known) if known else 0.0


def _certainty(differences: Sequence[Difference], spreads: Sequence[float]) -> str:
    """How often and by how much the recipe won, and how much of that may be chance."""
    known = [one.difference for one in differences if one.difference is not None]
    if len(known) < len(differences) or not known:
        return "The difference between the two losses is undefined, so nothing is said of it."
    each = " and ".join(_in_words(one) for one in differences)
    n_won = sum(value > 0 for value in known)
    if 0 < n_won < len(known):
        verdict = "the trainings disagree on which is better, so this demo does not tell"
    elif all(one.is_clear for one in differences):
        verdict = "no interval holds 0: with other test cases it would most likely have the same sign"
    else:
        verdict = "an interval holds 0: with other test cases it could be the other way round"
    return (
        f"In {n_won} of {len(known)} trainings the default recipe is above nnU-Net's loss; by average precision the "
        f"difference is {each}, on the mean {number(fmean(known), '+')}; {verdict}. Two trainings of the same kind, on "
        f"other halves of the cases, differ by up to {max(spreads):.3f}."
    )


def _in_words(one: Difference) -> str:
    ends = f" (95% interval {interval(one.ends, '+')})" if one.ends is not None else " (no interval)"
    return number(one.difference, "+") + ends
