"""The label value of a candidate."""

import numpy as np
import pytest

from nnunet_lopsided.audit.classes import channel_means, label_values
from nnunet_lopsided.lesions import find_lesions
from nnunet_lopsided.nnunet.dataset_json import LabelScheme


def test_means_over_components():
    components = find_lesions(np.array([[1, 1, 0, 1]]), (1, 1))
    channels = [np.array([[0.2, 0.4, 0.9, 0.5]]), np.array([[[0.8, 0.6, 0.1, 0.5]]])]
    assert channel_means(components, channels) == pytest.approx(np.array([[0.3, 0.7], [0.5, 0.5]]))


def test_softmax_takes_the_most_probable_lesion_class_even_below_background():
    scheme = LabelScheme({"rim": (1,), "core": (3,)}, None, has_regions=False)
    means = np.array([[0.7, 0.1, 0.2], [0.1, 0.6, 0.3]])
    assert label_values(scheme, means, (1, 3), 2).tolist() == [3, 1]


def test_regions_multiply():
    scheme = LabelScheme({"whole": (1, 2), "core": (2,)}, None, has_regions=True)
    # P(1) = whole x (1 - core), P(2) = whole x core.
    assert label_values(scheme, np.array([[0.9, 0.4], [0.9, 0.6]]), (1, 2), 2).tolist() == [1, 2]


def test_a_single_value_needs_no_channels():
    scheme = LabelScheme({"lesion": (2,)}, None, has_regions=False)
    assert label_values(scheme, None, (2,), 3).tolist() == [2, 2, 2]
