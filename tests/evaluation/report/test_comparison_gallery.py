"""nnunet_lopsided.evaluation.report.comparison_gallery, and what the page of a comparison says in words."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow

from nnunet_lopsided.commands.compare import main
from nnunet_lopsided.errors import InputError
from nnunet_lopsided.evaluation import evaluate_folder
from nnunet_lopsided.evaluation.comparison import Difference, FoundBy, Pair, compare
from nnunet_lopsided.evaluation.intervals import Interval
from nnunet_lopsided.evaluation.report.comparison_gallery import Group, compared_gallery
from nnunet_lopsided.evaluation.report.comparison_page import answer_in_words
from nnunet_lopsided.evaluation.saved import read_evaluation
from nnunet_lopsided.evaluation.writing import write_results
from nnunet_lopsided.images import Geometry, Image, write_image

SHAPE, SPACING = (8, 30, 40), (3.0, 2.0, 1.0)
GEOMETRY = Geometry(SPACING, (0.0, 0.0, 0.0), (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0))
# Lesions by their first voxel and size: seen by both, by a alone, by b alone (two), by none.
BOTH, ONLY_A, ONLY_B, ONLY_B_SMALL, NONE = (
    (slice(1, 2), slice(2, 5), slice(3, 7)),
    (slice(3, 4), slice(10, 12), slice(20, 23)),
    (slice(5, 6), slice(20, 22), slice(8, 13)),
    (slice(6, 7), slice(3, 4), slice(30, 32)),
    (slice(7, 8), slice(25, 27), slice(35, 36)),
)
FALSE_A, FALSE_B = (slice(2, 3), slice(24, 26), slice(2, 4)), (slice(4, 5), slice(14, 15), slice(33, 36))


@pytest.fixture
def world(tmp_path: Path) -> Path:
    """One case, two models, an image whose voxels count themselves along x."""
    for name in ("references", "a", "b", "images"):
        (tmp_path / name).mkdir()
    reference = np.zeros(SHAPE, np.uint8)
    for lesion in (BOTH, ONLY_A, ONLY_B, ONLY_B_SMALL, NONE):
        reference[lesion] = 1
    write_image(tmp_path / "references" / "brain.nii.gz", Image(reference, GEOMETRY))
    counting = np.broadcast_to(np.arange(SHAPE[2], dtype=np.float32), SHAPE)
    for channel in ("0000", "0001"):
        write_image(tmp_path / "images" / f"brain_{channel}.nii.gz", Image(counting.copy(), GEOMETRY))
    for model, calls in (
        ("a", [(BOTH, 0.9), (ONLY_A, 0.5), (FALSE_A, 0.8), (ONLY_B, 0.04)]),
        ("b", [(BOTH, 0.7), (ONLY_B, 0.6), (ONLY_B_SMALL, 0.95), (FALSE_B, 0.4)]),
    ):
        probability = np.zeros(SHAPE, np.float32)
        for place, p in calls:
            probability[place] = p
        np.save(tmp_path / model / "brain.npy", probability)
        result = evaluate_folder(tmp_path / "references", tmp_path / model, n_replicates=0)
        write_results(result, tmp_path / f"out_{model}")
    return tmp_path


def galleries(world: Path, n: int = 6) -> tuple[Group, ...]:
    models = [read_evaluation(world / f"out_{name}", name) for name in "ab"]
    return compared_gallery(compare(models, 0), world / "images", n=n)


def test_what_is_shown_of_whom(world: Path) -> None:
    groups = galleries(world)
    assert [(group.title, len(group.pictures)) for group in groups] == [
        ("Lesions that only a found", 1),
        ("False positives of a, the most confident first", 1),
        ("Lesions that only b found", 2),
        ("False positives of b, the most confident first", 1),
    ]
    alone_a, false_a, alone_b, false_b = (group.pictures for group in groups)
    assert "slice 3 (0 to 7)" in alone_a[0].caption
    assert "slice 2 (0 to 7)" in false_a[0].caption
    assert "confidence 0.80" in false_a[0].caption
    # The larger one first; what the other model made of it stands beside.
    assert ["slice 5" in alone_b[0].caption, "slice 6" in alone_b[1].caption] == [True, True]
    assert alone_b[0].caption.endswith("a gives it a mean probability of 0.04")
    assert alone_b[1].caption.endswith("a gives it a mean probability of 0.00")
    assert "confidence 0.40" in false_b[0].caption
    assert [len(group.pictures) for group in galleries(world, n=1)] == [1, 1, 1, 1]
    assert [len(group.pictures) for group in galleries(world, n=0)] == [0, 0, 0, 0]


def test_the_finder_is_outlined_in_the_place_of_the_finding(world: Path) -> None:
    picture = galleries(world)[0].pictures[0]
    grey = np.array(Pillow.open(io.BytesIO(picture.png)))
    # The image grows along x, so the middle column of the picture is that of the lesion's centre, x = 21.
    row = grey[grey.shape[0] // 2].astype(float)
    inside = (row > 0) & (row < 255)
    assert inside.any()
    assert np.diff(row[inside]).min() >= 0
    assert picture.reference
    assert picture.candidate == picture.reference  # model a called exactly the lesion
    missed = galleries(world)[2].pictures[1]
    assert missed.candidate == missed.reference


def test_the_page_has_the_pictures_and_its_answer(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folders = [str(world / "out_a"), str(world / "out_b")]
    options = ["-o", str(world / "out"), "--images", str(world / "images"), "--image-channel", "1", "--names", "a", "b"]
    assert main([*folders, *options]) == 0
    text = (world / "out" / "compare.html").read_text()
    assert text.count('<figure><div class="slice">') == 5
    assert "Of 5 lesions b found 3 and a 2: 2 that a missed, and it missed 1 that a found." in text
    assert ">brain</b>" in text
    assert main([*folders, *options, "--overwrite", "--anonymous"]) == 0
    text = (world / "out" / "compare.html").read_text()
    assert "brain" not in text
    assert str(world) not in text


def test_without_the_predictions_there_are_no_pictures(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (world / "b").rename(world / "elsewhere")
    options = ["-o", str(world / "out"), "--images", str(world / "images")]
    assert main([str(world / "out_a"), str(world / "out_b"), *options]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "compare without --images" in line
    assert str(world / "b") in line
    assert not (world / "out").exists()
    with pytest.raises(InputError, match="--gallery must be at least 0, got -1"):
        galleries(world, n=-1)


def pair(low: float | None, high: float | None) -> Pair:
    ends = Interval.without("of one patient") if low is None or high is None else Interval(low, high)
    return Pair(
        first=0,
        second=1,
        differences={"map": Difference(0.5, 0.75, 0.25, ends)},
        lesions=FoundBy(both=5, only_first=1, only_second=3, neither=2),
        by_diameter=(),
        by_annotation=(),
    )


@pytest.mark.parametrize(
    ("low", "high", "end"),
    [
        (
            0.1,
            0.4,
            "+0.100 to +0.400, leaves out 0: with other patients of this kind it would most likely have the same sign.",
        ),
        (-0.1, 0.6, "-0.100 to +0.600, holds 0: with other patients it could be the other way round."),
        (0.0, 0.6, "0 to +0.600, holds 0: with other patients it could be the other way round."),
        (None, None, "there is no interval, so nobody can say whether that is chance."),
    ],
)
def test_the_answer_in_words(low: float | None, high: float | None, end: str) -> None:
    lesions, average = answer_in_words(pair(low, high), "A", "B", "patient")
    assert lesions == "Of 11 lesions B found 8 and A 6: 3 that A missed, and it missed 1 that A found."
    assert average.startswith("B has 0.750 average precision, A 0.500; ")
    assert average.endswith(end)
