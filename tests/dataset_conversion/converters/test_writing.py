"""What holds for every converter: geometry, links, splits, refusals, bytes."""

from __future__ import annotations

import dataclasses
import errno
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from nnunet_lopsided.dataset_conversion import converters
from nnunet_lopsided.dataset_conversion.converters import case_files
from nnunet_lopsided.dataset_conversion.converters.options import Options
from nnunet_lopsided.errors import InputError, InputErrors
from nnunet_lopsided.images import Geometry, Image, read_image, write_image

CHANNELS = {"flair": "*_flair.nii.gz", "t1": "*_t1.nii.gz"}
OPTIONS = {"channels": CHANNELS, "label": "*_seg.nii.gz"}
BY_PATIENT = {**OPTIONS, "patients_regex": r"(p\d+)_(\d)"}


def add(tree, case: str, *values: int, shape=None, **label) -> None:
    for channel in CHANNELS:
        tree.image(f"{case}/{case}_{channel}.nii.gz")
    tree.label(f"{case}/{case}_seg.nii.gz", *(values or (1,)), **label)


def moved(geometry: Geometry, **change) -> Geometry:
    return dataclasses.replace(geometry, **change)


@pytest.fixture
def geometry(tree) -> Geometry:
    add(tree, "p0")
    geometry = read_image(tree.root / "p0" / "p0_seg.nii.gz").geometry
    shutil.rmtree(tree.root / "p0")
    return geometry


def content_of(folder: Path) -> dict[str, bytes | str]:
    return {
        str(p.relative_to(folder)): os.readlink(p) if p.is_symlink() else p.read_bytes()
        for p in sorted(folder.rglob("*"))
        if not p.is_dir()
    }


def test_files_are_linked_and_nnunet_accepts_them(tree, run, raw, verify) -> None:
    for case in ("p1", "p2", "p3"):
        add(tree, case, 1, 1)
    written = run("folder", **OPTIONS)
    assert written.folder == raw / "Dataset501_Converted"
    for kind in ("imagesTr", "labelsTr"):
        assert all((written.folder / kind / name).is_symlink() for name in written.names(kind))
    assert written.converted.n_lesions == 6
    verify(written.folder)


def test_links_are_relative_below_nnunet_raw_and_absolute_elsewhere(tree, run, raw) -> None:
    add(tree, "p1")
    written = run("folder", **OPTIONS)
    assert os.readlink(written.image_path("p1", "t1")) == str((tree.root / "p1" / "p1_t1.nii.gz").resolve())
    shutil.copytree(tree.root, raw / "sources")
    inside = run("folder", source=raw / "sources", overwrite=True, **OPTIONS)
    assert os.readlink(inside.image_path("p1", "t1")) == "../../sources/p1/p1_t1.nii.gz"


def test_copies_are_whole_and_from_a_read_only_source(tree, run) -> None:
    add(tree, "p1")
    before = content_of(tree.root)
    for path in [tree.root, *tree.root.rglob("*")]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    written = run("folder", copy=True, **OPTIONS)
    path = written.image_path("p1", "t1")
    assert not path.is_symlink()
    assert path.read_bytes() == before["p1/p1_t1.nii.gz"]
    assert path.stat().st_mode & 0o200, "a copy is the user's own"
    assert content_of(tree.root) == before


def test_the_same_command_gives_the_same_bytes(tree, run) -> None:
    for case in ("p1", "p2", "p3"):
        add(tree, case, 2, 1)  # relabelled, hence written
        tree.image(f"{case}/{case}_t1.nii.gz").unlink()
        tree.image(f"{case}/{case}_t1.nii")
    options = {**OPTIONS, "channels": {"flair": "*_flair.nii.gz", "t1": "*_t1.nii"}, "lesion_values": [1, 2]}
    first = run("folder", test_fraction=0.3, seed=5, **options)
    before = content_of(first.folder)
    assert not first.image_path("p1", "t1").is_symlink() or not first.image_path("p2", "t1").is_symlink()
    second = run("folder", test_fraction=0.3, seed=5, overwrite=True, n_workers=1, **options)
    assert content_of(second.folder) == before
    third = run("folder", name="Elsewhere", dataset_id=502, test_fraction=0.3, seed=5, **options)
    assert content_of(third.folder) == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"origin_mm": (-3.0, 4.0, 5.6)}, r"origin_mm \(-3, 4, 5.5\) versus \(-3, 4, 5.6\)"),
        ({"spacing_mm": (2.0, 1.0, 0.502)}, r"spacing_mm \(2, 1, 0.5\) versus \(2, 1, 0.502\)"),
        (
            {"direction": (0.8, -0.6, 0.0, 0.6, 0.8, 0.0, 0.0, 0.0, 1.0)},
            r"direction \(1, .* versus \(0\.8, -0\.6, ",
        ),
    ],
)
def test_a_label_of_another_geometry(tree, run, geometry, change, message) -> None:
    add(tree, "p1")
    add(tree, "p2", geometry=moved(geometry, **change))
    with pytest.raises(InputError) as error:
        run("folder", **OPTIONS)
    text = str(error.value)
    assert "case p1" not in text
    assert "channel flair" in text
    assert "channel t1 (" in text
    with pytest.raises(InputError, match=f"case p2: .*versus the label: {message}"):
        run("folder", **OPTIONS)

    fixed = run("folder", fix_geometry=True, **OPTIONS)
    assert read_image(fixed.folder / "labelsTr" / "p2.nii.gz").geometry.difference(geometry, 1e-6) is None
    assert list(fixed.conversion["geometry_fixes"]) == ["p2"]
    assert "1 labels take the geometry of their images: p2" in fixed.converted.notes
    assert (fixed.folder / "labelsTr" / "p1.nii.gz").is_symlink()


@pytest.mark.parametrize(
    "direction",
    [
        (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, -1.0),  # upside down
        (0.0, 1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0),  # x and y exchanged
        (0.0, -1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0),  # turned by 90 degrees
    ],
)
def test_fixing_does_not_flip_lesions(tree, run, geometry, direction) -> None:
    add(tree, "p1", geometry=moved(geometry, direction=direction, origin_mm=(0.0, 0.0, 11.0)))
    add(tree, "p2")
    with pytest.raises(InputError, match=r"versus the label: origin_mm .*; direction \(1, "):
        run("folder", **OPTIONS)
    message = r"^case p1: label .*p1_seg\.nii\.gz: its axes point elsewhere .* would flip or turn its lesions"
    with pytest.raises(InputError, match=message):
        run("folder", fix_geometry=True, **OPTIONS)


def test_files_that_match_no_pattern_are_noted(tree, run) -> None:
    add(tree, "p1")
    add(tree, "p2")
    for name in ("p3_t1.NII.GZ", "p3_seg.nii"):
        tree.text(name)
    notes = run("folder", **OPTIONS).converted.notes
    assert "2 image files match no pattern: p3_seg.nii, p3_t1.NII.GZ" in notes


def test_what_fixing_the_label_does_not_fix(tree, run, geometry) -> None:
    add(tree, "p1")
    tree.image("p1/p1_t1.nii.gz", geometry=moved(geometry, origin_mm=(0.0, 0.0, 0.0)))
    add(tree, "p2")
    tree.write("p2/p2_seg.nii.gz", np.ones((4, 6, 7), np.uint8))
    with pytest.raises(InputError) as error:
        run("folder", fix_geometry=True, **OPTIONS)
    assert "case p1: channel t1" in str(error.value)
    assert "case p2: channel flair" in str(error.value)
    assert "shape (4, 6, 8) versus (4, 6, 7)" in str(error.value)


def test_headers_that_differ_less_than_the_tolerance(tree, run, geometry, verify) -> None:
    add(tree, "p1", geometry=moved(geometry, spacing_mm=(2.0005, 1.0, 0.5), origin_mm=(-3.0005, 4.0, 5.5)))
    add(tree, "p2")
    written = run("folder", **OPTIONS)
    label = written.folder / "labelsTr" / "p1.nii.gz"
    assert not label.is_symlink()
    assert read_image(label).geometry.spacing_mm == pytest.approx((2.0, 1.0, 0.5), abs=1e-6)
    verify(written.folder)

    tree.image("p2/p2_t1.nii.gz", geometry=moved(geometry, spacing_mm=(2.0005, 1.0, 0.5)))
    with pytest.raises(InputError, match=r"case p2: channel t1 .*nnU-Net refuses channels of different spacing"):
        run("folder", overwrite=True, **OPTIONS)


def test_every_bad_case_is_named_at_once_and_nothing_is_left(tree, run, raw) -> None:
    add(tree, "p1")
    add(tree, "p2")
    tree.write("p2/p2_t1.nii.gz", np.zeros((4, 6, 7), np.int16))
    add(tree, "p3")
    broken = tree.root / "p3" / "p3_flair.nii.gz"
    broken.write_bytes(broken.read_bytes()[:-20])
    (tree.root / "p3" / "p3_seg.nii.gz").write_bytes(b"nothing")
    add(tree, "p4", 1, 7)
    add(tree, "p5")
    (tree.root / "p5" / "p5_t1.nii.gz").unlink()
    add(tree, "p6")
    (tree.root / "p6" / "p6_seg.nii.gz").unlink()
    with pytest.raises(InputError) as error:
        run("folder", **OPTIONS)
    text = str(error.value)
    assert isinstance(error.value, InputErrors)
    assert [problem[:8] for problem in error.value.problems] == [f"case p{i}:" for i in (2, 3, 4, 5, 6)]
    for part in (
        "case p3: channel flair: cannot read image ",
        "broken gzip: the file ends too early",
        "label: cannot read image ",
        "case p4: label ",
        "unknown label value 7",
        "case p5: missing in p5: t1",
        "case p6: no label found in p6",
    ):
        assert part in text
    assert not list(raw.iterdir())
    left = run("folder", exclude=frozenset({"p2", "p3", "p4", "p5", "p6"}), **OPTIONS)
    assert list(left.cases) == ["p1"]
    assert "left out as asked: p2, p3, p4, p5, p6" in left.converted.notes


def test_float_labels_become_integers(tree, run) -> None:
    add(tree, "p1", 1, 1, dtype=np.float32)
    written = run("folder", **OPTIONS)
    assert written.label("p1").dtype == np.uint8
    assert written.label("p1").sum() == 2


def test_test_cases_take_their_whole_patient(tree, run) -> None:
    for case in ("p1_0", "p1_1", "p2_0", "p3_0", "p3_1"):
        add(tree, case)
    for wanted in ("p3_0", "p3"):
        written = run("folder", test_cases=frozenset({wanted}), overwrite=True, **BY_PATIENT)
        assert [name for name, row in written.cases.items() if row["split"] == "test"] == ["p3_0", "p3_1"]
        assert written.names("labelsTs") == ["p3_0.nii.gz", "p3_1.nii.gz"]
        assert len(written.names("imagesTs")) == 4
        assert (written.converted.n_train, written.converted.n_test, written.dataset_json["numTraining"]) == (3, 2, 3)
    assert written.cases["p3_1"]["time_point"] == "1"
    assert [fold["val"] for fold in written.splits] in ([["p1_0", "p1_1"], ["p2_0"]], [["p2_0"], ["p1_0", "p1_1"]])


def test_unlabelled_cases_can_be_test_cases(tree, run) -> None:
    for case in ("p1_0", "p1_1", "p2_0", "p3_0"):
        add(tree, case)
    for case in ("p1_0", "p1_1"):
        (tree.root / case / f"{case}_seg.nii.gz").unlink()
    with pytest.raises(InputError, match="case p1_0: no label found"):
        run("folder", **BY_PATIENT)
    written = run("folder", test_cases=frozenset({"p1"}), **BY_PATIENT)
    assert len(written.names("imagesTs")) == 4
    assert written.names("labelsTs") == []
    assert (written.converted.n_train, written.converted.n_test) == (2, 2)
    assert written.cases["p1_0"]["n_lesions"] == ""


def test_label_fixes_hold_for_any_nonzero_value_too(tree, run) -> None:
    add(tree, "p1", 1, 6)
    options = {**OPTIONS, "lesion_values": None}
    fixed = run("folder", label_fixes={"p1": {6: 0}}, **options)
    assert fixed.label("p1").sum() == 1
    assert fixed.conversion["label_fixes"] == {"p1": {"6": 0}}
    with pytest.raises(InputError, match=r"case p1: label .*label value 6 cannot be read as 9, which is unknown"):
        run("folder", label_fixes={"p1": {6: 9}}, overwrite=True, **OPTIONS)


def test_a_test_fraction_out_of_range_is_refused_before_anything_is_read() -> None:
    with pytest.raises(InputError, match=r"test fraction must be above 0 and below 1, got 1\.5"):
        Options(dataset_id=501, name="", test_fraction=1.5)


def test_test_fraction_is_of_patients_and_stratified(tree, run) -> None:
    for patient in range(8):
        for time in range(2):
            add(tree, f"p{patient}_{time}", *[1] * (2 if patient < 4 else 12))
    written = run("folder", test_fraction=0.25, seed=2, **BY_PATIENT)
    test = {name[:2] for name, row in written.cases.items() if row["split"] == "test"}
    training = {name[:2] for name, row in written.cases.items() if row["split"] == "train"}
    assert len(test) == 2
    assert not test & training
    assert {int(p[1]) < 4 for p in test} == {True, False}
    assert sorted(written.names("labelsTs")) == sorted(f"{p}_{t}.nii.gz" for p in test for t in range(2))
    assert len(written.names("imagesTr")) == 2 * 12
    assert all((written.folder / "imagesTs" / name).is_file() for name in written.names("imagesTs"))
    assert (written.conversion["seed"], written.conversion["test_fraction"]) == (2, 0.25)
    by_seed = []
    for seed in range(4):
        again = run("folder", test_fraction=0.25, seed=seed, overwrite=True, **BY_PATIENT)
        by_seed.append({name[:2] for name, row in again.cases.items() if row["split"] == "test"})
    assert by_seed[2] == test
    assert len({frozenset(chosen) for chosen in by_seed}) > 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"test_cases": frozenset({"p9"})}, "test case not found in the source: p9"),
        ({"exclude": frozenset({"p9"})}, "excluded case not found in the source: p9"),
        ({"label_fixes": {"p9": {6: 0}}}, "case with label fix not found in the source: p9"),
        ({"test_cases": frozenset({"p1"})}, "all 1 cases are test cases: none is left to train on"),
        ({"exclude": frozenset({"p1"})}, "no case is left to convert"),
        ({"test_fraction": 0.5}, "at least 2 patients"),
        ({"dataset_id": 1000}, "dataset id must be within 1 to 999"),
        ({"n_workers": 0}, r"number of workers \(-np\) must be at least 1, got 0"),
    ],
)
def test_refused_options(tree, run, raw, options, message) -> None:
    add(tree, "p1")
    with pytest.raises(InputError, match=message):
        run("folder", **options, **OPTIONS)
    assert not list(raw.iterdir())


def test_a_patient_on_both_sides_of_a_release(tree, run) -> None:
    for side, case in (("train", "100101A"), ("test", "100101B"), ("train", "100102A")):
        for name in ("T1pre", "T1post", "FLAIR"):
            tree.image(f"{side}/{case}/{case}_{name}.nii.gz")
        if side == "train":
            tree.label(f"{side}/{case}/{case}_seg.nii.gz", 1)
    message = r"^patient 100101 is in the training set \(100101A\) and in the test set \(100101B\)$"
    with pytest.raises(InputError, match=message):
        run("ucsf-bmsr")


def test_only_a_conversion_is_overwritten(tree, run, raw) -> None:
    add(tree, "p1")
    written = run("folder", **OPTIONS)
    with pytest.raises(InputError, match=r"501 is in use.*; --overwrite replaces it"):
        run("folder", **OPTIONS)
    before = content_of(written.folder)
    add(tree, "p2", 9)
    with pytest.raises(InputError, match="case p2"):
        run("folder", overwrite=True, **OPTIONS)
    assert content_of(written.folder) == before
    (written.folder / "conversion.json").unlink()
    with pytest.raises(InputError, match=r"it holds no conversion\.json"):
        run("folder", overwrite=True, **OPTIONS)


def full(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize(
    "where", ["case_files.link_file", "case_files.write_image", "writing.write_json", "case_files.shutil.copyfileobj"]
)
def test_a_full_disk_leaves_nothing(tree, run, raw, monkeypatch, where) -> None:
    add(tree, "p1", 2)
    add(tree, "p2", 1)
    tree.image("p1/p1_t1.nii.gz").unlink()
    tree.image("p1/p1_t1.nii")
    options = {**OPTIONS, "channels": {"flair": "*_flair.nii.gz"}, "lesion_values": [1, 2]}
    if where == "case_files.shutil.copyfileobj":
        options["channels"], options["label"] = {"t1": "*_t1.nii"}, "p1/*_seg.nii.gz"
        add(tree, "p2")
        shutil.rmtree(tree.root / "p2")
    monkeypatch.setattr(f"{converters.__name__}.{where}", full)
    with pytest.raises(InputError, match="No space left on device"):
        run("folder", **options)
    assert not list(raw.iterdir())


def test_a_disk_that_fills_up_silently(tree, run, raw, monkeypatch) -> None:
    """SimpleITK reports neither a short write nor a failed one: what it wrote is looked at."""

    def short(path: Path, image: Image) -> None:
        write_image(path, image)
        path.write_bytes(path.read_bytes()[:-30])

    add(tree, "p1", 2)
    monkeypatch.setattr(case_files, "write_image", short)
    with pytest.raises(
        (OSError, InputError), match=r"cannot write .*p1\.nii\.gz: the file is incomplete, is the disk full\?"
    ):
        run("folder", **OPTIONS, lesion_values=[1, 2])
    assert not list(raw.iterdir())


def test_a_file_system_without_links(tree, run, monkeypatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    add(tree, "p1")
    monkeypatch.setattr(case_files, "link_file", refuse)
    with pytest.raises(InputError, match="file system without symbolic links: use --copy"):
        run("folder", **OPTIONS)
    assert run("folder", copy=True, **OPTIONS).converted.n_train == 1
