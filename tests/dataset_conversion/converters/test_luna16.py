"""LUNA16: scans matched with XML files by series, consensus, the paper's split, readers as variants."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from numpy.typing import NDArray

from nnunet_lopsided.dataset_conversion.converters import luna16
from nnunet_lopsided.errors import InputError
from nnunet_lopsided.files.parallel import for_each
from nnunet_lopsided.images import read_image
from nnunet_lopsided.nnunet.raw import RawDataset

Z0, DZ = -120.5, 2.5
UID = "1.3.6.1.4.1.14519.5.2.1.6279.6001.{}"
Box = tuple[int, int, int, int, int]


def add_scan(tree, subset: int, number: int) -> str:
    series = UID.format(number)
    image = sitk.GetImageFromArray(np.random.default_rng(number).integers(-1000, 300, (6, 20, 24)).astype(np.int16))
    image.SetSpacing((0.7, 0.7, DZ))
    image.SetOrigin((-100.0, -90.0, Z0))
    folder = tree.root / f"subset{subset}"
    folder.mkdir(exist_ok=True)
    sitk.WriteImage(image, str(folder / f"{series}.mhd"))
    lungs = tree.root / "seg-lungs-LUNA16"
    lungs.mkdir(exist_ok=True)
    sitk.WriteImage(image > -5000, str(lungs / f"{series}.mhd"))
    return series


def roi(z: int, points: Sequence[tuple[int, int]]) -> str:
    edges = "".join(f"<edgeMap><xCoord>{x}</xCoord><yCoord>{y}</yCoord></edgeMap>" for x, y in points)
    return f"<roi><imageZposition>{Z0 + z * DZ}</imageZposition><inclusion>TRUE</inclusion>{edges}</roi>"


def nodule(box: Box) -> str:
    """Outlines around the voxels z0 <= z < z1, y, x, which lie just outside them; or a point, for an empty box."""
    z0, z1, y, x, size = box
    if z0 == z1:
        return f"<unblindedReadNodule><noduleID>p</noduleID>{roi(z0, [(x, y)])}</unblindedReadNodule>"
    a, b, c, d = x - 1, x + size, y - 1, y + size
    rois = "".join(roi(z, [(a, c), (b, c), (b, d), (a, d)]) for z in range(z0, z1))
    return f"<unblindedReadNodule><noduleID>n{y}{x}</noduleID>{rois}</unblindedReadNodule>"


def add_xml(tree, series: str, sessions: Sequence[Sequence[Box]], path: str | None = None) -> Path:
    body = "".join(f"<readingSession>{''.join(nodule(b) for b in boxes)}</readingSession>" for boxes in sessions)
    head = f"<ResponseHeader><SeriesInstanceUid>{series}</SeriesInstanceUid></ResponseHeader>"
    return tree.text(
        path or f"tcia-lidc-xml/157/{series[-3:]}.xml",
        f'<?xml version="1.0"?><LidcReadMessage xmlns="http://www.nih.gov">{head}{body}</LidcReadMessage>',
    )


BIG: Box = (1, 3, 3, 3, 4)
SMALL: Box = (4, 5, 12, 12, 2)
POINT: Box = (4, 4, 12, 12, 0)
FAR: Box = (0, 1, 16, 18, 2)
SESSIONS = ([BIG, SMALL], [BIG], [BIG, POINT], [BIG, SMALL, FAR])


def filled(*boxes: Box) -> NDArray[Any]:
    mask = np.zeros((6, 20, 24), np.uint8)
    for z0, z1, y, x, size in boxes:
        mask[z0:z1, y : y + size, x : x + size] = 1
    return mask


@pytest.fixture
def scans(tree) -> list[str]:
    """Three training scans, one to validate on, one held out."""
    found = []
    for number, subset in ((101, 0), (102, 5), (103, 5), (107, 7), (109, 9)):
        found.append(add_scan(tree, subset, number))
        add_xml(tree, found[-1], SESSIONS)
    tree.text("tcia-lidc-xml/186/068.xml", '<IdriReadMessage xmlns="http://www.nih.gov/idri"></IdriReadMessage>')
    tree.text("annotations.csv", "seriesuid,coordX,coordY,coordZ,diameter_mm\n")
    return found


@pytest.mark.parametrize(("consensus", "boxes"), [(1, [BIG, SMALL, FAR]), (2, [BIG, SMALL]), (3, [BIG]), (4, [BIG])])
def test_consensus(run, scans, consensus, boxes) -> None:
    written = run("luna16", consensus=consensus)
    np.testing.assert_array_equal(written.label(scans[0]), filled(*boxes))
    np.testing.assert_array_equal(written.label(scans[4], "Ts"), filled(*boxes))
    image = read_image(written.image_path(scans[0], "CT"))
    original = read_image(next(Path(written.conversion["source"]).glob(f"subset0/{scans[0]}.mhd")))
    np.testing.assert_array_equal(image.array, original.array)
    assert image.geometry.difference(original.geometry, 1e-5) is None
    assert written.channels == ["CT"]
    assert written.conversion["options"]["consensus"] == consensus


def test_the_papers_split_by_subset(run, scans) -> None:
    written = run("luna16")
    assert written.splits == [{"train": scans[:3], "val": [scans[3]]}]
    assert [name for name, row in written.cases.items() if row["split"] == "test"] == [scans[4]]
    every = run("luna16", split="all", overwrite=True)
    assert (every.converted.n_train, len(every.splits)) == (5, 5)


def test_readers_as_variants(run, scans, raw, tree) -> None:
    add_xml(tree, scans[2], SESSIONS[:3], f"tcia-lidc-xml/157/{scans[2][-3:]}.xml")
    written = run("luna16", consensus=2, reader_variants=True)
    assert sorted(p.name for p in raw.iterdir()) == [
        "Dataset501_LUNA16",
        *(f"Dataset50{i + 1}_LUNA16Reader{i}" for i in (1, 2, 3, 4)),
    ]
    with (written.folder / "readers.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["id"], *(row[f"reader{slot}"] for slot in (1, 2, 3, 4))) for row in rows[:2]] == [
        ("1", "outlined", "outlined", "outlined", "outlined"),
        ("2", "outlined", "missed", "point", "outlined"),
    ]
    assert {row["case"]: row["reader4"] for row in rows}[scans[2]] == "not read"
    volume = 4 * 0.7 * 0.7 * DZ
    assert float(rows[1]["volume_mm3"]) == pytest.approx(volume)
    assert float(rows[1]["diameter_mm"]) == pytest.approx((6 * volume / np.pi) ** (1 / 3))
    for slot, boxes in enumerate(SESSIONS, 1):
        folder = raw / f"Dataset50{slot + 1}_LUNA16Reader{slot}"
        variant = RawDataset(folder)
        cases = variant.training_cases()
        read = [scans[0], scans[1], scans[3]] if slot == 4 else scans[:4]
        assert [case.name for case in cases] == sorted(read)
        assert cases[0].images == (written.folder / "imagesTr" / f"{scans[0]}_0000.nii.gz",)
        np.testing.assert_array_equal(read_image(cases[0].label).array, filled(*(b for b in boxes if b != POINT)))
        assert json.loads((folder / "dataset.json").read_text())["numTraining"] == len(read)
        test = variant.test_cases()
        np.testing.assert_array_equal(read_image(test[0].label).array, filled(BIG, SMALL))
        assert test[0].label.resolve() == written.folder / "labelsTs" / f"{scans[4]}.nii.gz"
        with (folder / "censored_lesions.csv").open() as file:
            missed = [row["id"] for row in csv.DictReader(file) if row["status"] == "censored"]
        assert missed == (["2"] * 3 if slot in (2, 3) else []), "in the third scan, only one of three saw it"
        about = json.loads((folder / "conversion.json").read_text())
        assert (about["reader_of"], about["reader_slot"], about["n_missed"]) == (written.folder.name, slot, len(missed))
        assert (about["n_train"], about["n_test"]) == (len(read), 1)
        with (folder / "cases.csv").open(newline="") as file:
            listed = {row["case"]: row for row in csv.DictReader(file)}
        assert set(listed) == {*read, scans[4]}
        assert all(row == written.cases[name] for name, row in listed.items())
        fold = json.loads((folder / "splits_final.json").read_text())[0]
        assert fold == {"train": [n for n in scans[:3] if n in read], "val": [scans[3]]}
    assert any("LIDC does not say" in note for note in written.converted.notes)
    assert "Dataset505_LUNA16Reader4 lacks 1 cases that have no reading session 4" in written.converted.notes


def test_a_reader_without_the_scans_to_validate_on_gets_new_folds(run, scans, raw, tree) -> None:
    add_xml(tree, scans[3], SESSIONS[:3], f"tcia-lidc-xml/157/{scans[3][-3:]}.xml")
    written = run("luna16", consensus=2, reader_variants=True)
    assert written.splits == [{"train": scans[:3], "val": [scans[3]]}]
    folder = raw / "Dataset505_LUNA16Reader4"
    folds = json.loads((folder / "splits_final.json").read_text())
    assert sorted(name for fold in folds for name in fold["val"]) == scans[:3]
    assert all(len(fold["train"]) == 2 for fold in folds)
    note = "a fold of the source would be empty on one side: 3 new folds by patient"
    assert f"Dataset505_LUNA16Reader4: {note}" in written.converted.notes
    assert note in json.loads((folder / "conversion.json").read_text())["notes"]


@pytest.mark.parametrize("n", [1, 3])
def test_as_many_xml_files_are_read_at_the_same_time_as_asked(run, scans, monkeypatch, n) -> None:
    asked = []

    def counted(*given):
        asked.append(given[2:])
        return for_each(*given)

    monkeypatch.setattr(luna16, "for_each", counted)
    written = run("luna16", n_workers=n)
    assert asked == [(n, "XML files")]
    assert "n_workers" not in written.conversion["options"]


def test_nnunet_accepts_a_reader_variant(run, scans, raw, verify) -> None:
    run("luna16", reader_variants=True)
    verify(raw / "Dataset503_LUNA16Reader2")


def test_a_readers_omissions_can_be_replayed_on_the_consensus(run, scans, raw) -> None:
    from nnunet_lopsided.commands.censor import main

    written = run("luna16", consensus=2, reader_variants=True)
    missed = raw / "Dataset503_LUNA16Reader2" / "censored_lesions.csv"
    assert main(["-d", "501", "-o", "600", "--mode", "list", "--list", str(missed)]) == 0
    label = read_image(raw / "Dataset600_LUNA16Censored" / "labelsTr" / f"{scans[0]}.nii.gz").array
    np.testing.assert_array_equal(written.label(scans[0]), filled(BIG, SMALL))
    np.testing.assert_array_equal(label, filled(BIG))


def test_variants_of_a_killed_run_are_replaced_and_others_are_not(run, scans, raw) -> None:
    written = run("luna16", reader_variants=True)
    with pytest.raises(InputError, match=r"501 is in use.*--overwrite"):
        run("luna16", reader_variants=True)
    shutil.rmtree(written.folder)  # as if killed before the last rename
    shutil.rmtree(raw / "Dataset502_LUNA16Reader1")
    again = run("luna16", reader_variants=True)
    assert again.folder.is_dir()
    assert (raw / "Dataset502_LUNA16Reader1").is_dir()

    shutil.rmtree(written.folder)
    about = raw / "Dataset504_LUNA16Reader3" / "conversion.json"
    about.write_text(about.read_text().replace("Dataset501_LUNA16", "Dataset777_Other"))
    with pytest.raises(InputError, match="504 is in use"):
        run("luna16", reader_variants=True)
    assert not written.folder.exists()


def test_xml_that_is_missing_ambiguous_or_of_another_scan(run, tree, scans) -> None:
    (tree.root / "tcia-lidc-xml" / "157" / "101.xml").unlink()
    (tree.root / "tcia-lidc-xml" / "157" / "109.xml").unlink()
    add_xml(tree, scans[1], [[BIG]], "tcia-lidc-xml/158/102.xml")
    add_xml(tree, scans[2], SESSIONS, "tcia-lidc-xml/158/103-again.xml")
    add_xml(tree, scans[3], [[(9, 10, 3, 3, 4)], [], [], []])
    with pytest.raises(InputError) as error:
        run("luna16")
    text = str(error.value)
    assert f"case {scans[0]}: no label found in subset0" in text
    assert f"case {scans[4]}: no XML file of its series below" in text
    assert f"case {scans[1]}: " in text
    assert "102.xml differ" in text
    assert f"case {scans[2]}" not in text, "the same reading twice is no problem"
    assert f"case {scans[3]}: label: " in text
    assert "107.xml: no slice at z = -98 mm: it would be number 9.00 of 6" in text


def test_fewer_sessions_than_must_agree(run, tree, scans) -> None:
    add_xml(tree, scans[0], [[BIG], [BIG]])
    with pytest.raises(
        InputError, match=f"case {scans[0]}: label: .*101.xml: expected 3 to 4 reading sessions, found 2"
    ):
        run("luna16")
    assert run("luna16", consensus=2).converted.n_train == 4
    add_xml(tree, scans[0], [[BIG]] * 5)
    add_xml(tree, scans[1], [])
    with pytest.raises(InputError) as error:
        run("luna16", consensus=1, overwrite=True)
    assert "101.xml: expected 1 to 4 reading sessions, found 5" in str(error.value)
    assert "102.xml: expected 1 to 4 reading sessions, found 0" in str(error.value)


def test_every_unreadable_xml_is_named(run, tree, scans) -> None:
    for name in ("157/101.xml", "other/broken.xml"):
        tree.text(f"tcia-lidc-xml/{name}", "<LidcReadMessage")
    with pytest.raises(InputError, match=r"cannot read .*157/101\.xml: .*; cannot read .*other/broken\.xml: "):
        run("luna16")


def test_xml_elsewhere_and_empty_outlines(run, tree, scans, nnunet_paths) -> None:
    elsewhere = nnunet_paths / "xml"
    shutil.move(tree.root / "tcia-lidc-xml", elsewhere)
    with pytest.raises(InputError, match="no label found"):
        run("luna16")
    add_xml(tree, scans[0], [[(1, 2, 5, 5, 0)], *SESSIONS[1:]], "../xml/157/101.xml")
    written = run("luna16", lidc_xml=elsewhere)
    assert f"{scans[0]}: nothing is enclosed by nodule n55 of reader 1" in written.converted.notes


def test_a_scan_without_its_voxels(run, tree, scans) -> None:
    (tree.root / "subset0" / f"{scans[0]}.raw").unlink()
    with pytest.raises(InputError, match=f"case {scans[0]}: channel CT: .*its data file {scans[0]}.raw is missing"):
        run("luna16")


def test_images_as_the_paper_had_them(run, tree, scans) -> None:
    lungs = np.zeros((6, 20, 24), np.uint8)
    lungs[2:4, 5:9, 5:12], lungs[2:4, 12:15, 5:12] = 3, 4
    for series in scans:
        path = tree.root / "seg-lungs-LUNA16" / f"{series}.mhd"
        original = sitk.ReadImage(str(path))
        mask = sitk.GetImageFromArray(lungs)
        mask.CopyInformation(original)
        sitk.WriteImage(mask, str(path))
    ct = tree.root / "subset0" / f"{scans[0]}.mhd"
    sitk.WriteImage(sitk.ReadImage(str(ct)) * 4, str(ct))
    written = run("luna16", paper_images=True)
    image = read_image(written.image_path(scans[0], "CT")).array
    expected = np.clip(read_image(ct).array, -1000, 300)
    assert expected[lungs > 0].max() == 300
    np.testing.assert_array_equal(image, np.where(lungs > 0, expected, -1000))
    np.testing.assert_array_equal(written.label(scans[0]), filled(BIG))

    (tree.root / "seg-lungs-LUNA16" / f"{scans[0]}.mhd").unlink()
    with pytest.raises(InputError, match=f"case {scans[0]}: no lung mask in seg-lungs-LUNA16 below "):
        run("luna16", paper_images=True, overwrite=True)


def test_consensus_out_of_range(tree) -> None:
    with pytest.raises(InputError, match="consensus must be within 1 to 4, got 5"):
        luna16.find(tree.root, consensus=5)
