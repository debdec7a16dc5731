"""Folders laid out as BIDS says."""

from __future__ import annotations

import pytest

from nnunet_lopsided.dataset_conversion.converters.bids import BidsName, bids_name
from nnunet_lopsided.errors import InputError, InputErrors

MASKS = "derivatives/lesions"
OPTIONS = {"channels": {"T1w": "T1w", "t1c": "ce-gd_T1w", "FLAIR": "FLAIR"}, "label": "label-lesion_mask", "bids": True}


@pytest.fixture
def bids(tree):
    """Two subjects, the first with two sessions; contrast, a second pipeline, sidecars."""
    for subject, session in (("01", "1"), ("01", "2"), ("02", "")):
        folder = f"sub-{subject}" + (f"/ses-{session}" if session else "") + "/anat"
        stem = f"sub-{subject}" + (f"_ses-{session}" if session else "")
        for kind in ("T1w", "ce-gd_T1w", "FLAIR", "T2w"):
            tree.image(f"{folder}/{stem}_{kind}.nii.gz")
            tree.text(f"{folder}/{stem}_{kind}.json", "{}")
        tree.image(f"derivatives/prep/{folder}/{stem}_desc-preproc_T1w.nii.gz")
        tree.label(f"{MASKS}/{folder}/{stem}_space-orig_label-lesion_mask.nii.gz", 1, 1)
    tree.image("sourcedata/scout.nii.gz")
    return tree


def test_subjects_sessions_and_modalities(bids, run) -> None:
    written = run("folder", **OPTIONS)
    rows = [(r["case"], r["patient"], r["time_point"]) for r in written.cases.values()]
    assert rows == [
        ("sub-01_ses-1", "sub-01", "ses-1"),
        ("sub-01_ses-2", "sub-01", "ses-2"),
        ("sub-02", "sub-02", ""),
    ]
    root = bids.root.resolve()
    assert written.channels == ["T1w", "t1c", "FLAIR"]
    assert written.source_of("sub-01_ses-2", "T1w") == root / "sub-01/ses-2/anat/sub-01_ses-2_T1w.nii.gz"
    assert written.source_of("sub-01_ses-2", "t1c") == root / "sub-01/ses-2/anat/sub-01_ses-2_ce-gd_T1w.nii.gz"
    assert written.converted.n_lesions == 6
    assert written.converted.notes == (
        "1 image files have no name of BIDS (sub-LABEL_..._SUFFIX) and are not looked at",
    )


def test_two_files_of_a_kind_are_asked_for(bids, run) -> None:
    bids.image("sub-02/anat/sub-02_run-2_FLAIR.nii.gz")
    with pytest.raises(
        InputError, match=r"case sub-02: two files for FLAIR: .*sub-02_FLAIR.*sub-02_run-2_FLAIR.*--ignore"
    ):
        run("folder", **OPTIONS)


def test_preprocessed_images_lie_in_derivatives(bids, run) -> None:
    written = run("folder", **{**OPTIONS, "channels": {"T1w": "desc-preproc_T1w"}})
    assert "derivatives/prep" in str(written.source_of("sub-02", "T1w"))


def test_what_is_there_is_listed(bids, run) -> None:
    with pytest.raises(InputErrors) as error:
        run("folder", **{**OPTIONS, "label": "dseg"})
    (problem,) = error.value.problems
    assert problem.startswith("no label found in any case: --labels dseg matches no file (found: FLAIR (3), T1w (3), ")
    assert "space-orig_label-lesion_mask in derivatives (3)" in problem


@pytest.mark.parametrize("pattern", ["*_T1w.nii.gz", "sub-01_T1w", ""])
def test_patterns_that_are_none(bids, run, pattern) -> None:
    with pytest.raises(InputError, match="with --bids expected a suffix such as T1w"):
        run("folder", **{**OPTIONS, "channels": {"x": pattern}})


def test_names() -> None:
    assert bids_name("sub-01_ses-2_acq-3d_T1w") == BidsName({"sub": "01", "ses": "2", "acq": "3d"}, "T1w")
    assert bids_name("brain") == BidsName({}, "brain")
    assert bids_name("my_brain") is None
