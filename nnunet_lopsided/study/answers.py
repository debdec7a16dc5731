"""What a study says, in a sentence per kind of labels: what missing lesions cost, and who won how much of it back."""

from __future__ import annotations

from collections.abc import Sequence

from nnunet_lopsided.evaluation.report.cost_of_missing import cost_in_words
from nnunet_lopsided.study.arms import FULL
from nnunet_lopsided.study.results import Cell


def answers(cells: Sequence[Cell], baseline: str, metric: str = "map", title: str = "average precision") -> list[str]:
    """Sentences on a metric, for every kind of labels that lacks lesions.

    Args:
        cells: rows of one dataset in one configuration.
        baseline: the arm whose loss is the cost.
        metric: of summary.json; more is better.
        title: the metric in words.

    Returns:
        One sentence for every kind of labels but full ones, in the order of the rows; of arms and labels that are
        evaluated. Empty where the baseline has not been evaluated with full labels.
    """
    means = {(cell.labels, cell.arm): mean for cell in cells if (mean := cell.mean(metric)) is not None}
    whole = means.get((FULL, baseline))
    if whole is None:
        return []
    n_runs = {(cell.labels, cell.arm): len(cell.runs) for cell in cells}
    sentences = []
    for labels in dict.fromkeys(cell.labels for cell in cells if cell.labels != FULL):
        left = means.get((labels, baseline))
        if left is None:
            continue
        others = {arm: mean for (of, arm), mean in means.items() if of == labels and arm != baseline}
        sentence = cost_in_words(labels, baseline, whole=whole, left=left, others=others, title=title)
        if min(n_runs[key] for key in means if key[0] in (FULL, labels)) == 1:
            sentence += " A single training of some arm: another one would give other numbers."
        sentences.append(sentence)
    return sentences
