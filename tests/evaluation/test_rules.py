"""nnunet_lopsided.evaluation.rules."""

from dataclasses import replace

import pytest

from nnunet_lopsided.errors import InputError
from nnunet_lopsided.evaluation import EvaluationRules
from nnunet_lopsided.evaluation.rules import profile_rules


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("threshold", 0.0),
        ("threshold", 1.1),
        ("threshold", float("nan")),
        ("match", "nearest"),
        ("distance", "voxel"),
        ("duplicates", "count"),
        ("tolerance_mm", -1.0),
        ("tolerance_mm", float("inf")),
        ("connectivity", 7),
        ("diameter_edges_mm", (3.0, 3.0)),
        ("diameter_edges_mm", (0.0, 3.0)),
        ("diameter_edges_mm", (3.0, float("inf"))),
        ("probability_bins", 1),
        ("dice", "mean"),
        ("min_lesion_mm3", -1.0),
        ("dilation_voxels", -1),
        ("dilation_voxels", 1.5),
        ("dilation_voxels", 1),  # the distance of a centroid is to the lesion itself
        ("join_dilated", True),
        ("fp_per_case", (1.0, 0.5)),
        ("profile", "brats"),
        ("confidence", "median"),
        ("min_candidate_voxels", 0),
        ("min_candidate_voxels", 1.5),
    ],
)
def test_refuses(name, value):
    with pytest.raises(InputError, match=name):
        EvaluationRules(**{name: value})


def test_profiles():
    assert profile_rules("paper") == EvaluationRules()
    assert profile_rules("paper").changes == {}
    assert replace(profile_rules("lesions"), confidence="mean", profile="paper") == EvaluationRules()
    assert profile_rules("lesions").confidence != "mean"
    rules = profile_rules("brats-mets-2023", tolerance_mm=2.0, threshold=0.4)
    assert (rules.match, rules.dilation_voxels, rules.join_dilated, rules.min_lesion_mm3) == ("overlap", 1, True, 2.0)
    assert rules.changes == {"threshold": 0.4, "tolerance_mm": 2.0}
    with pytest.raises(
        InputError,
        match="profile must be one of paper, paper-letter, brats-mets-2023, brats-mets-2025, lesions, got 'picai'",
    ):
        profile_rules("picai")
