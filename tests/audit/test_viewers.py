"""Candidates in other viewers' files, in a frame that is turned, anisotropic and off the origin, and back."""

import gzip
import json
import re

import jsonschema
import nibabel
import numpy as np
import PIL.Image
import pytest
import SimpleITK
from skimage.draw import polygon2mask

from nnunet_lopsided.audit.decisions import audit_and_decisions
from nnunet_lopsided.audit.repair import write_repaired_variant
from nnunet_lopsided.audit.stored import StoredCandidate, read_audit
from nnunet_lopsided.audit.viewers.coco import segmentation
from nnunet_lopsided.audit.viewers.slicer import read_segments
from nnunet_lopsided.commands.audit import main
from nnunet_lopsided.errors import InputError
from nnunet_lopsided.images import Geometry, Image, read_image, write_image
from tests.audit.conftest import TURNED


def nifti(path):
    return nibabel.load(path)


def export(written, viewer, *arguments):
    folder = written.root / "out"
    assert main(["export", str(written.audit), "--to", viewer, "-o", str(folder), *arguments]) == 0
    return folder


def shown_by_case(written, n=30):
    found: dict[str, list[StoredCandidate]] = {}
    for c in read_audit(written.audit).candidates[:n]:
        found.setdefault(c.case, []).append(c)
    return found


def places_in_lps(written, case):
    """Centroids of the candidates, by nibabel: RAS, and so x and y with the other sign."""
    image = nifti(written.audit / "maps" / f"{case}.nii.gz")
    numbers = np.asarray(image.dataobj)
    return {
        int(n): (image.affine @ [*np.argwhere(numbers == n).mean(axis=0), 1])[:3] * (-1, -1, 1)
        for n in np.unique(numbers[numbers > 0])
    }


@pytest.fixture
def written(turned):
    return turned


# What schema 1.0.0 of Slicer's module Markups asks of a list of points.
NUMBERS = {"type": "array", "items": {"type": "number"}}
COLOUR = {"type": "array", "items": {"type": "number", "minimum": 0, "maximum": 1}, "minItems": 3, "maxItems": 3}
GLYPHS = ["Vertex2D", "Dash2D", "Cross2D", "ThickCross2D", "StarBurst2D", "Sphere3D", "Diamond3D"]  # and others
SCHEMA = {
    "type": "object",
    "required": ["@schema", "markups"],
    "properties": {
        "@schema": {"type": "string", "pattern": r"markups-schema-v1\.[0-9]\.[0-9]\.json#?$"},
        "markups": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["type"],
                "additionalProperties": False,
                "properties": {
                    "type": {"enum": ["Fiducial", "Line", "Angle", "Curve", "ClosedCurve", "Plane"]},
                    "name": {"type": "string"},
                    "coordinateSystem": {"enum": ["LPS", "RAS"]},
                    "coordinateUnits": {"enum": ["mm", "um"]},  # since schema 1.0.2
                    "locked": {"type": "boolean"},
                    "fixedNumberOfControlPoints": {"type": "boolean"},
                    "labelFormat": {"type": "string"},
                    "lastUsedControlPointNumber": {"type": "integer"},
                    "measurements": {"type": "array"},
                    "display": {
                        "type": "object",
                        "properties": {
                            "visibility": {"type": "boolean"},
                            "opacity": {"type": "number", "minimum": 0, "maximum": 1},
                            "color": COLOUR,
                            "selectedColor": COLOUR,
                            "activeColor": COLOUR,
                            "pointLabelsVisibility": {"type": "boolean"},
                            "textScale": {"type": "number", "minimum": 0},
                            "glyphType": {"enum": GLYPHS},
                            "glyphScale": {"type": "number", "minimum": 0},
                        },
                    },
                    "controlPoints": {
                        "type": "array",
                        "items": {
                            "type": "object",
                            "required": ["position"],
                            "additionalProperties": False,
                            "properties": {
                                "id": {"type": "string"},
                                "label": {"type": "string"},
                                "description": {"type": "string"},
                                "associatedNodeID": {"type": "string"},
                                "position": {**NUMBERS, "minItems": 3, "maxItems": 3},
                                "orientation": {**NUMBERS, "minItems": 9, "maxItems": 9},
                                "selected": {"type": "boolean"},
                                "locked": {"type": "boolean"},
                                "visibility": {"type": "boolean"},
                                "positionStatus": {"enum": ["undefined", "preview", "defined"]},
                            },
                        },
                    },
                },
            },
        },
    },
}


def test_points_for_slicer_lie_where_the_candidates_do(written):
    folder = export(written, "slicer", "--shown", "30")
    by_case = shown_by_case(written)
    assert sorted(path.name for path in folder.iterdir() if path.is_dir()) == sorted(by_case)
    for case, candidates in by_case.items():
        places, found = places_in_lps(written, case), {}
        for tier in ("likely", "possible", "unlikely"):
            content = json.loads((folder / case / f"{case}_{tier}.mrk.json").read_text())
            jsonschema.validate(content, SCHEMA)
            (markup,) = content["markups"]
            assert markup["coordinateSystem"] == "LPS"
            for point in markup["controlPoints"]:
                number = int(point["id"].removeprefix("candidate_"))
                found[number] = tier
                assert point["position"] == pytest.approx(places[number], abs=1e-3)
        least = {"likely": 0.5, "possible": 0.1, "unlikely": 0}
        assert sorted(found) == sorted(c.number for c in candidates)
        for c in candidates:
            assert found[c.number] == next(name for name, score in least.items() if c.score >= score)


def nrrd(path):
    """Header and voxels of a NRRD, by hand: fields as text, and the array in the order of its axes."""
    head, _, data = path.read_bytes().partition(b"\n\n")
    lines = head.decode().splitlines()
    assert lines[0].startswith("NRRD000")
    fields = dict(re.split(r":=|: ", line, maxsplit=1) for line in lines[1:] if line and line[0] != "#")
    assert fields["encoding"] in ("gzip", "gz")
    kinds = {"unsigned char": np.uint8, "uint8": np.uint8, "unsigned short": np.uint16}
    sizes = [int(size) for size in fields["sizes"].split()]
    array = np.frombuffer(gzip.decompress(data), kinds[fields["type"]]).reshape(sizes, order="F")
    return fields, array


def vectors(text):
    return np.array([[float(x) for x in part.split(",")] for part in re.findall(r"\(([^)]*)\)", text)])


def test_segments_for_slicer(written):
    folder = export(written, "slicer", "--shown", "30")
    for case, candidates in shown_by_case(written).items():
        path = folder / case / f"{case}_candidates.seg.nrrd"
        fields, array = nrrd(path)
        assert fields["space"] == "left-posterior-superior"
        (origin,), directions = vectors(fields["space origin"]), vectors(fields["space directions"])
        numbers = np.asarray(nifti(written.audit / "maps" / f"{case}.nii.gz").dataobj)
        own = [c.number for c in candidates]
        assert np.array_equal(array, np.where(np.isin(numbers, own), numbers, 0))
        places = places_in_lps(written, case)
        for i, c in enumerate(candidates):
            assert fields[f"Segment{i}_ID"] == f"candidate_{c.number}"
            assert fields[f"Segment{i}_Name"] == f"candidate {c.number} ({c.score:.2f})"
            assert (fields[f"Segment{i}_LabelValue"], fields[f"Segment{i}_Layer"]) == (str(c.number), "0")
            assert fields[f"Segment{i}_Extent"] == "0 35 0 35 0 5"
            centroid = np.argwhere(array == c.number).mean(axis=0)
            assert origin + centroid @ directions == pytest.approx(places[c.number], abs=1e-3)
        assert fields["Segmentation_MasterRepresentation"] == "Binary labelmap"


def test_segments_as_another_library_reads_them(written):
    other = pytest.importorskip("nrrd", reason="pynrrd is not installed")
    folder = export(written, "slicer", "--shown", "5")
    for path in folder.glob("*/*.seg.nrrd"):
        array, header = other.read(str(path))
        _, ours = nrrd(path)
        assert np.array_equal(array, ours)
        assert header["Segment0_Name"].startswith("candidate ")


def change_point(folder, case, number, **changes):
    """Delete the point of a candidate, or change it."""
    for path in (folder / case).glob("*.mrk.json"):
        content = json.loads(path.read_text())
        points = content["markups"][0]["controlPoints"]
        for point in [p for p in points if p["id"] == f"candidate_{number}"]:
            if changes:
                point.update(changes)
            else:
                points.remove(point)
            path.write_text(json.dumps(content))


def change_segments(folder, case, change, crop=None):
    """As Slicer saves a segmentation: perhaps only the part that it needs, with the fields that it had."""
    path = folder / case / f"{case}_candidates.seg.nrrd"
    itk = SimpleITK.ReadImage(str(path))
    array = SimpleITK.GetArrayFromImage(itk)
    change(array)
    new = SimpleITK.GetImageFromArray(array)
    new.CopyInformation(itk)
    for key in itk.GetMetaDataKeys():
        new.SetMetaData(key, itk.GetMetaData(key))
    if crop is not None:
        cut = new[tuple(crop)]
        for key in itk.GetMetaDataKeys():
            cut.SetMetaData(key, itk.GetMetaData(key))
        new = cut
    SimpleITK.WriteImage(new, str(path), useCompression=True)


def imported(folder, *arguments):
    assert main(["import", str(folder), *arguments]) == 0
    return folder.with_name(f"{folder.name}-decisions")


def test_back_from_slicer(written, capsys):
    folder = export(written, "slicer")
    case, own = next((k, v) for k, v in shown_by_case(written, 50).items() if len(v) == 5)
    a, b, c, d, e = (one.number for one in own)
    change_point(folder, case, a)
    change_point(folder, case, b, selected=False)
    change_point(folder, case, c, description="Accepted: surely, on T1")
    change_point(folder, case, e, description="ask Ada")
    drawn = []

    def draw(array):
        place = np.argwhere(array == d)[0]
        array[tuple(place)] = 0
        array[0, 20:22, 11:13] = d
        drawn.append(array == d)

    change_segments(folder, case, draw)
    back = imported(folder, "--reader", "Bob")
    printed = capsys.readouterr().out
    assert "1 cases were saved since the export: 2 accept, 2 reject, 0 unsure" in printed
    assert f"lopsided-audit apply {back / 'decisions.csv'} --maps {back / 'maps'} -o ID" in printed
    audit, decisions = audit_and_decisions(back / "decisions.csv")
    assert {n: decisions.verdicts.get((case, n)) for n in (a, b, c, d, e)} == {
        a: "reject",
        b: "reject",
        c: "accept",
        d: "accept",
        e: None,
    }
    assert decisions.remarks[case, c] == {"reader": "Bob", "comment": "surely, on T1"}
    assert decisions.remark((case, e), "comment") == "ask Ada"
    before = read_image(written.raw / "labelsTr" / f"{case}.nii.gz").array
    numbers = read_image(written.audit / "maps" / f"{case}.nii.gz").array
    made = write_repaired_variant(audit, decisions, 521, maps=back / "maps")
    after = read_image(made.folder / "labelsTr" / f"{case}.nii.gz").array
    assert np.array_equal(after, np.where((numbers == c) | drawn[0], 1, before))


def test_the_rest_may_be_accepted_in_cases_that_were_saved(written):
    folder = export(written, "slicer")
    by_case = shown_by_case(written, 50)
    case = next(iter(by_case))
    change_point(folder, case, by_case[case][0].number)
    back = imported(folder, "--rest", "accept")
    _, decisions = audit_and_decisions(back / "decisions.csv")
    assert decisions.verdicts == {c.key: "accept" if i else "reject" for i, c in enumerate(by_case[case])}


def test_a_segmentation_that_slicer_has_cropped(written):
    """A part of the grid, whose origin is that of its own first voxel."""
    folder = export(written, "slicer")
    by_case = shown_by_case(written, 50)
    case = next(iter(by_case))
    numbers = np.asarray(read_image(written.audit / "maps" / f"{case}.nii.gz").array)
    inside = np.argwhere(numbers > 0)
    low, high = inside.min(axis=0), inside.max(axis=0) + 1
    crop = [slice(int(x0), int(x1)) for x0, x1 in zip(low[::-1], high[::-1], strict=True)]
    change_segments(folder, case, lambda array: None, crop)
    path = folder / case / f"{case}_candidates.seg.nrrd"
    assert nrrd(path)[1].shape == tuple((high - low)[::-1])
    for segment in read_segments(path, numbers.shape, TURNED):
        assert np.array_equal(segment.voxels, numbers == segment.number)
    with pytest.raises(InputError, match="found others: spacing_mm"):
        read_segments(path, numbers.shape, Geometry((3.0, 1.3, 1.0), TURNED.origin_mm, TURNED.direction))
    with pytest.raises(InputError, match="found others: origin_mm"):
        read_segments(path, numbers.shape, Geometry(TURNED.spacing_mm, (-20.0, 31.0, 47.0), TURNED.direction))


def test_what_contradicts_itself_is_refused(written, capsys):
    folder = export(written, "slicer")
    by_case = shown_by_case(written, 50)
    case, own = next(iter(by_case.items()))
    one, two = (c.number for c in own[:2])

    def fails():
        capsys.readouterr()
        assert main(["import", str(folder)]) == 2
        return capsys.readouterr().err

    assert "no file was saved since the export" in fails()
    change_point(folder, case, one, description="accept")
    change_segments(folder, case, lambda array: array.__setitem__(array == one, 0))
    assert f"case {case}, candidate {one}: is called accepted, but has no voxel left" in fails()
    change_point(folder, case, one, description="reject")
    change_point(folder, case, two)
    change_segments(folder, case, lambda array: array.__setitem__((0, 0, 0), two))
    assert f"candidate {two}: its point was deleted, but its voxels were changed; begin" in fails()
    (folder / case / f"{case}_likely.mrk.json").unlink()
    assert f"{case}_likely.mrk.json, which the export wrote, is missing" in fails()


def test_what_a_reader_added_is_said(written, capsys):
    folder = export(written, "slicer")
    case = next(iter(shown_by_case(written, 50)))
    path = folder / case / f"{case}_likely.mrk.json"
    content = json.loads(path.read_text())
    content["markups"][0]["controlPoints"].append({"id": "9", "label": "F-1", "position": [0, 0, 0]})
    path.write_text(json.dumps(content))
    change_point(folder, case, shown_by_case(written, 50)[case][0].number, description="unsure")
    imported(folder)
    warned = capsys.readouterr().err
    assert f"warning: case {case}: point 'F-1' is of no candidate that was exported, and left out" in warned


def test_itk_snap_and_back(written):
    folder = export(written, "itk-snap")
    case, own = next((k, v) for k, v in shown_by_case(written, 50).items() if len(v) == 5)
    a, b, c, _, _ = (one.number for one in own)
    path, texts = folder / case / f"{case}_candidates.nii.gz", folder / case / f"{case}_candidates.txt"
    ours, theirs = nifti(path), nifti(written.audit / "maps" / f"{case}.nii.gz")
    assert np.array_equal(np.asarray(ours.dataobj), np.asarray(theirs.dataobj))
    assert ours.affine == pytest.approx(theirs.affine, abs=1e-4)
    rows = [line for line in texts.read_text().splitlines() if not line.startswith("#")]
    assert rows[0].split() == ["0", "0", "0", "0", "0", "0", "0", '"Clear', 'Label"']
    assert [int(row.split()[0]) for row in rows] == [0, *sorted(one.number for one in own)]
    assert all(re.fullmatch(r'\s*\d+(\s+\d+){3}\s+[\d.]+\s+[01]\s+[01]\s+"[^"]*"', row) for row in rows)
    image = read_image(path)
    array = np.array(image.array)
    array[array == a] = 0
    array[0, 0, 0] = b
    write_image(path, Image(array, image.geometry))
    texts.write_text(texts.read_text().replace(f'"candidate {c} (', f'"candidate {c}: unsure, motion (', 1))
    back = imported(folder)
    audit, decisions = audit_and_decisions(back / "decisions.csv")
    assert decisions.verdicts == {(case, a): "reject", (case, b): "accept", (case, c): "unsure"}
    assert decisions.remark((case, c), "comment").startswith("motion")
    assert write_repaired_variant(audit, decisions, 521, maps=back / "maps").n_added == 1


def mask_of(found, shape):
    """The pixels of polygons, whose corners lie between pixels, or of run lengths."""
    if isinstance(found, dict):
        values = np.repeat(np.arange(len(found["counts"])) % 2, found["counts"])
        return values.reshape(found["size"], order="F") == 1
    mask = np.zeros(shape, bool)
    for corners in found:
        points = np.array(corners).reshape(-1, 2)[:, ::-1] - 0.5
        mask |= polygon2mask(shape, points)
    return mask


def test_coco(written):
    folder = export(written, "coco", "--shown", "30", "--channel", "1")
    content = json.loads((folder / "coco.json").read_text())
    images = {image["id"]: image for image in content["images"]}
    assert len({a["id"] for a in content["annotations"]}) == len(content["annotations"])
    assert {c["name"] for c in content["categories"]} == {"likely", "possible", "unlikely"}
    found = {}
    for annotation in content["annotations"]:
        image = images[annotation["image_id"]]
        shown = PIL.Image.open(folder / "images" / image["file_name"])
        assert shown.size == (image["width"], image["height"]) == (36, 36)
        mask = mask_of(annotation["segmentation"], (36, 36))
        numbers = read_image(written.audit / "maps" / f"{image['case']}.nii.gz").array[image["slice"]]
        number = annotation["attributes"]["candidate"]
        assert np.array_equal(mask, numbers == number)
        x, y, w, h = annotation["bbox"]
        assert mask[y : y + h, x : x + w].sum() == mask.sum() == annotation["area"]
        found[image["case"], number] = annotation["attributes"]["rank"]
    assert sorted(found.values()) == list(range(1, 31))


def test_coco_as_its_own_library_reads_it(written):
    coco = pytest.importorskip("pycocotools.coco", reason="pycocotools is not installed")
    folder = export(written, "coco", "--shown", "30")
    content = coco.COCO(str(folder / "coco.json"))
    assert all(content.annToMask(one).sum() == one["area"] for one in content.loadAnns(content.getAnnIds()))


@pytest.mark.parametrize("seed", range(5))
def test_outlines_of_any_shape(seed):
    """Parts that touch at a corner, and holes."""
    mask = np.random.default_rng(seed).random((9, 11)) < 0.25 + 0.1 * seed
    assert np.array_equal(mask_of(segmentation(mask), mask.shape), mask)


def test_the_script_for_slicer_names_what_is_there(written):
    folder = export(written, "slicer", "--cases", "p00", "p01")
    record = json.loads((folder / "export.json").read_text())
    assert sorted(record["cases"]) == ["p00", "p01"]
    for case, entry in record["cases"].items():
        assert all((folder / case / name).is_file() for name in entry["files"])
        assert [path.rsplit("_", 1)[-1] for path in entry["images"]] == ["0000.nii.gz", "0001.nii.gz"]
        assert read_image(entry["label"]).array.shape == (6, 36, 36)
    compile((folder / "open_in_slicer.py").read_text(), "open_in_slicer.py", "exec")


def test_exports_that_cannot_be(written, capsys):
    def fails(*arguments):
        capsys.readouterr()
        assert main(["export", str(written.audit), "-o", str(written.root / "new"), *arguments]) == 2
        return capsys.readouterr().err

    assert "expected cases of audit" in fails("--to", "coco", "--cases", "p77")
    assert "--channel must be from 0 to 1, got 2" in fails("--to", "coco", "--channel", "2")
    assert "--shown must be at least 1, got 0" in fails("--to", "slicer", "--shown", "0")
    others = [case for case in read_audit(written.audit).record.label_digests if case not in shown_by_case(written, 1)]
    assert "none of the 1 best candidates is of" in fails("--to", "slicer", "--shown", "1", "--cases", *others)
    folder = export(written, "slicer", "--shown", "3")
    assert main(["export", str(written.audit), "--to", "slicer", "-o", str(folder)]) == 2
    assert main(["export", str(written.audit), "--to", "slicer", "-o", str(folder), "--overwrite"]) == 0
    change_point(folder, read_audit(written.audit).candidates[0].case, 1, description="accept")
    assert main(["export", str(written.audit), "--to", "slicer", "-o", str(folder), "--overwrite"]) == 2  # work on it
    coco = written.root / "coco"
    assert main(["export", str(written.audit), "--to", "coco", "-o", str(coco), "--shown", "3"]) == 0
    assert main(["import", str(coco)]) == 2
