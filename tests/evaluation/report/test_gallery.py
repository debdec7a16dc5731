"""nnunet_lopsided.evaluation.report.gallery."""

import io
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow

from nnunet_lopsided.errors import InputError
from nnunet_lopsided.evaluation import evaluate_case, evaluate_folder
from nnunet_lopsided.evaluation.report.gallery import Finding, ImageFolder, choose, gallery
from nnunet_lopsided.images import Geometry, Image, write_image
from nnunet_lopsided.pages import html
from nnunet_lopsided.pages.html import part
from nnunet_lopsided.pages.pictures import Picture, Slice, grey_png, orientation, window


def geometry(spacing_mm, origin=0.0):
    ndim = len(spacing_mm)
    return Geometry(spacing_mm, (origin,) * ndim, tuple(np.eye(ndim).ravel().tolist()))


def pixels(picture):
    return np.array(Pillow.open(io.BytesIO(picture.png)))


def case_of(lesions, candidates, name="a"):
    """A case in one row; lesions and candidates as {start: (length, value)}."""
    reference, probability = np.zeros((1, 40), bool), np.zeros((1, 40))
    for start, length in lesions.items():
        reference[0, start : start + length] = True
    for start, (length, value) in candidates.items():
        probability[0, start : start + length] = value
    return evaluate_case(reference, probability, (1, 1), case=name)


def test_the_largest_misses_and_the_most_confident_false_positives_come_first():
    first = case_of({0: 3, 20: 1}, {10: (1, 0.6), 30: (2, 0.9)})
    second = case_of({0: 5, 8: 3}, {15: (3, 0.6), 0: (5, 0.99)}, "b")
    assert choose([first, second], 3) == [
        Finding("missed", 0, 0),  # 3 voxels, as in the second case: the first case first
        Finding("missed", 1, 1),
        Finding("missed", 0, 1),
        Finding("false positive", 0, 1),
        Finding("false positive", 1, 1),  # as confident as the next, but larger
        Finding("false positive", 0, 0),
    ]
    assert [f.kind for f in choose([first, second], 1)] == ["missed", "false positive"]
    assert choose([first, second], 0) == []
    assert choose([case_of({}, {})], 5) == []


@pytest.fixture
def volume(folders):
    """One missed lesion of 2 x 2 x 3 voxels at the border, one false positive; the image counts its voxels."""
    shape, spacing = (6, 12, 16), (3.0, 2.0, 1.0)
    reference, lesion = np.zeros(shape, np.uint8), np.zeros(shape, np.float32)
    reference[2:4, 0:2, 4:7] = 1
    lesion[5, 8:11, 9] = 0.75
    folders.write_reference("a.nii.gz", reference, geometry(spacing))
    folders.write_image("a.nii.gz", (lesion > 0.5).astype(np.uint8), geometry(spacing))
    folders.write_npz("a", lesion)
    images = folders.references.parent / "images"
    images.mkdir()
    for channel in (0, 1):
        values = np.arange(np.prod(shape)).reshape(shape) * (1 + channel)
        write_image(images / f"a_000{channel}.nii.gz", Image(values.astype(np.int16), geometry(spacing)))
    return evaluate_folder(folders.references, folders.predictions, n_replicates=0), images


def test_what_a_picture_shows(volume):
    result, images = volume
    missed, false = gallery(result, images)
    # 22 mm to each side: 11 rows of 2 mm and 22 columns of 1 mm; centroid (2.5, 0.5, 5) -> slice 2, row 0, column 5.
    assert missed.shape == pixels(missed).shape == (23, 45)
    assert missed.spacing_mm == (2.0, 1.0)
    assert missed.reference == "M21 11h3v2h-3z"
    assert missed.candidate == ""
    assert (missed.title, missed.caption) == ("a", "lesion 1, 5.2 mm, slice 2 (0 to 5), mean probability 0.00")
    assert (false.kind, false.reference, false.candidate) == ("false positive", "", "M22 10h1v3h-1z")
    assert false.caption == "candidate 1, 3.3 mm, slice 5 (0 to 5), confidence 0.75"
    # Grey values grow along rows and columns, and beyond the slice there is the lowest value of it.
    shown = pixels(missed)[11:, 17:33].astype(int)
    assert (np.diff(shown, axis=0) > 0).all()
    assert (np.diff(shown, axis=1) >= 0).all()
    assert len(np.unique(pixels(missed)[:11])) == 1


def test_voxels_that_are_not_square_keep_their_shape(volume):
    result, images = volume
    missed, _ = gallery(result, images, n=1)
    shown = part("picture", missed)
    assert 'viewBox="0 0 45 23"' in shown
    assert "aspect-ratio:45/46" in shown  # 45 columns of 1 mm, 23 rows of 2 mm
    assert '<image width="45" height="23"' in shown


def test_outlines_lie_on_black_and_the_reference_shows_through_the_dashes():
    picture = Picture(
        kind="missed",
        title="a",
        caption="",
        png=b"",
        shape=(2, 2),
        spacing_mm=(1.0, 1.0),
        reference="M0 0h1v1h-1z",
        candidate="M0 0h2v2h-2z",
        edges=("R", "L", "A", ""),
    )
    shown = part("picture", picture)
    drawn = re.findall(r'class="outline (\w+)" d="(.*?)"', shown)
    assert drawn == [
        ("casing", "M0 0h1v1h-1z"),
        ("casing", "M0 0h2v2h-2z"),
        ("reference", "M0 0h1v1h-1z"),
        ("candidate", "M0 0h2v2h-2z"),
    ]
    assert re.findall(r'class="edge (\w+)">(\w)<', shown) == [("left", "R"), ("right", "L"), ("top", "A")]


def test_the_colours_of_reference_and_prediction():
    style = Path(html.__file__).with_name("page.css").read_text(encoding="utf-8")
    assert ".reference { stroke: #56b4e9;" in style
    assert ".candidate { stroke: #ffb000;" in style


def test_grey_values_grow_from_black_to_white():
    image = np.array([[0.0, 10.0], [20.0, 40.0]])
    shown = np.array(Pillow.open(io.BytesIO(grey_png(image, (10.0, 30.0)))))
    assert shown.tolist() == [[0, 0], [127, 255]]
    low, high = window(np.arange(1001.0))
    assert (low, high) == (pytest.approx(5), pytest.approx(998))


def test_n_is_per_kind(volume):
    result, images = volume
    assert gallery(result, images, n=0) == ()
    assert len(gallery(result, images, n=5)) == 2
    with pytest.raises(InputError, match="must be at least 0, got -1"):
        gallery(result, images, n=-1)


def test_large_findings_are_shown_whole_and_shrunk(folders):
    reference = np.zeros((400, 500), np.uint8)
    reference[50:350, 100:300] = 1
    folders.write_reference("a.png", reference)
    np.save(folders.predictions / "a.npy", np.zeros((400, 500), np.float32))
    folders.write_reference("../references/ignored_0000.png", reference)
    (folders.references / "ignored_0000.png").rename(folders.references.parent / "a_0000.png")
    result = evaluate_folder(folders.references, folders.predictions, n_replicates=0)
    (picture,) = gallery(result, folders.references.parent)
    assert picture.shape == (451, 451)
    assert pixels(picture).shape == (160, 160)
    assert picture.reference == "M125 75h200v300h-200z"
    assert picture.caption == "lesion 1, 276.4 mm, mean probability 0.00"


def test_voxels_without_annotation_have_no_outline(folders):
    labels = np.zeros((3, 9, 9), np.uint8)
    labels[1, 1:3, 1:3] = 1
    labels[1, 6:, 6:] = 2
    folders.write_reference("a.nii.gz", labels)
    folders.write_npz("a", np.where(labels == 2, np.float32(0.9), np.float32(0)))
    folders.write_dataset_json({"background": 0, "lesion": 1, "ignore": 2})
    folders.write_reference("../a_0000.nii.gz", labels)
    result = evaluate_folder(folders.references, folders.predictions, n_replicates=0)
    (picture,) = gallery(result, folders.references.parent)
    assert (picture.kind, picture.candidate) == ("missed", "")


def test_image_folder(volume, tmp_path):
    _, images = volume
    assert ImageFolder.open(images, 1).path("a") == images / "a_0001.nii.gz"
    with pytest.raises(InputError, match=r"case a: no image a_0002 \(and an ending\) in .*images"):
        ImageFolder.open(images, 2).path("a")
    with pytest.raises(InputError, match="folder not found"):
        ImageFolder.open(tmp_path / "nowhere", 0)
    with pytest.raises(InputError, match="channel must be within 0 to 9999, got -1"):
        ImageFolder.open(images, -1)


def test_an_image_that_lies_elsewhere_is_refused(volume):
    result, images = volume
    write_image(images / "a_0000.nii.gz", Image(np.zeros((6, 12, 16), np.int16), geometry((3.0, 2.0, 1.0), 5.0)))
    with pytest.raises(InputError, match=r"case a: reference and image .*a_0000.nii.gz differ: origin_mm"):
        gallery(result, images)
    write_image(images / "a_0000.nii.gz", Image(np.zeros((6, 12, 15), np.int16), geometry((3.0, 2.0, 1.0))))
    with pytest.raises(InputError, match=r"case a: .* differ: shape \(6, 12, 16\) versus \(6, 12, 15\)"):
        gallery(result, images)


def test_colour_images_are_shown_in_grey(folders):
    reference = np.zeros((20, 30), np.uint8)
    reference[4:7, 5:9] = 1
    folders.write_reference("a.png", reference)
    np.save(folders.predictions / "a.npy", np.zeros((20, 30), np.float32))
    colours = np.zeros((20, 30, 3), np.uint8)
    colours[..., 0] = np.arange(30) * 8
    Pillow.fromarray(colours).save(folders.references.parent / "a_0000.png")
    result = evaluate_folder(folders.references, folders.predictions, n_replicates=0)
    (picture,) = gallery(result, folders.references.parent)
    # Voxel (5, 6) is in the middle; columns get brighter, rows are alike.
    shown = pixels(picture)[22:30, 20:40].astype(int)
    assert (np.diff(shown, axis=1) > 0).all()
    assert (shown == shown[0]).all()


@pytest.mark.parametrize(
    ("x", "y", "edges", "steps"),
    [
        ((1, 0, 0), (0, 1, 0), ("R", "L", "A", "P"), (1, 1)),
        ((-1, 0, 0), (0, -1, 0), ("R", "L", "A", "P"), (-1, -1)),  # RAS, as nibabel writes
        ((0.97, 0.24, 0), (-0.24, 0.97, 0), ("R", "L", "A", "P"), (1, 1)),  # tilted by 14 degrees
        ((1, 0, 0), (0, 0, 1), ("R", "L", "S", "I"), (-1, 1)),  # coronal
        ((0, -1, 0), (0, 0, -1), ("A", "P", "S", "I"), (1, -1)),  # sagittal
        ((0.7, 0.7, 0), (-0.7, 0.7, 0), ("", "+x", "", "+y"), (None, None)),
    ],
)
def test_orientation(x, y, edges, steps):
    direction = np.column_stack([x, y, np.cross(x, y)]).ravel().tolist()
    found, turned = orientation(direction)
    assert (found, tuple(s.step for s in turned)) == (edges, steps)
    assert orientation((1, 0, 0, 1)) == (("", "+x", "", "+y"), (slice(None), slice(None)))


def test_pictures_are_turned_with_their_outlines_and_nan_is_dark(folders):
    """The same head stored the other way round gives the same picture."""
    images = folders.references.parent / "images"
    images.mkdir()
    reference, values = np.zeros((3, 30, 40), np.uint8), np.random.default_rng(0).random((3, 30, 40)).astype(np.float32)
    reference[1, 5:8, 10:15] = 1
    values[0, :4] = np.nan
    for case, step, sign in (("a", 1, 1.0), ("b", -1, -1.0)):
        turned = Geometry((1.0,) * 3, (0.0,) * 3, (sign, 0.0, 0.0, 0.0, sign, 0.0, 0.0, 0.0, 1.0))
        folders.write_reference(f"{case}.nii.gz", reference[:, ::step, ::step].copy(), turned)
        np.save(folders.predictions / f"{case}.npy", np.zeros(reference.shape, np.float32))
        write_image(images / f"{case}_0000.mha", Image(values[:, ::step, ::step].copy(), turned))
    a, b = gallery(evaluate_folder(folders.references, folders.predictions, n_replicates=0), images)
    assert a.edges == b.edges == ("R", "L", "A", "P")
    assert a.reference == b.reference
    np.testing.assert_array_equal(pixels(a), pixels(b))
    assert pixels(a).std() > 10
    assert '<span class="edge left">R</span>' in part("picture", a)


@pytest.mark.parametrize(
    ("axis", "edges", "steps"), [(0, "RLAP", (-1, -1)), (1, "RLSI", (-1, -1)), (2, "APSI", (-1, -1))]
)
def test_axial_coronal_and_sagittal_slices(axis, edges, steps):
    """Of voxels that grow to the patient's right, front and head: all axes are flipped."""
    found, (rows, columns) = orientation((-1, 0, 0, 0, -1, 0, 0, 0, 1), axis)
    assert "".join(found) == edges
    assert (rows.step, columns.step) == steps


def test_a_slice_shows_its_centre_in_the_middle():
    volume = np.arange(4 * 9 * 11).reshape(4, 9, 11)
    geometry = Geometry((5.0, 1.0, 1.0), (0.0, 0.0, 0.0), (1.0, 0, 0, 0, 1, 0, 0, 0, 1))
    for axis, shape in ((0, (45, 45)), (1, (11, 45)), (2, (11, 45))):
        shown = Slice(geometry, np.array([2, 3, 4]), np.array([[2, 3], [3, 4], [4, 5]]), axis)
        part = shown.around(volume, -1)
        assert part.shape == shape
        assert part[shape[0] // 2, shape[1] // 2] == volume[2, 3, 4]
        assert shown.of(volume).shape == tuple(n for i, n in enumerate(volume.shape) if i != axis)
