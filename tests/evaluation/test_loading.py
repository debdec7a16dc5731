"""nnunet_lopsided.evaluation.loading."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from nnunet_lopsided.errors import InputError
from nnunet_lopsided.evaluation.loading import LesionClass, check_headers, lesion_class, load_case
from nnunet_lopsided.images import Geometry
from nnunet_lopsided.nnunet.dataset_json import label_scheme
from nnunet_lopsided.nnunet.results import predictions_by_case

SHAPE = (3, 4, 5)
LESION = {"background": 0, "lesion": 1}
REGIONS = {"background": 0, "whole": [1, 2], "core": 2}


def scheme(labels):
    return label_scheme({"labels": labels}, Path("dataset.json"))


def reference_array(value=1):
    array = np.zeros(SHAPE, np.uint8)
    array[1, 1, 1:3] = value
    return array


def load(folders, target=None, case="a", **options):
    files = predictions_by_case(folders.predictions).get(case)
    (reference,) = folders.references.glob(f"{case}.*")
    return load_case(case, reference, files, target or LesionClass(scheme(LESION)), **options)


@pytest.fixture
def lesion(folders):
    """A reference and nothing predicted yet; returns a probability map that fits it."""
    folders.write_reference("a.nii.gz", reference_array())
    return np.where(reference_array() > 0, 0.7, 0.1).astype(np.float32)


@pytest.mark.parametrize("key", ["probabilities", "softmax"])
def test_npz(folders, lesion, key):
    folders.write_npz("a", lesion, key)
    loaded = load(folders)
    np.testing.assert_array_equal(loaded.prediction, lesion)
    assert (loaded.reference.sum(), loaded.valid, loaded.spacing_mm) == (2, None, (1.0, 1.0, 1.0))


def test_npy_and_probability_image(folders, lesion):
    np.save(folders.predictions / "a.npy", lesion.astype(np.float16))
    assert load(folders).prediction.dtype == np.float16
    np.save(folders.predictions / "a.npy", np.stack([1 - lesion, lesion]))
    np.testing.assert_array_equal(load(folders).prediction, lesion)
    (folders.predictions / "a.npy").unlink()
    folders.write_image("a.nii.gz", lesion)
    np.testing.assert_array_equal(load(folders).prediction, lesion)


@pytest.mark.parametrize(("dtype", "hard"), [(np.uint8, False), (np.float32, True)])
def test_label_map_of_any_type(folders, lesion, dtype, hard):
    folders.write_image("a.nii.gz", reference_array().astype(dtype))
    loaded = load(folders, hard_labels=hard)
    assert loaded.prediction.dtype == bool
    np.testing.assert_array_equal(loaded.prediction, loaded.reference)


def test_floating_zeros_and_ones_are_probabilities_unless_an_array_lies_beside_them(folders, lesion):
    certain = reference_array().astype(np.float32)
    folders.write_image("a.nii.gz", certain)
    np.testing.assert_array_equal(load(folders).prediction, certain)
    assert load(folders).prediction.dtype == np.float32
    two = scheme({"background": 0, "a": 1, "b": 2})  # where 1 may be a label, it is
    assert load(folders, LesionClass(two)).prediction.dtype == bool
    folders.write_npz("a", lesion)
    assert load(folders).segmentation.sum() == 2


@pytest.mark.parametrize("bad", [np.nan, np.inf, 7.0])
def test_channels_without_dataset_json_are_checked_before_their_sum(bad):
    with pytest.raises(InputError, match=r"expected finite probabilities within \[0, 1\]"):
        LesionClass().probability(*channels(bad, 0.2))


def test_hard_labels_on_request(folders, lesion):
    folders.write_npz("a", lesion)
    with pytest.raises(InputError, match="case a: expected a label map beside"):
        load(folders, hard_labels=True)
    folders.write_image("a.nii.gz", reference_array())
    assert load(folders, hard_labels=True).prediction.dtype == bool
    folders.write_image("a.nii.gz", lesion)
    with pytest.raises(InputError, match="case a: expected a label map, found fractional values"):
        load(folders, hard_labels=True)


def test_2d_png_with_the_axis_nnunet_adds(folders):
    folders.write_reference("a.png", reference_array()[1])
    lesion = np.where(reference_array()[1:2] > 0, 0.7, 0.1).astype(np.float32)
    folders.write_npz("a", lesion)
    assert np.load(folders.predictions / "a.npz")["probabilities"].shape == (2, 1, 4, 5)
    loaded = load(folders)
    np.testing.assert_array_equal(loaded.prediction, lesion[0])
    assert loaded.spacing_mm == (1.0, 1.0)


# Which channels -----------------------------------------------------------------------------------------------------


def channels(*values):
    """Arguments of ``LesionClass.probability``."""
    return np.array(values, np.float32).reshape(-1, 1, 1, 1), len(values)


def test_softmax_channels_by_name():
    two = scheme({"background": 0, "a": 1, "b": 2})
    p = channels(0.5, 0.2, 0.3)
    assert LesionClass(two, "a").probability(*p).item() == np.float32(0.2)
    assert LesionClass(two, "b").probability(*p).item() == np.float32(0.3)
    assert LesionClass(two).probability(*p).item() == 0.5
    assert LesionClass(scheme(LESION)).probability(*channels(0.9, 0.1)).item() == np.float32(0.1)  # not 1 - .9
    assert LesionClass(scheme({"background": 0, "lesion": 2})).probability(*channels(0.9, 0.1)).item() == np.float32(
        0.1
    )


def test_region_channels_by_name():
    p = channels(0.9, 0.3)
    assert LesionClass(scheme(REGIONS), "whole").probability(*p).item() == np.float32(0.9)
    assert LesionClass(scheme(REGIONS), "core").probability(*p).item() == np.float32(0.3)
    assert LesionClass(scheme(REGIONS)).probability(*p).item() == np.float32(0.9)


def test_region_masks_by_name():
    labels = np.array([0, 1, 2])
    assert LesionClass(scheme(REGIONS), "whole").mask(labels).tolist() == [False, True, True]
    assert LesionClass(scheme(REGIONS), "core").mask(labels).tolist() == [False, False, True]
    assert LesionClass().mask(labels).tolist() == [False, True, True]


def test_without_dataset_json():
    assert LesionClass().probability(*channels(0.8, 0.2)).item() == np.float32(0.2)
    assert LesionClass().probability(*channels(0.4)).item() == np.float32(0.4)
    assert LesionClass().probability(*channels(0.5, 0.25, 0.25)).item() == 0.5
    with pytest.raises(InputError, match=r"2 channels that do not sum to 1.*--dataset-json"):
        LesionClass().probability(*channels(0.9, 0.8))
    with pytest.raises(InputError, match=r"expected 2 channels from dataset.json, found 3"):
        LesionClass(scheme(LESION)).probability(*channels(0.5, 0.25, 0.25))


def test_lesion_class_by_name(tmp_path):
    path = tmp_path / "dataset.json"
    path.write_text(json.dumps({"labels": REGIONS}))
    assert lesion_class("core", path).values == (2,)
    assert lesion_class(None, path).values == (1, 2)
    assert lesion_class(None, None).values is None
    with pytest.raises(InputError, match=r"label must be one of whole, core \(.*\), got edema"):
        lesion_class("edema", path)
    with pytest.raises(InputError, match=r"label core needs a dataset.json"):
        lesion_class("core", None)
    path.write_text(json.dumps({"labels": {"background": 0}}))
    with pytest.raises(InputError, match="no foreground label"):
        lesion_class(None, path)


def test_ignore_label(folders):
    array = reference_array()
    array[2] = 2
    folders.write_reference("a.nii.gz", array)
    loaded = load(folders, LesionClass(scheme({**LESION, "ignore": 2})))
    assert loaded.reference.sum() == 2
    np.testing.assert_array_equal(loaded.valid, array != 2)


def test_labels_0_and_2(folders):
    folders.write_reference("a.nii.gz", reference_array(2))
    assert load(folders, LesionClass()).reference.sum() == 2
    assert load(folders, LesionClass(scheme({"background": 0, "lesion": 2}))).reference.sum() == 2
    with pytest.raises(
        InputError, match=r"case a: .*: unknown label value 2 in [0-9]+ voxels, expected 0, 1 \(dataset\.json\)"
    ):
        load(folders)


# What is refused ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1.5, -0.5])
@pytest.mark.parametrize("kind", ["npz", "npy", "image"])
def test_values_that_are_no_probabilities(folders, lesion, bad, kind):
    lesion[0, 0, 0] = bad
    if kind == "npz":
        folders.write_npz("a", lesion)
    elif kind == "npy":
        np.save(folders.predictions / "a.npy", lesion)
    else:
        folders.write_image("a.nii.gz", lesion)
    ending = "nii.gz" if kind == "image" else kind
    with pytest.raises(InputError, match=rf"case a: expected finite .*a\.{ending}"):
        load(folders)


def test_rounding_beyond_1_is_clipped(folders, lesion):
    lesion[0, 0, 0] = np.float32(1 + 1e-6)
    np.save(folders.predictions / "a.npy", lesion)
    assert load(folders).prediction.max() == 1


@pytest.mark.parametrize(
    ("geometry", "word"),
    [
        (Geometry((1.0, 1.0, 1.01), (0.0,) * 3, tuple(np.eye(3).ravel())), "spacing_mm"),
        (Geometry((1.0,) * 3, (50.0, -50.0, 0.0), tuple(np.eye(3).ravel())), "origin_mm"),
        (
            Geometry(
                (1.0,) * 3,
                (0.0,) * 3,
                (math.cos(0.1), -math.sin(0.1), 0.0, math.sin(0.1), math.cos(0.1), 0.0, 0.0, 0.0, 1.0),
            ),
            "direction",
        ),
    ],
)
def test_geometry_mismatch(folders, lesion, geometry, word):
    folders.write_npz("a", lesion)
    folders.write_image("a.nii.gz", reference_array(), geometry)
    with pytest.raises(InputError, match=rf"case a: reference and prediction .*a\.nii\.gz differ: {word} .* versus "):
        load(folders)


def test_oblique_case_loads(folders):
    oblique = Geometry(
        (5.0, 0.5, 0.5),
        (12.3, -45.6, 7.8),
        (1.0, 0.0, 0.0, 0.0, math.cos(0.4), -math.sin(0.4), 0.0, math.sin(0.4), math.cos(0.4)),
    )
    folders.write_reference("a.nii.gz", reference_array(), oblique)
    folders.write_image("a.nii.gz", reference_array(), oblique)
    assert load(folders).spacing_mm == pytest.approx((5.0, 0.5, 0.5))


def test_shape_mismatch(folders, lesion):
    folders.write_image("a.nii.gz", np.zeros((3, 4, 6), np.uint8))
    with pytest.raises(InputError, match=r"case a: .* differ: shape \(3, 4, 5\) versus \(3, 4, 6\)"):
        load(folders)
    (folders.predictions / "a.nii.gz").unlink()
    folders.write_npz("a", lesion[:, :, :4])
    with pytest.raises(InputError, match=r"case a: expected shape \(channels, 3, 4, 5\).*found \(2, 3, 4, 4\)"):
        load(folders)


def test_arrays_of_the_wrong_kind(folders, lesion):
    np.savez(folders.predictions / "a.npz", probabilities=np.stack([reference_array()] * 2))
    with pytest.raises(InputError, match=r"case a: expected floating-point probabilities, found uint8"):
        load(folders)
    np.savez(folders.predictions / "a.npz", logits=lesion)
    with pytest.raises(InputError, match=r"case a: expected an array 'probabilities'.* found logits"):
        load(folders)
    np.savez(folders.predictions / "a.npz", probabilities=np.array([{}], dtype=object))
    with pytest.raises(InputError, match=r"case a: expected floating-point probabilities, found object"):
        load(folders)


def test_fractional_reference(folders, lesion):
    folders.write_reference("a.nii.gz", lesion)
    with pytest.raises(InputError, match="case a: expected a label map as reference, found fractional values"):
        load(folders)


def test_predicted_label_maps_of_other_classes(folders, lesion):
    folders.write_image("a.nii.gz", reference_array(7))
    with pytest.raises(InputError, match=r"case a: .*a\.nii\.gz: unknown label value 7 in [0-9]+ voxels, "):
        load(folders)
    assert load(folders, LesionClass()).prediction.sum() == 2


def test_references_without_real_numbers_or_sizes(folders, lesion):
    import nibabel

    path = folders.references / "a.nii.gz"
    folders.write_npz("a", lesion)
    nibabel.Nifti1Image(np.zeros(SHAPE[::-1], np.complex64), np.eye(4)).to_filename(path)
    with pytest.raises(InputError, match=r"case a: .*expected real numbers, found complex ones"):
        load(folders)
    folders.write_reference("b.tif", np.zeros((4, 5, 6), np.uint8))
    (folders.references / "b.json").write_text('{"spacing": [1, -2, 1]}')
    with pytest.raises(
        InputError, match=r"case b: .*b\.json: spacing: expected 3 positive numbers, found \[1, -2, 1\]"
    ):
        load_case("b", folders.references / "b.tif", None, LesionClass())
    (folders.references / "b.json").write_text('{"spacing": [1, 2]}')
    with pytest.raises(InputError, match=r"case b: .*expected 3 positive numbers, found \[1, 2\]"):
        load_case("b", folders.references / "b.tif", None, LesionClass())


def test_headers_show_what_needs_no_reading(folders, lesion):
    def check(**options):
        files = predictions_by_case(folders.predictions)["a"]
        check_headers("a", folders.references / "a.nii.gz", files, **options)

    folders.write_npz("a", lesion * 9)
    folders.write_image("a.nii.gz", reference_array())
    check()  # values are not looked at
    with pytest.raises(InputError, match=r"case a: image not found: .*none"):
        check(censored_reference=folders.references / "none.nii.gz")
    folders.write_image("a.nii.gz", np.zeros((3, 4, 6), np.uint8))
    with pytest.raises(InputError, match=r"case a: .* differ: shape \(3, 4, 5\) versus \(3, 4, 6\)"):
        check()
    folders.write_image("a.nii.gz", reference_array())
    folders.write_npz("a", lesion[:, :, :3])
    with pytest.raises(InputError, match=r"case a: expected shape \(channels, 3, 4, 5\) .* found \(2, 3, 4, 3\)"):
        check()
    check(hard_labels=True)
    (folders.predictions / "a.npz").write_bytes(b"PK")
    with pytest.raises(InputError, match=r"case a: cannot read .*a\.npz"):
        check()
    (folders.references / "a.nii.gz").write_bytes(b"broken")
    with pytest.raises(InputError, match=r"case a: cannot read image .*a\.nii\.gz"):
        check()


@pytest.mark.parametrize("kept", [0, 60, 0.5, 0.98])
def test_truncated_npz(folders, lesion, kept):
    folders.write_npz("a", np.random.default_rng(0).random(SHAPE).astype(np.float32))
    path = folders.predictions / "a.npz"
    content = path.read_bytes()
    path.write_bytes(content[: kept if isinstance(kept, int) else int(kept * len(content))])
    with pytest.raises(InputError, match=r"case a: cannot read .*a\.npz"):
        load(folders)


def test_corrupted_npz_and_image(folders, lesion):
    folders.write_npz("a", lesion)
    path = folders.predictions / "a.npz"
    content = bytearray(path.read_bytes())
    content[80:100] = bytes(20)
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"case a: cannot read .*a\.npz"):
        load(folders)
    (folders.predictions / "a.nii.gz").write_bytes(b"\x1f\x8b broken")
    with pytest.raises(InputError, match=r"case a: cannot read image .*a\.nii\.gz"):
        load(folders)


def test_array_in_another_orientation_than_its_label_map(folders):
    reference = np.zeros((6, 6, 6), np.uint8)
    reference[0:3, 0:3, 0:3] = 1
    lesion = np.where(reference > 0, 0.9, 0.0).astype(np.float32)
    folders.write_reference("a.nii.gz", reference)
    folders.write_image("a.nii.gz", reference)
    folders.write_npz("a", lesion[::-1])
    with pytest.raises(InputError, match=r"does not belong to .*only 0 of 27 voxels"):
        load(folders)
    folders.write_npz("a", lesion)
    assert load(folders).prediction.sum() == pytest.approx(27 * 0.9)


def test_a_region_whose_label_is_there_because_of_another_region(folders):
    """An undertrained network may find a core outside of any whole: nnU-Net labels it, and the label is in both."""
    reference = np.zeros((6, 6, 6), np.uint8)
    reference[0:3, 0:3, 0:3] = 2
    core = np.where(reference > 0, 0.9, 0.0).astype(np.float32)
    folders.write_reference("a.nii.gz", reference)
    folders.write_image("a.nii.gz", reference)
    whole = LesionClass(scheme(REGIONS), "whole")
    np.savez_compressed(folders.predictions / "a.npz", probabilities=np.stack([core / 10, core]))
    assert load(folders, whole).prediction.max() == pytest.approx(0.09)
    assert load(folders, LesionClass(scheme(REGIONS), "core")).prediction.max() == pytest.approx(0.9)
    np.savez_compressed(folders.predictions / "a.npz", probabilities=np.stack([core / 10, core])[:, ::-1])
    with pytest.raises(InputError, match=r"does not belong to .*only 0 of 27 voxels"):
        load(folders, whole)
