"""Other tools on cases where their rules and ours coincide; they need an environment of their own: ``make peers``.

panoptica: matches by overlap, counts and Dice, when no component touches two of the other side.
picai_eval: average precision over candidates that overlap a lesion, likewise, when every lesion is detected (it leaves
missed lesions out of its sums in another way).
"""

import numpy as np
import pytest

from nnunet_lopsided.evaluation import EvaluationRules, evaluate_case, summarize
from nnunet_lopsided.evaluation.matching import Status

SHAPE = (12, 48, 48)


def volumes(seed, miss=True):
    """Lesions in cells of their own, so that none meets two candidates: found (a voxel aside), missed, invented."""
    rng = np.random.default_rng(seed)
    reference, probability = np.zeros(SHAPE, bool), np.zeros(SHAPE, np.float32)
    for z in (1, 7):
        for y in range(1, 47, 9):
            for x in range(1, 47, 9):
                kind = rng.choice(
                    ["nothing", "found", "missed" if miss else "found", "false"], p=[0.5, 0.25, 0.1, 0.15]
                )
                size = rng.integers(2, 5, 3)
                box = tuple(slice(o, o + n) for o, n in zip((z, y, x), size, strict=True))
                if kind in ("found", "missed"):
                    reference[box] = True
                if kind in ("found", "false"):
                    shift = (0, 0, 1) if kind == "found" else (0, 0, 0)
                    moved = tuple(slice(b.start + s, b.stop + s) for b, s in zip(box, shift, strict=True))
                    probability[moved] = np.float32(rng.integers(2, 10) / 10)
    return reference, probability


@pytest.mark.parametrize("seed", range(20))
def test_panoptica_counts_and_dice(seed):
    panoptica = pytest.importorskip("panoptica")
    reference, probability = volumes(seed)
    evaluator = panoptica.Panoptica_Evaluator(
        expected_input=panoptica.InputType.SEMANTIC,
        instance_approximator=panoptica.ConnectedComponentsInstanceApproximator(),
        instance_matcher=panoptica.NaiveThresholdMatching(matching_threshold=1e-6),
        instance_metrics=[panoptica.Metric.DSC, panoptica.Metric.IOU],
        global_metrics=[panoptica.Metric.DSC],
    )
    theirs = evaluator.evaluate((probability >= 0.1).astype(np.uint8), reference.astype(np.uint8))["ungrouped"]
    for match in ("overlap", "centroid"):
        rules = EvaluationRules(match=match)
        ours = evaluate_case(reference, probability, (1, 1, 1), rules)
        summary = summarize([ours], rules, 0)
        counts = (ours.count(Status.TRUE_POSITIVE), ours.count(Status.FALSE_POSITIVE), int(ours.missed.sum()))
        assert counts == (theirs.tp, theirs.fp, theirs.fn)
        assert summary.metrics.f1 == pytest.approx(theirs.rq)
        assert summary.metrics.max_sensitivity == pytest.approx(theirs.rec)
        assert summary.metrics.precision_at_max_sensitivity == pytest.approx(theirs.prec)
        assert summary.metrics.tp_dice == pytest.approx(theirs.sq_dsc)
        assert summary.metrics.lesion_wise_dice == pytest.approx(summary.metrics.tp_dice * theirs.tp / sum(counts))
        assert summary.metrics.voxel_dice_at_threshold == pytest.approx(theirs.global_bin_dsc)


@pytest.mark.parametrize("seed", range(20))
def test_picai_eval_average_precision(seed):
    picai_eval = pytest.importorskip("picai_eval")
    pairs = [volumes(100 * seed + i, miss=False) for i in range(3)]
    theirs = picai_eval.evaluate(
        [probability for _, probability in pairs],
        [reference.astype(np.int32) for reference, _ in pairs],
        overlap_func=lambda detection, lesion: float((detection & lesion).any()),
        min_overlap=0.5,
        num_parallel_calls=1,
        verbose=0,
    )
    rules = EvaluationRules(match="overlap")
    cases = [evaluate_case(reference, probability, (1, 1, 1), rules) for reference, probability in pairs]
    ours = summarize(cases, rules, 0)
    assert ours.metrics.max_sensitivity == 1.0
    assert ours.counts.true_positives == theirs.num_lesions
    assert ours.metrics.map == pytest.approx(theirs.AP, abs=1e-6)
