"""nnunet_lopsided.demo.demo_page: what the page says is what the evaluations hold."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from nnunet_lopsided.demo.arms import FOLDS, arms_of, trainings
from nnunet_lopsided.demo.commands import PROFILE, Commands
from nnunet_lopsided.demo.demo_page import write_page
from nnunet_lopsided.demo.settings import DemoSettings
from nnunet_lopsided.demo.steps import Spent
from nnunet_lopsided.evaluation import evaluate_folder
from nnunet_lopsided.evaluation.comparison import compare
from nnunet_lopsided.evaluation.comparison_writing import write_comparison
from nnunet_lopsided.evaluation.rules import profile_rules
from nnunet_lopsided.evaluation.saved import read_evaluation
from nnunet_lopsided.evaluation.writing import write_results
from nnunet_lopsided.images import Geometry, Image, write_image
from nnunet_lopsided.nnunet.raw import RawDataset

GEOMETRY = Geometry((1.0,) * 3, (0.0,) * 3, (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0))
# Of eight cases with two lesions each, one far from the other.
SHAPE, N_CASES = (2, 6, 12), 8
LESIONS = np.zeros(SHAPE, np.uint8)
LESIONS[:, 1:3, 1:3] = LESIONS[:, 1:3, 8:10] = 1
# Which arm finds how much: the whole, nothing beyond the first lesion, the whole in all but one case.
FOUND = {"full": N_CASES, "censored": 0, "lopsided": N_CASES - 1}


@pytest.fixture
def commands(nnunet_paths: Path) -> Commands:
    """A demo whose steps have run."""
    settings = DemoSettings(n_train=4, n_test=N_CASES)
    for name in ("Dataset901_Full", "Dataset902_Censored"):
        raw = nnunet_paths / "nnUNet_raw" / name
        for part in ("imagesTs", "labelsTs", "imagesTr", "labelsTr"):
            (raw / part).mkdir(parents=True)
        content = {"channel_names": {"0": "T1"}, "labels": {"background": 0, "lesion": 1}, "file_ending": ".nii.gz"}
        (raw / "dataset.json").write_text(json.dumps({**content, "numTraining": 0}))
        (raw / "censoring.json").write_text(json.dumps({"n_censored": 7, "n_lesions": 15}))
        for file in ("imagesTr/d_0000.nii.gz", "labelsTr/d.nii.gz"):
            (raw / file).touch()
        for i in range(N_CASES):
            write_image(raw / "imagesTs" / f"c{i}_0000.nii.gz", Image((9 * LESIONS + 1).astype(np.int16), GEOMETRY))
            write_image(raw / "labelsTs" / f"c{i}.nii.gz", Image(LESIONS, GEOMETRY))
    demo = Commands(
        settings=settings, folder=nnunet_paths, arms=arms_of(settings), parent="2d", configuration="2d_small"
    )
    labels = nnunet_paths / "nnUNet_raw" / "Dataset901_Full" / "labelsTs"
    (nnunet_paths / "logs").mkdir()
    (nnunet_paths / "comparison").mkdir()
    for arm, fold in trainings(demo.arms):
        predictions = nnunet_paths / "predictions" / arm.of_fold(fold)
        predictions.mkdir(parents=True)
        for i in range(N_CASES):
            probability = 0.9 * LESIONS.astype(np.float32)
            probability[:, :, 6:] *= i < FOUND[arm.name]
            np.savez(predictions / f"c{i}.npz", probabilities=np.stack([1 - probability, probability]))
        shutil.copy(labels.parent / "dataset.json", predictions)
        result = evaluate_folder(labels, predictions, rules=profile_rules(PROFILE), n_replicates=100)
        demo.evaluation(arm, fold).parent.mkdir(exist_ok=True)
        write_results(result, demo.evaluation(arm, fold))
        (nnunet_paths / "logs" / f"train-{arm.of_fold(fold)}.json").write_text(json.dumps({"command": ["a", "<b>"]}))
    for fold in FOLDS:
        models = [read_evaluation(demo.evaluation(arm, fold), arm.title) for arm in demo.arms if fold in arm.folds]
        write_comparison(compare(models, 100), demo.comparison(fold))
    reviewed = [{"n": 10, "precision": 1.0, "asked": 10}, {"n": 40, "precision": 0.75, "asked": 50}]
    score = {
        "missed_lesions": 7,
        "rankings": [{"reviewed": reviewed}],
        "miss_rates": [{"estimated": 0.6, "true": 7 / 15}],
    }
    (nnunet_paths / "audit" / "score").mkdir(parents=True)
    (nnunet_paths / "audit" / "score" / "audit_score.json").write_text(json.dumps(score))
    return demo


def test_the_page_and_the_tables(commands: Commands) -> None:
    spent = {f"train-{arm.of_fold(fold)}": Spent(61.2, 59.7) for arm, fold in trainings(commands.arms)}
    page = write_page(commands, RawDataset(commands.folder / "nnUNet_raw" / "Dataset901_Full"), spent)
    text = page.read_text(encoding="utf-8")
    with (commands.folder / "table.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["arm"], row["fold"], row["max sensitivity"][:5], row["training, s"]) for row in rows] == [
        ("nnU-Net on whole labels", "0", "1.000", "61"),
        ("nnU-Net", "0", "0.500", "61"),
        ("nnU-Net", "1", "0.500", "61"),
        ("Lopsided", "0", "0.938", "61"),
        ("Lopsided", "1", "0.938", "61"),
    ]
    markdown = (commands.folder / "table.md").read_text()
    for said in (
        "50% of lesions missing at random, first fold: missing lesions cost nnU-Net's loss 0.500 of average precision",
        "nnUNetTrainerLopsided won back 0.438 (88% of it)",
        "of its first 40 candidates 30 are such lesions. It estimates that 60% of the lesions are missing; 47% are.",
    ):
        assert said in markdown
        assert said.replace("'", "&#39;") in text
    differences = next(line for line in markdown.splitlines() if line.startswith("| Lopsided minus nnU-Net "))
    assert [cell.strip() for cell in differences.split("|")][2:4] == ["0", "+0.438"]
    assert [cell.strip() for cell in differences.split("|")][-3:-1] == ["7", "0"]
    for link in ("audit/audit.html", "comparison/fold_1/compare.html", "evaluation/lopsided-0/report.html"):
        assert f'href="{link}"' in text
    assert "a &#39;&lt;b&gt;&#39;" in text
    assert "src=http" not in text
