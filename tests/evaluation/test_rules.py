"""nnunet_lopsided.evaluation.rules."""

import pytest

from nnunet_lopsided.errors import InputError
from nnunet_lopsided.evaluation import EvaluationRules


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
        ("probability_bins", 1),
    ],
)
def test_refuses(name, value):
    with pytest.raises(InputError, match=name):
        EvaluationRules(**{name: value})
