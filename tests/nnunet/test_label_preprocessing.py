"""Cropping without images against nnU-Net's own cropping with them."""

from __future__ import annotations

from functools import cache, partial
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nnunetv2.preprocessing.cropping.cropping import crop_to_nonzero
from numpy.typing import NDArray

from nnunet_lopsided.errors import InputError
from nnunet_lopsided.nnunet.configurations import Configuration, data_configurations
from nnunet_lopsided.nnunet.label_preprocessing import LabelPreprocessing
from nnunet_lopsided.nnunet.plans import Plans
from nnunet_lopsided.nnunet.preprocessed_case import CleanSegmentation


def configuration(axes: tuple[int, ...] = (0, 1, 2), spacing: tuple[float, ...] = (1.0, 1.0, 1.0)) -> Configuration:
    return Configuration(
        "data", SimpleNamespace(transpose_forward=axes), SimpleNamespace(spacing=spacing, use_mask_for_norm=[True])
    )


def preprocessed(images: NDArray[Any], label: NDArray[Any], axes: tuple[int, ...]) -> CleanSegmentation:
    """Transposed, cropped and marked by nnU-Net."""
    order = [0, *(axis + 1 for axis in axes)]
    images, label = images.transpose(order), label.transpose(order).astype(np.int16)
    _, array, box = crop_to_nonzero(images, label)
    shape = array.shape[1:]
    return CleanSegmentation(
        array,
        {
            "bbox_used_for_cropping": box,
            "shape_before_cropping": images.shape[1:],
            "shape_after_cropping_and_before_resampling": shape,
            "spacing": [1.0, 1.0, 1.0],
        },
    )


def cropped(images: NDArray[Any], label: NDArray[Any], clean: CleanSegmentation, axes: tuple[int, ...]) -> Any:
    """The new segmentation, whether normalisation changes, and how often the images were read."""
    read: list[int] = []

    def channel(c: int) -> NDArray[Any]:
        read.append(c)
        return images[c : c + 1]

    channels = [cache(partial(channel, c)) for c in range(len(images))]
    case = LabelPreprocessing("a", label.astype(np.float32), channels, lambda: pytest.fail("not needed"))
    config = configuration(axes)
    case.crop({"data": config}, {"data": clean})
    return case._cropped[axes][0], case.changes_normalisation(config), len(read)


@settings(max_examples=300, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from([(4, 5, 6), (1, 7, 8), (3, 3, 3)]),
    st.sampled_from([0.05, 0.3, 0.7]),
    st.sampled_from([(0, 1, 2), (2, 0, 1)]),
)
def test_agrees_with_nnunet_on_any_labels(seed, shape, zeros, axes) -> None:
    rng = np.random.default_rng(seed)
    images = rng.integers(1, 9, (2, *shape)) * (rng.random(shape) > zeros)
    images[(slice(None), *(n // 2 for n in shape))] = 1
    clean_label, label = (rng.integers(1, 3, (1, *shape)) * (rng.random(shape) < p) for p in rng.random(2))
    clean, expected = preprocessed(images, clean_label, axes), preprocessed(images, label, axes)
    found, changes, _ = cropped(images, label, clean, axes)
    np.testing.assert_array_equal(found, expected.array)
    # nnU-Net normalises over the voxels that are not -1.
    assert changes == bool(((clean.array[:] >= 0) != (expected.array[:] >= 0)).any())


def test_images_are_read_only_where_a_vanished_label_may_have_hidden_the_border() -> None:
    images = np.ones((2, 5, 7, 7), int)
    images[:, 0] = images[:, :, 0] = 0
    clean_label, none = np.zeros((1, 5, 7, 7), int), np.zeros((1, 5, 7, 7), int)
    clean_label[0, 2:4, 3:5, 3:5] = 1
    clean = preprocessed(images, clean_label, (0, 1, 2))
    assert cropped(images, none, clean, (0, 1, 2))[1:] == (False, 0), "in the middle: inside"
    clean_label[0, 3, 1, 3] = 1
    clean = preprocessed(images, clean_label, (0, 1, 2))
    assert cropped(images, none, clean, (0, 1, 2))[1:] == (False, 1), (
        "at the border of the box: the first channel is enough"
    )


def test_another_shape_is_refused() -> None:
    images, label = np.ones((1, 3, 4, 5)), np.zeros((1, 3, 4, 5), int)
    clean = preprocessed(images, label, (0, 1, 2))
    with pytest.raises(InputError, match=r"case a: expected shape \(3, 4, 5\), as preprocessed, found \(3, 4, 6\)"):
        cropped(images, np.zeros((1, 3, 4, 6), int), clean, (0, 1, 2))


def plans(name: str = "P", **changes: Any) -> Plans:
    content: dict[str, Any] = {"data_identifier": "data", "preprocessor_name": "DefaultPreprocessor", "spacing": [1, 1]}
    content |= {"normalization_schemes": ["ZScoreNormalization"], "use_mask_for_norm": [False], "architecture": {}}
    for kind in ("data", "seg"):
        content |= {f"resampling_fn_{kind}": "no_resampling_hack", f"resampling_fn_{kind}_kwargs": {}}
    configurations = {"2d": content | changes, "child": {"inherits_from": "2d", "batch_size": 3}}
    plans = {
        "plans_name": name,
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "configurations": configurations,
    }
    return cast(Plans, plans)


def test_configurations_of_one_folder_must_agree() -> None:
    assert list(data_configurations([plans(), plans("Q")])) == ["data"]
    elsewhere = plans("Q", data_identifier="other", spacing=[2, 2])
    assert list(data_configurations([plans(), elsewhere])) == ["data", "other"]
    with pytest.raises(InputError, match=r"plans Q, configuration 2d: shares the folder data with plans P.* spacing"):
        data_configurations([plans(), plans("Q", spacing=[2, 2])])
    with pytest.raises(InputError, match="preprocessed by Mine, expected DefaultPreprocessor"):
        data_configurations([plans(preprocessor_name="Mine")])
