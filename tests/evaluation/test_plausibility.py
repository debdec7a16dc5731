"""nnunet_lopsided.evaluation.plausibility, and what loading refuses by it."""

from pathlib import Path

import numpy as np
import pytest

from nnunet_lopsided.errors import InputError
from nnunet_lopsided.evaluation import evaluate_folder
from nnunet_lopsided.evaluation.loading import LesionClass, lesion_class
from nnunet_lopsided.evaluation.plausibility import (
    UnfitChannels,
    check_not_swapped,
    is_of_another_threshold,
    within_0_and_1,
)
from nnunet_lopsided.evaluation.report import report_html
from nnunet_lopsided.evaluation.summary_json import summary_dict


@pytest.fixture
def alone(two_cases):
    """The two cases without label maps beside the arrays."""
    for path in two_cases.predictions.glob("*.nii.gz"):
        path.unlink()
    return two_cases


def probabilities(folders, case):
    return np.load(folders.predictions / f"{case}.npz")["probabilities"]


def rewrite(folders, case, channels):
    np.savez_compressed(folders.predictions / f"{case}.npz", probabilities=channels)


def evaluate(folders, **options):
    return evaluate_folder(folders.references, folders.predictions, n_replicates=0, **options)


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", ">f4", "g"])
def test_within_0_and_1(dtype):
    above, nothing = np.nextafter(np.ones(1, dtype), 2), np.zeros((0, 2), dtype)
    tells = dtype in ("f2", "f4", "f8")
    for sound in ([0.0, 1.0], [0.25, 0.5]):
        assert within_0_and_1(np.array(sound, dtype)) == tells
    assert within_0_and_1(nothing) == tells
    for wrong in (above[0], -0.25, np.nan, -np.nan, np.inf, -np.inf, 2.0):
        for place in range(3):
            values = np.array([0.5, 0.0, 1.0], dtype)
            values[place] = wrong
            assert not within_0_and_1(values)
    turned = np.array([[0.0, 1.0], [0.5, 0.25]], dtype)[::-1].T
    assert within_0_and_1(turned) == tells


def test_swapped_channels(alone):
    assert evaluate(alone).summary.counts.cases == 2
    rewrite(alone, "a", probabilities(alone, "a")[::-1])
    with pytest.raises(InputError, match=r"case a: .*a\.npz gives lesion a probability of at least 0\.5 in 100%"):
        evaluate(alone)


def test_nan_in_another_channel(alone):
    channels = probabilities(alone, "a").copy()
    channels[0, 0, 0, 0] = np.nan
    rewrite(alone, "a", channels)
    with pytest.raises(
        InputError, match=r"case a: expected finite probabilities .* nan to nan in channel 0 in .*a\.npz"
    ):
        evaluate(alone)


def test_channels_that_do_not_sum_to_1(alone):
    rewrite(alone, "a", probabilities(alone, "a") * 0.5)
    with pytest.raises(InputError, match=r"case a: 2 channels that do not sum to 1: they are no softmax in .*a\.npz"):
        evaluate(alone)


def test_regions_need_not_sum_to_1(tmp_path):
    content = (
        '{"labels": {"background": 0, "whole": [1, 2], "core": 2}, "regions_class_order": [1, 2], "channel_names":'
    )
    (tmp_path / "dataset.json").write_text(content + ' {"0": "T1"}, "numTraining": 1, "file_ending": ".nii.gz"}')
    target = lesion_class("whole", tmp_path / "dataset.json")
    channels = [np.full((2, 3, 4), 0.9), np.full((2, 3, 4), 0.8)]
    assert target.probability(channels, 2).min() == 0.9
    channels[1][0, 0, 0] = 1.5
    with pytest.raises(UnfitChannels, match=r"found 0\.8 to 1\.5 in channel 1"):
        target.probability(channels, 2)


def test_a_poor_model_is_not_called_swapped():
    reference = np.zeros((4, 10, 10), bool)
    reference[1:3, 2:5, 2:5] = True
    everywhere = np.full(reference.shape, 0.6)
    check_not_swapped(Path("a.npz"), everywhere, reference)  # not less inside than outside
    check_not_swapped(Path("a.npz"), np.where(reference, 0.1, 0.4), reference)  # misses all, calls nothing
    check_not_swapped(Path("a.npz"), everywhere, np.zeros_like(reference))  # nothing can be told
    with pytest.raises(InputError, match="in another order"):
        check_not_swapped(Path("a.npz"), np.where(reference, 0.1, 0.9), reference)


def test_what_a_network_that_hardly_trained_says_is_never_refused():
    """It may call all lesion, most of it in noise, or all that is dark: no proof of swapped channels."""
    reference = np.zeros((6, 20, 20), bool)
    reference[1:4, 2:6, 2:6] = True
    rng = np.random.default_rng(0)
    noise = np.clip(0.55 + 0.2 * rng.standard_normal(reference.shape), 0, 1)
    noise[reference] = np.clip(noise[reference] - 0.15, 0, 1)
    dark = np.full(reference.shape, 0.9)
    dark[:, :15] = 0.3  # all tissue is spared, lesions are in it
    dark[:, :15][rng.random((6, 15, 20)) < 0.6] = 0.7
    dark[reference] = 0.3
    for p in (noise, dark):
        assert check_not_swapped(Path("a.npz"), p, reference)
    one = np.zeros_like(reference)
    one[2, 2, 2] = True  # nine voxels and fewer may be spared by chance
    assert check_not_swapped(Path("a.npz"), np.where(one, 0.1, 0.9), one)
    assert not check_not_swapped(Path("a.npz"), np.where(reference, 0.9, 0.6), reference)


def test_what_only_looks_swapped_is_told(alone):
    """The first case's lesion has 28 voxels; half of the background is spared with it."""
    p = np.full((8, 10, 12), 0.8, np.float32)
    p[:3] = 0.2
    alone.write_npz("a", p)
    result = evaluate(alone)
    assert result.look_swapped == ("a",)
    assert summary_dict(result)["details"]["probabilities_look_swapped"] == ["a"]
    assert "a network that has hardly trained? a." in report_html(result, summary_dict(result))


def test_a_label_map_of_another_threshold_is_not_of_another_orientation():
    rng = np.random.default_rng(0)
    p = rng.random((6, 20, 20)) * 0.05
    p[1:3, 2:8, 2:8] = 0.2
    assert is_of_another_threshold(p, p >= 0.1)
    assert is_of_another_threshold(p, p >= 0.04)
    assert not is_of_another_threshold(p, (p >= 0.1)[:, ::-1])
    assert not is_of_another_threshold(np.zeros_like(p), p >= 0.1)


def test_label_maps_made_at_a_low_threshold_are_accepted(two_cases):
    p = np.zeros((8, 10, 12), np.float32)
    p[1:4, 1:4, 1:4] = 0.3
    two_cases.write_npz("a", p)
    two_cases.write_image("a.nii.gz", (p >= 0.2).astype(np.uint8))
    assert evaluate(two_cases).cases[0].segmentation_overlap.predicted == 27
    two_cases.write_image("a.nii.gz", np.ascontiguousarray((p >= 0.2).astype(np.uint8)[:, ::-1]))
    with pytest.raises(InputError, match="only 0 of 27 voxels labelled lesion"):
        evaluate(two_cases)


def test_labels_saved_as_floating_point_are_told(tmp_path, two_cases):
    for path in two_cases.predictions.iterdir():
        path.unlink()
    reference = np.zeros((8, 10, 12), np.float32)
    reference[1:4, 1:4, 1:4] = 1
    for case in "ab":
        two_cases.write_image(f"{case}.nii.gz", reference)
    assert evaluate(two_cases).looks_hard
    two_cases.write_image("b.nii.gz", reference * np.float32(0.75))
    assert not evaluate(two_cases).looks_hard


def test_without_a_scheme_two_channels_must_sum_to_1():
    with pytest.raises(UnfitChannels, match="give --dataset-json"):
        LesionClass().probability([np.full((2, 2), 0.2), np.full((2, 2), 0.2)], 2)
