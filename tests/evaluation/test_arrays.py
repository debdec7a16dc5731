"""nnunet_lopsided.evaluation.arrays and data_frames."""

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from nnunet_lopsided.evaluation import evaluate_case, evaluate_folder
from nnunet_lopsided.evaluation.arrays import as_array, spacing_of
from nnunet_lopsided.evaluation.data_frames import data_frame


def test_the_same_case_from_three_libraries():
    reference = np.zeros((4, 6, 8), np.uint8)
    reference[1:3, 2:5, 3:6] = 1
    probability = (reference * 0.75).astype(np.float32)
    images = [sitk.GetImageFromArray(array) for array in (reference, probability)]
    for image in images:
        image.SetSpacing((0.5, 1.0, 3.0))  # x, y, z
    of_arrays = evaluate_case(reference, probability, (3.0, 1.0, 0.5))
    of_tensors = evaluate_case(torch.from_numpy(reference), torch.from_numpy(probability), (3.0, 1.0, 0.5))
    of_images = evaluate_case(images[0], images[1])
    for case in (of_tensors, of_images):
        assert case.lesions.volume_mm3.tolist() == of_arrays.lesions.volume_mm3.tolist() == [18 * 1.5]
        assert case.confidence.tolist() == [0.75]
    with pytest.raises(ValueError, match="spacing_mm must be given"):
        evaluate_case(reference, probability)


def test_images_in_different_places_are_refused():
    """As files are: voxel by voxel the numbers would look right."""

    def image(spacing=(0.5, 1.0, 3.0), origin=(0.0, 0.0, 0.0), direction=(1, 0, 0, 0, 1, 0, 0, 0, 1)):
        found = sitk.Image([8, 6, 4], sitk.sitkUInt8)
        found.SetSpacing(spacing)
        found.SetOrigin(origin)
        found.SetDirection(direction)
        return found

    reference = image()
    evaluate_case(reference, image(origin=(0.0005, 0, 0)), (3.0, 1.0, 0.5))
    for other, what in (
        (image(spacing=(0.5, 1.0, 2.0)), "spacing"),
        (image(origin=(5.0, 0.0, 0.0)), "origin"),
        (image(direction=(-1, 0, 0, 0, 1, 0, 0, 0, 1)), "direction"),
    ):
        with pytest.raises(ValueError, match=f"^prediction must have the {what} of reference, .*, got "):
            evaluate_case(reference, other)
        with pytest.raises(ValueError, match=f"^censored_reference must have the {what} of reference"):
            evaluate_case(reference, np.zeros((4, 6, 8)), censored_reference=other)
    with pytest.raises(
        ValueError, match=r"^spacing_mm must be that of reference, \(3\.0, 1\.0, 0\.5\), got \(0\.5, 1, 3\)"
    ):
        evaluate_case(reference, image(), (0.5, 1, 3))


def test_gradients_and_bfloat16():
    p = torch.full((2, 3), 0.5, dtype=torch.bfloat16, requires_grad=True)
    assert as_array(p).tolist() == [[0.5] * 3] * 2
    assert spacing_of(p, [1, 2]) == (1, 2)


def test_data_frames(two_cases):
    result = evaluate_folder(two_cases.references, two_cases.predictions, n_replicates=0)
    assert {name: len(data_frame(result, name)) for name in ("cases", "patients", "lesions", "candidates")} == {
        "cases": 2,
        "patients": 2,
        "lesions": 2,
        "candidates": 3,
    }
    assert data_frame(result, "lesions")["detected"].tolist() == [1, 0]
    with pytest.raises(ValueError, match="table must be one of"):
        data_frame(result, "voxels")  # type: ignore[arg-type]  # what is refused
