"""Other tools on cases where their rules and ours coincide; they need an environment of their own: ``make peers``.

panoptica: matches by overlap, counts and Dice, when no component touches two of the other side.
picai_eval: average precision over candidates that overlap a lesion, likewise, when every lesion is detected (it leaves
missed lesions out of its sums in another way).
picai_eval, dynamic: the candidates of its detection maps, where neither number nor size is limited.
brats_evaluation: the official scores of the metastasis challenge since 2025.
"""

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from nnunet_lopsided.evaluation import EvaluationRules, evaluate_case, profile_rules, summarize
from nnunet_lopsided.evaluation.dynamic_candidates import dynamic_candidates
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


@pytest.mark.parametrize("seed", range(40))
def test_dynamic_candidates_of_picai_eval(seed):
    pytest.importorskip("picai_eval")
    from report_guided_annotation import extract_lesion_candidates

    rng = np.random.default_rng(seed)
    p = gaussian_filter(rng.random(rng.integers(4, 18, 3)) ** 4, rng.choice([0.6, 1.0, 1.5]))
    p = (p / p.max() * rng.choice([0.3, 0.7, 1])).astype(rng.choice(["float32", "float64"]))
    if seed % 3 == 0:
        p = np.round(p, 1)
    _, confidences, numbers = extract_lesion_candidates(
        p.copy(), threshold="dynamic-v2", min_voxels_detection=0, num_lesions_to_extract=10**6
    )
    # They stop at a peak of .01, we at the threshold.
    theirs = {tuple(np.flatnonzero(numbers == i)) for i, peak in confidences if peak >= p.dtype.type(0.1)}
    ours = dynamic_candidates(p, 0.1, (1, 1, 1))
    assert {tuple(ours.select([k + 1])) for k in range(len(ours))} == theirs


def entangled(seed):
    """Lesions and candidates that touch several of the other side."""
    rng = np.random.default_rng(seed)
    field = gaussian_filter(rng.random((10, 30, 30)), 1.2)
    other = field + rng.choice([0.3, 0.7]) * (gaussian_filter(rng.random(field.shape), 1.2) - 0.5)
    return field > np.quantile(field, 0.93), np.where(other > np.quantile(other, 0.92), 0.8, 0.2).astype(np.float32)


@pytest.mark.parametrize("seed", range(15))
def test_the_metastasis_challenge_since_2025(seed, tmp_path):
    package = pytest.importorskip("brats_evaluation")
    import pandas
    from brats_evaluation.metrics_parser import parse_mets_results
    from panoptica import Panoptica_Evaluator

    config = Path(package.__file__).parent / "configs" / "config_mets.yaml"
    evaluator, rules = Panoptica_Evaluator.load_from_config(str(config)), profile_rules("brats-mets-2025")
    cases, records = [], []
    for i in range(3):
        reference, p = entangled(10 * seed + i)
        theirs = evaluator.evaluate(3 * (p >= 0.5).astype(np.uint8), 3 * reference.astype(np.uint8))["et"]
        case = evaluate_case(reference, p, (1, 1, 1), rules, case=str(i))
        counts = (case.count(Status.TRUE_POSITIVE), case.count(Status.FALSE_POSITIVE), int(case.missed.sum()))
        assert counts == (theirs.tp, theirs.fp, theirs.fn)
        assert summarize([case], rules, 0).metrics.f1 == pytest.approx(theirs.rq)
        assert np.nanmean(case.matches.dice) == pytest.approx(theirs.sq_dsc)
        cases.append(case)
        records.append({"et": theirs.to_dict(True), "subject_name": str(i)})
    (tmp_path / "scores.json").write_text(json.dumps({"metrics": records, "missings": []}, default=float))
    parse_mets_results(str(tmp_path / "scores.json"), rules.small_below_mm3, 0.1, str(tmp_path / "scores.csv"))
    mean = pandas.read_csv(tmp_path / "scores.csv", index_col="subject_id").loc["mean"]
    small, large = summarize(cases, rules, 0).by_volume
    for group in (small, large):
        prefix = f"{group.name}_instance"
        assert group.f1_case_mean == pytest.approx(mean[f"{prefix}_f1_et"])
        assert group.sensitivity_case_mean == pytest.approx(mean[f"{prefix}_rec_et"])
        assert group.precision_case_mean == pytest.approx(mean[f"{prefix}_prec_et"])
    assert large.lesion_wise_dice_case_mean == pytest.approx(mean["lesionwise_dsc_mean_et"])


# The regions of the challenge: what their labels are in its files.
REGIONS = {"et": (3,), "rc": (4,), "tc": (1, 3), "wt": (1, 2, 3)}
# A column of the challenge's table, and where ours stands in a group of lesions by volume.
BY_VOLUME = {"f1": "f1_case_mean", "rec": "sensitivity_case_mean", "prec": "precision_case_mean"}


def label_maps(rng):
    """Reference and prediction with blobs of all labels, some of a few voxels; either may be empty, or lack a class."""
    shape = (10, 26, 26)

    def drawn(field):
        labels = np.zeros(shape, np.uint8)
        level = np.quantile(field, rng.choice([0.9, 0.97, 0.995]))
        kinds = rng.choice([1, 2, 3, 3, 4, 0], size=(1, 3, 3))
        blocks = np.kron(kinds, np.ones((10, 9, 9), int))[:, :26, :26]
        labels[field > level] = blocks[field > level]
        return labels if rng.random() > 0.15 else np.zeros(shape, np.uint8)

    field = gaussian_filter(rng.random(shape), 1.0)
    other = field + rng.choice([0.0, 0.3, 0.8]) * (gaussian_filter(rng.random(shape), 1.0) - 0.5)
    return drawn(field), drawn(other)


@pytest.mark.parametrize("seed", range(12))
def test_the_whole_table_of_the_metastasis_challenge(seed, tmp_path):
    """All columns but surface distances, of all regions, through files with thick slices: per case and as means."""
    package = pytest.importorskip("brats_evaluation")
    import nibabel
    import pandas
    from brats_evaluation.evaluation import evaluate_single_exam
    from brats_evaluation.metrics_parser import parse_mets_results
    from panoptica import Panoptica_Evaluator

    evaluator = Panoptica_Evaluator.load_from_config(
        str(Path(package.__file__).parent / "configs" / "config_mets.yaml")
    )
    rules, rng, spacing = profile_rules("brats-mets-2025"), np.random.default_rng(seed), (2.0, 1.0, 0.5)
    records, maps = [], [label_maps(rng) for _ in range(6)]
    for i, pair in enumerate(maps):
        paths = [str(tmp_path / f"{name}{i}.nii.gz") for name in ("reference", "prediction")]
        for path, array in zip(paths, pair, strict=True):
            nibabel.save(nibabel.Nifti1Image(array.T, np.diag([*spacing[::-1], 1])), path)
        record = evaluate_single_exam(paths[1], paths[0], str(i), evaluator)
        assert "error" not in record, record
        records.append(record)
    (tmp_path / "scores.json").write_text(json.dumps({"metrics": records, "missings": []}, default=float))
    parse_mets_results(str(tmp_path / "scores.json"), rules.small_below_mm3, 0.1, str(tmp_path / "scores.csv"))
    table = pandas.read_csv(tmp_path / "scores.csv", index_col="subject_id")

    def same(ours, row, column):
        theirs = table.loc[row].get(column, np.nan)
        assert (np.nan if ours is None else ours) == pytest.approx(theirs, nan_ok=True, abs=1e-9), (row, column)

    for region, values in REGIONS.items():
        cases = [
            evaluate_case(np.isin(reference, values), np.isin(predicted, values), spacing, rules, case=str(i))
            for i, (reference, predicted) in enumerate(maps)
        ]
        for of, row in [*(([case], case.case) for case in cases), (cases, "mean")]:
            summary = summarize(of, rules, 0)
            if row != "mean":  # of all lesions ours pools the cases
                found = of[0].count(Status.TRUE_POSITIVE), of[0].count(Status.FALSE_POSITIVE), int(of[0].missed.sum())
                for name, n in zip(("tp", "fp", "fn"), found, strict=True):
                    same(n, row, f"all_instance_{name}_{region}")
                same(summary.metrics.f1, row, f"all_instance_f1_{region}")
                same(summary.metrics.max_sensitivity, row, f"all_instance_rec_{region}")
                same(summary.metrics.precision_at_max_sensitivity, row, f"all_instance_prec_{region}")
            same(summary.metrics.voxel_dice_at_threshold, row, f"global_dsc_{region}")
            for group in summary.by_volume:
                for column, name in BY_VOLUME.items():
                    same(getattr(group, name), row, f"{group.name}_instance_{column}_{region}")
            same(summary.by_volume[1].lesion_wise_dice_case_mean, row, f"lesionwise_dsc_mean_{region}")
