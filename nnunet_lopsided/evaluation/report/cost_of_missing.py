"""What missing lesions cost, and who won it back, in a sentence: for studies and the demo."""

from __future__ import annotations

from collections.abc import Mapping

# Costs below this are not told from none: two trainings of one arm differ by more.
NO_COST = 0.01


def cost_in_words(
    labels: str, baseline: str, *, whole: float, left: float, others: Mapping[str, float], title: str
) -> str:
    """A sentence or two on a metric; more of it is better.

    Args:
        labels: what the labels lack; begins the sentence.
        baseline: the arm whose loss is the cost.
        whole: its metric with whole labels.
        left: its metric with these.
        others: the metric of other arms with these labels.
        title: the metric in words.

    Example:
        >>> cost_in_words("half", "CE", whole=0.7, left=0.5, others={"ours": 0.6}, title="mAP")
        'half: missing lesions cost CE 0.200 of mAP (0.700 with full labels, 0.500). ours won back 0.100 (50% of it).'
    """
    cost = whole - left
    if cost < NO_COST:
        sentence = f"{labels}: missing lesions cost {baseline} no {title} ({whole:.3f} with full labels, {left:.3f})."
    else:
        sentence = (
            f"{labels}: missing lesions cost {baseline} {cost:.3f} of {title} ({whole:.3f} with full labels, "
            f"{left:.3f})."
        )
    won = ", ".join(_won(arm, value - left, cost) for arm, value in others.items())
    return f"{sentence} {won}." if won else sentence


def _won(arm: str, won: float, cost: float) -> str:
    if cost < NO_COST:
        return f"{arm} is {abs(won):.3f} {'above' if won >= 0 else 'below'} it"
    if won < 0:
        return f"{arm} lost {-won:.3f} more"
    return f"{arm} won back {won:.3f} ({won / cost:.0%} of it)"
