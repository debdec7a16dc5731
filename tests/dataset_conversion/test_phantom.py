"""Procedural brains: shapes, determinism, what is drawn, and the dataset on disk."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nnunet_lopsided.dataset_conversion.phantom import (
    SEQUENCES,
    PhantomSettings,
    case_seed,
    make_phantom,
    write_phantom_dataset,
)
from nnunet_lopsided.errors import InputError
from nnunet_lopsided.images import read_image
from nnunet_lopsided.nnunet.raw import RawDataset

BRAVO, SPIN_ECHO = 1, 2
SMALL: dict[str, Any] = {"shape": (12, 40, 40), "spacing_mm": (4.0, 3.0, 3.0)}


@pytest.fixture
def raw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for variable in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        (tmp_path / variable).mkdir()
        monkeypatch.setenv(variable, str(tmp_path / variable))
    return tmp_path / "nnUNet_raw"


def check_invariants(phantom) -> None:
    brain = phantom.images[0] > 0
    assert all(((image > 0) == brain).all() for image in phantom.images), "channels must share one brain mask"
    assert phantom.images.min() >= 0
    assert set(np.unique(phantom.label)) <= {0, 1}
    assert not phantom.label[~brain].any(), "lesions lie within the brain"
    assert [p.id for p in phantom.planted] == list(range(1, len(phantom.lesions) + 1))


def test_arrays_have_the_documented_shapes_and_types() -> None:
    phantom = make_phantom((24, 64, 64), (2, 2, 2), seed=0)
    assert phantom.images.shape == (len(SEQUENCES), 24, 64, 64)
    assert phantom.images.dtype == np.int16
    assert phantom.label.shape == (24, 64, 64)
    assert phantom.label.dtype == np.uint8
    assert phantom.spacing_mm == (2.0, 2.0, 2.0)
    assert phantom.lesions.spacing_mm == (2.0, 2.0, 2.0)
    assert 0.2 < (phantom.images[0] > 0).mean() < 0.8, "a brain with space around it"
    check_invariants(phantom)


@settings(max_examples=25, deadline=None)
@given(
    shape=st.tuples(*[st.integers(4, 24)] * 3),
    spacing=st.tuples(*[st.floats(0.4, 8)] * 3),
    seed=st.integers(0, 2**32),
)
def test_any_shape_and_spacing_gives_a_valid_case(shape, spacing, seed) -> None:
    check_invariants(make_phantom(shape, spacing, seed))


def test_one_seed_is_one_case() -> None:
    one, same, other = (make_phantom((12, 40, 40), (4, 3, 3), seed) for seed in (3, 3, 4))
    np.testing.assert_array_equal(one.images, same.images)
    np.testing.assert_array_equal(one.label, same.label)
    assert one.planted == same.planted
    assert (one.images != other.images).any()


def test_train_and_test_cases_have_different_seeds() -> None:
    states = {tuple(case_seed(0, split, i).generate_state(4)) for split in ("Tr", "Ts") for i in range(5)}
    assert len(states) == 10


def test_number_of_lesions_is_as_asked() -> None:
    fixed = PhantomSettings(n_lesions_min=4, n_lesions_mean=4, diameter_median_mm=5, diameter_log_sd=0)
    for seed in range(5):
        assert len(make_phantom((24, 64, 64), (2, 2, 2), seed, fixed).lesions) == 4
    counts = [len(make_phantom((16, 48, 48), (3, 2.5, 2.5), seed).lesions) for seed in range(40)]
    assert min(counts) >= 2
    assert max(counts) > 6
    assert 3.5 < np.mean(counts) < 6.5


def test_labelled_diameter_follows_the_nominal_one() -> None:
    fixed = PhantomSettings(n_lesions_min=1, n_lesions_mean=1, diameter_median_mm=14, diameter_log_sd=0)
    found = [float(d) for s in range(8) for d in make_phantom((40, 64, 64), (1.5,) * 3, s, fixed).lesions.diameter_mm]
    assert np.mean(found) == pytest.approx(14, rel=0.15)


def test_small_lesions_are_fainter_and_overlap_with_vessels() -> None:
    phantoms = [make_phantom((24, 64, 64), (2, 2, 2), seed) for seed in range(16)]
    planted = [p for phantom in phantoms for p in phantom.planted]
    small = [p.enhancement for p in planted if p.diameter_mm < 5]
    large = [p.enhancement for p in planted if p.diameter_mm > 10]
    assert np.median(small) < 0.7 * np.median(large)
    assert any(p.is_ring for p in planted)
    assert any(p.has_oedema for p in planted)
    assert not any(p.is_ring for p in planted if p.diameter_mm <= 10)

    nothing = PhantomSettings(
        n_lesions_min=0, n_lesions_mean=0, noise_sd=0, bias=0, vessels_per_litre=0, blobs_per_litre=0
    )
    vessels = PhantomSettings(n_lesions_min=0, n_lesions_mean=0, noise_sd=0, bias=0)
    for seed in range(3):
        without, with_vessels = (make_phantom((24, 64, 64), (2, 2, 2), seed, s) for s in (nothing, vessels))
        assert len(with_vessels.lesions) == 0
        # As bright relative to the median of the brain as the median small lesion (0.8 is white matter).
        limit = 1 + np.median(small) / 0.8
        n_bright = [
            int((p.images[BRAVO] > limit * np.median(p.images[BRAVO][p.images[0] > 0])).sum())
            for p in (without, with_vessels)
        ]
        assert n_bright[1] > n_bright[0] + 30


def test_lesions_enhance() -> None:
    plain = PhantomSettings(
        n_lesions_min=3, n_lesions_mean=3, diameter_median_mm=9, diameter_log_sd=0, noise_sd=0, bias=0
    )
    phantom = make_phantom((24, 64, 64), (2, 2, 2), 1, plain)
    inside = phantom.label > 0
    for channel in (BRAVO, SPIN_ECHO):
        image = phantom.images[channel]
        assert image[inside].mean() > 1.15 * np.median(image[phantom.images[0] > 0])


@pytest.mark.parametrize(
    ("shape", "spacing", "message"),
    [
        ((3, 40, 40), (1, 1, 1), "shape must be"),
        ((40, 40), (1, 1), "shape must be"),
        ((8, 8, 8.5), (1, 1, 1), "shape must be"),
        ((8, 8, 8), (1, 0, 1), "spacing_mm must be"),
        ((8, 8, 8), (1, float("nan"), 1), "spacing_mm must be"),
        ((8, 8, 8), (1, 1), "spacing_mm must be"),
    ],
)
def test_bad_geometry_is_refused(shape, spacing, message) -> None:
    with pytest.raises(ValueError, match=message):
        make_phantom(shape, spacing, 0)


@pytest.mark.parametrize(
    "bad",
    [{"noise_sd": -1}, {"n_lesions_min": 9}, {"diameter_median_mm": 1}, {"contrast": float("nan")}, {"bias": -0.1}],
)
def test_bad_settings_are_refused(bad) -> None:
    with pytest.raises(ValueError, match="must"):
        PhantomSettings(**bad)


def test_dataset_on_disk(raw: Path) -> None:
    folder = write_phantom_dataset(900, n_train=2, n_test=1, seed=5, **SMALL)
    assert folder == raw / "Dataset900_Phantom"
    assert [p.name for p in raw.iterdir()] == ["Dataset900_Phantom"]
    dataset = RawDataset(folder)
    assert dataset.json == {
        "channel_names": {"0": "T1_pre", "1": "T1_post_BRAVO", "2": "T1_post_spin_echo", "3": "FLAIR"},
        "labels": {"background": 0, "lesion": 1},
        "numTraining": 2,
        "file_ending": ".nii.gz",
    }
    assert [c.name for c in dataset.training_cases()] == ["phantom_000", "phantom_001"]
    assert [c.name for c in dataset.test_cases()] == ["phantom_test_000"]
    made_with = json.loads((folder / "phantom.json").read_text())
    assert made_with["seed"] == 5
    assert made_with["shape"] == [12, 40, 40]
    assert made_with["settings"]["noise_sd"] == PhantomSettings().noise_sd

    expected = make_phantom(seed=case_seed(5, "Tr", 1), **SMALL)
    case = dataset.training_cases()[1]
    assert len(case.images) == 4
    for path, array in zip(case.images, expected.images, strict=True):
        image = read_image(path)
        np.testing.assert_array_equal(image.array, array)
        assert image.geometry.spacing_mm == (4.0, 3.0, 3.0)
    np.testing.assert_array_equal(read_image(case.label).array, expected.label)
    test_case = dataset.test_cases()[0]
    np.testing.assert_array_equal(
        read_image(test_case.label).array, make_phantom(seed=case_seed(5, "Ts", 0), **SMALL).label
    )


def test_a_case_does_not_depend_on_the_number_of_cases_or_processes(raw: Path) -> None:
    few = write_phantom_dataset(901, n_train=1, n_test=1, **SMALL)
    more = write_phantom_dataset(902, n_train=3, n_test=2, n_workers=2, **SMALL)
    for path in few.rglob("*.nii.gz"):
        assert path.read_bytes() == (more / path.relative_to(few)).read_bytes(), path


def test_an_id_in_use_is_refused_and_overwriting_is_explicit(raw: Path) -> None:
    folder = write_phantom_dataset(900, n_train=2, n_test=0, **SMALL)
    with pytest.raises(InputError, match=r"900 is in use.*--overwrite"):
        write_phantom_dataset(900, n_train=1, n_test=0, **SMALL)
    with pytest.raises(InputError, match="900 is in use"):
        write_phantom_dataset(900, n_train=1, n_test=0, name="Other", overwrite=True, **SMALL)
    write_phantom_dataset(900, n_train=1, n_test=0, overwrite=True, **SMALL)
    assert len(RawDataset(folder).training_cases()) == 1

    precious = raw / "Dataset903_Phantom"
    precious.mkdir()
    with pytest.raises(InputError, match=r"not replaced: it holds no phantom\.json"):
        write_phantom_dataset(903, n_train=1, n_test=0, overwrite=True, **SMALL)


def test_a_failure_leaves_nothing(raw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_args) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("nnunet_lopsided.dataset_conversion.phantom.write_image", fail)
    with pytest.raises(InputError, match="disk full"):
        write_phantom_dataset(900, n_train=1, n_test=0, **SMALL)
    assert list(raw.iterdir()) == []
