"""nnunet_lopsided.evaluation.maps."""

from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from nnunet_lopsided.evaluation import EvaluationRules, evaluate_folder
from nnunet_lopsided.evaluation.case import evaluate_thresholds
from nnunet_lopsided.evaluation.maps import (
    DESCRIPTIONS,
    Outcome,
    outcome_map,
    write_descriptions,
    write_map,
    write_outcome_map,
)
from nnunet_lopsided.evaluation.matching import Status
from nnunet_lopsided.images import Geometry, read_image
from nnunet_lopsided.lesions import find_lesions


def mapped(reference, prediction, status, detected, missed):
    lesions, candidates = (find_lesions(np.array([row]), (1, 1)) for row in (reference, prediction))
    values = outcome_map(
        lesions,
        candidates,
        np.array(status, np.int8),
        detected=np.array(detected, bool),
        missed=np.array(missed, bool),
    )
    return values[0].tolist()


def test_every_value_by_hand():
    #             found      missed     uncounted   missed under a candidate
    reference = [1, 1, 1, 0, 1, 1, 0, 0, 1, 1, 0, 0, 1, 1, 0, 0, 0]
    prediction = [0, 1, 0, 1, 0, 0, 0, 1, 1, 0, 0, 1, 1, 0, 0, 1, 0]
    #             TP    DUP         IGNORED      FP           FP
    status = [Status.TRUE_POSITIVE, Status.DUPLICATE, Status.IGNORED, Status.FALSE_POSITIVE, Status.FALSE_POSITIVE]
    values = mapped(reference, prediction, status, [1, 0, 0, 0], [0, 1, 0, 1])
    assert values == [5, 1, 5, 4, 3, 3, 0, 7, 7, 7, 0, 2, 6, 3, 0, 2, 0]


def test_a_missed_lesion_inside_a_true_positive_is_not_hidden():
    values = mapped([1, 1, 0, 1, 1], [1, 1, 1, 1, 1], [Status.TRUE_POSITIVE], [1, 0], [0, 1])
    assert values == [1, 1, 1, 6, 6]


def test_nothing_in_either():
    assert mapped([0, 0], [0, 0], [], [], []) == [0, 0]
    assert mapped([0, 0], [0, 1], [Status.FALSE_POSITIVE], [], []) == [0, 2]
    assert mapped([1, 0], [0, 0], [], [0], [1]) == [3, 0]


def by_voxel(lesion, candidate, result):
    """The documented table, one voxel at a time; ids from 1, 0 for none."""
    status = Status(result.matches.status[candidate - 1]) if candidate else None
    missed, detected = (lesion and marks[lesion - 1] for marks in (result.missed, result.detected))
    if missed:
        return 6 if candidate else 3
    if candidate:
        return {Status.TRUE_POSITIVE: 1, Status.FALSE_POSITIVE: 2, Status.DUPLICATE: 4, Status.IGNORED: 7}[status]
    if lesion:
        return 5 if detected else 7
    return 0


@settings(deadline=None)
@given(
    arrays(bool, (9, 9), elements=st.booleans(), fill=st.just(False)),
    arrays(np.float32, (9, 9), elements=st.sampled_from([0.2, 0.5]), fill=st.just(0)),
    st.sampled_from(["centroid", "overlap"]),
    st.sampled_from([0.0, 1.0]),
)
def test_every_voxel_against_the_table(reference, probability, match, min_lesion_mm3):
    rules = EvaluationRules(match=match, min_lesion_mm3=min_lesion_mm3)
    (case,) = evaluate_thresholds(reference, probability, (1, 1), rules, (0.1,))
    result = case.result
    values = outcome_map(
        case.lesions, case.candidates, result.matches.status, detected=result.detected, missed=result.missed
    )
    of_lesion, of_candidate = case.lesions.instances().ravel(), case.candidates.instances().ravel()
    expected = [by_voxel(a, b, result) for a, b in zip(of_lesion, of_candidate, strict=True)]
    assert values.ravel().tolist() == expected


def oblique(path, shape=(4, 5, 6)):
    image = sitk.GetImageFromArray(np.zeros(shape, np.uint8))
    image.SetSpacing((0.7, 0.9, 3.5))
    image.SetOrigin((-81.5, 12.25, 40.0))
    c, s = np.cos(0.3), np.sin(0.3)
    image.SetDirection((c, -s, 0, s, c, 0, 0, 0, -1))
    sitk.WriteImage(image, str(path))


@pytest.mark.parametrize("ending", [".nii.gz", ".nii", ".mha", ".nrrd"])
def test_map_lies_where_the_reference_lies(tmp_path, ending):
    reference = tmp_path / f"case{ending}"
    oblique(reference)
    values = np.arange(120, dtype=np.uint8).reshape(4, 5, 6) % 8
    path = write_outcome_map(tmp_path / "maps", "case", reference, values, read_image(reference).geometry)
    assert path.name == f"case{ending}"
    before, after = sitk.ReadImage(str(reference)), sitk.ReadImage(str(path))
    for name in ("GetSpacing", "GetOrigin", "GetDirection", "GetSize"):
        np.testing.assert_allclose(getattr(after, name)(), getattr(before, name)(), rtol=0, atol=1e-6)
    assert after.GetPixelID() == sitk.sitkUInt8
    np.testing.assert_array_equal(sitk.GetArrayFromImage(after), values)
    corner = (5, 4, 3)
    np.testing.assert_allclose(
        after.TransformIndexToPhysicalPoint(corner), before.TransformIndexToPhysicalPoint(corner), atol=1e-4
    )


def test_references_in_two_files_get_a_map_in_one(tmp_path):
    reference = tmp_path / "case.mhd"
    oblique(reference)
    values = np.ones((4, 5, 6), np.uint8)
    path = write_outcome_map(tmp_path / "maps", "case", reference, values, read_image(reference).geometry)
    assert [p.name for p in (tmp_path / "maps").iterdir()] == ["case.mha"]
    np.testing.assert_array_equal(read_image(path).array, values)


@pytest.mark.parametrize(("ending", "written"), [(".png", ".png"), (".bmp", ".png"), (".tif", ".tif")])
def test_2d_formats(tmp_path, ending, written):
    values = np.arange(8, dtype=np.uint8).reshape(2, 4)
    plain = Geometry((1.0, 1.0), (0.0, 0.0), (1.0, 0.0, 0.0, 1.0))
    path = write_outcome_map(tmp_path, "case", tmp_path / f"case{ending}", values, plain)
    assert path.name == f"case{written}"
    np.testing.assert_array_equal(read_image(path).array, values)


def test_maps_are_written_case_by_case_while_evaluating(folders, tmp_path):
    """A found lesion, a missed one, a false positive, in a volume with a tilted axis; nothing in the other case."""
    c, s = np.cos(0.2), np.sin(0.2)
    tilted = Geometry((2.0, 1.0, 1.0), (5.0, -7.0, 11.0), (1, 0, 0, 0, c, -s, 0, s, c))
    reference, lesion = np.zeros((5, 6, 8), np.uint8), np.zeros((5, 6, 8), np.float32)
    reference[1:3, 1:4, 1:4] = reference[4, 5, 7] = 1
    lesion[1:3, 1:4, 1:3] = 0.6
    lesion[0, 5, 5] = 0.2
    expected = np.zeros((5, 6, 8), np.uint8)
    expected[1:3, 1:4, 1:3] = 1
    expected[1:3, 1:4, 3] = 5
    expected[4, 5, 7] = 3
    expected[0, 5, 5] = 2
    for case, factor in (("a", 1), ("b", 0)):
        folders.write_reference(f"{case}.nii.gz", reference * factor, tilted)
        folders.write_image(f"{case}.nii.gz", (lesion > 0.5).astype(np.uint8) * factor, tilted)
        folders.write_npz(case, lesion * factor)
    maps = tmp_path / "maps"
    options: dict[str, Any] = {"n_replicates": 0, "on_case": lambda case: write_map(maps, case)}
    evaluate_folder(folders.references, folders.predictions, **options)
    for case, factor in (("a", 1), ("b", 0)):
        written = read_image(maps / f"{case}.nii.gz")
        np.testing.assert_array_equal(written.array, expected * factor)
        assert read_image(folders.references / f"{case}.nii.gz").geometry.difference(written.geometry, 1e-6) is None
    before = {path.name: path.read_bytes() for path in maps.iterdir()}
    assert sorted(before) == ["a.nii.gz", "b.nii.gz"]
    evaluate_folder(folders.references, folders.predictions, **options)
    assert {path.name: path.read_bytes() for path in maps.iterdir()} == before


def test_descriptions_have_every_value(tmp_path):
    write_descriptions(tmp_path)
    snap = [line for line in (tmp_path / "itk-snap-labels.txt").read_text().splitlines() if not line.startswith("#")]
    # IDX R G B A VIS MSH "LABEL"
    parsed = [(line.split('"')[0].split(), line.split('"')[1]) for line in snap]
    assert [int(numbers[0]) for numbers, _ in parsed] == list(range(8))
    assert all(len(numbers) == 7 for numbers, _ in parsed)
    assert parsed[2] == (["2", "230", "159", "0", "1", "1", "1"], "false positive candidate")
    slicer = [line.split() for line in (tmp_path / "slicer-colors.ctbl").read_text().splitlines() if line[0] != "#"]
    assert [int(words[0]) for words in slicer] == list(range(8))
    assert all(len(words) == 6 for words in slicer)
    assert set(DESCRIPTIONS) == set(Outcome) - {Outcome.BACKGROUND}
    assert len({colour for _, colour in DESCRIPTIONS.values()}) == 7
