"""Labels of probabilities. What nnU-Net's predictor gives: tests/test_end_to_end.py."""

from types import SimpleNamespace

import numpy as np
import pytest
from nnunetv2.utilities.label_handling.label_handling import LabelManager

from nnunet_lopsided.nnunet.network import Network, reason_of


@pytest.mark.parametrize(
    ("labels", "order", "probabilities", "expected"),
    [
        # The highest; of equal ones the first, which is background.
        ({"background": 0, "lesion": 1}, None, [[0.75, 0.5, 0.25], [0.25, 0.5, 0.75]], [0, 0, 1]),
        ({"background": 0, "a": 1, "b": 2}, None, [[0.4, 0.1], [0.3, 0.5], [0.3, 0.4]], [0, 1]),
        # It is no class.
        ({"background": 0, "lesion": 1, "ignore": 2}, None, [[0.2, 0.9], [0.8, 0.1]], [1, 0]),
        # Regions above one half, later ones over earlier ones; the order says which labels they become.
        (
            {"background": 0, "whole": (1, 2), "core": 2},
            [1, 2],
            [[0.5, 0.9, 0.6, 0.1], [0.5, 0.1, 0.7, 0.8]],
            [0, 1, 2, 2],
        ),
        ({"background": 0, "whole": (1, 2), "core": 2}, [2, 1], [[0.9], [0.1]], [2]),
    ],
)
def test_label_maps(labels, order, probabilities, expected):
    network = Network.__new__(Network)
    network._predictor = SimpleNamespace(label_manager=LabelManager(labels, order))
    found = network.label_map(np.array(probabilities, np.float32)[:, None, None])
    assert found.dtype == np.uint8
    assert found.ravel().tolist() == expected


def test_many_classes_need_two_bytes():
    network = Network.__new__(Network)
    labels = {"background": 0} | {f"c{i}": i for i in range(1, 300)}
    network._predictor = SimpleNamespace(label_manager=LabelManager(labels, None))
    probabilities = np.zeros((300, 1, 1, 1), np.float32)
    probabilities[299] = 1
    found = network.label_map(probabilities)
    assert (found.dtype, found.ravel().tolist()) == (np.uint16, [299])


def test_reasons():
    assert reason_of(RuntimeError("first\n\n  last \n")) == "last"
    assert reason_of(AssertionError()) == "AssertionError"
