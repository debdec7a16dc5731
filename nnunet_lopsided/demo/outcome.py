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


@dataclass(frozen=True)
class AuditScore:
    """How many lesions the audit gives back.

    Attributes:
        n_missing: lesions that were deleted from the audited labels.
        n_read: candidates that a reader looks at.
        n_right: how many of these are deleted lesions.
    """

    n_missing: int
    n_read: int
    n_right: int


def answers(
    missing: str,
    *,
    whole: Sequence[float | None],
    left: Sequence[float | None],
    recipe: Sequence[float | None],
    differences: Sequence[Difference],
    audit: AuditScore | None,
) -> list[str]:
    """The sentences.

    Args:
        missing: what the labels lack.
        whole: average precision of nnU-Net's loss with whole labels, of every training.
        left: of the same loss with labels that lack lesions.
        recipe: of the recipe with these.
        differences: the recipe minus nnU-Net's loss, on these labels, by fold.
        audit: of the labels that lack lesions; None: it could not be scored.
    """
    sentences = []
    known = [[value for value in values if value is not None] for values in (whole, left, recipe)]
    if all(known):
        of_whole, of_left, of_recipe = map(fmean, known)
        sentences.append(
            cost_in_words(
                missing,
                "nnU-Net's loss",
                whole=of_whole,
                left=of_left,
                others={"nnUNetTrainerLopsided": of_recipe},
                title="average precision",
            )
            + f" Of {len(whole)}, {len(left)} and {len(recipe)} trainings."
        )
    sentences.append(_certainty(differences, [spread(values) for values in (whole, left, recipe)]))
    if audit is not None:
        sentences.append(
            f"The audit of these labels, in which {audit.n_missing} lesions were missing: of its first {audit.n_read} "
            f"candidates {audit.n_right} are such lesions."
        )
    return sentences


def spread(values: Sequence[float | None]) -> float:
    """By how much the trainings of an arm differ, the most and the least of them."""
    known = [value for value in values if value is not None]
    return max(known) - min(known) if known else 0.0


def _certainty(differences: Sequence[Difference], spreads: Sequence[float]) -> str:
    """How much of the gain may be chance."""
    known = [one for one in differences if one.difference is not None]
    if not known:
        return "The difference between the two losses is undefined, so nothing is said of it."
    each = ", ".join(_in_words(one) for one in known)
    chance = f"Two trainings of the same kind, on other halves of the cases, differ by up to {max(spreads):.3f}."
    signs = {(one.difference or 0) > 0 for one in known}
    if len(signs) > 1:
        verdict = "the trainings disagree on which is better, so this demo does not tell"
    elif all(one.is_clear for one in known):
        verdict = "no interval holds 0: with other test cases it would most likely have the same sign"
    else:
        verdict = "an interval holds 0: with other test cases it could be the other way round"
    return f"The recipe minus nnU-Net's loss, by fold: {each}; {verdict}. {chance}"


def _in_words(one: Difference) -> str:
    ends = f" (95% interval {interval(one.ends, '+')})" if one.ends is not None else " (no interval)"
    return number(one.difference, "+") + ends
