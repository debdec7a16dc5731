"""lopsided-eval."""

import base64
import html
import json
import re
import subprocess
import sys

import numpy as np
import pytest

from nnunet_lopsided.commands.evaluate import main
from nnunet_lopsided.images import Geometry, Image, write_image

PLAIN = Geometry((1.0,) * 3, (0.0,) * 3, tuple(np.eye(3).ravel().tolist()))


@pytest.fixture
def arguments(tmp_path):
    """A folder with two cases: a lesion found, and nothing to find but a false positive."""
    references, predictions = tmp_path / "references", tmp_path / "predictions"
    references.mkdir()
    predictions.mkdir()
    for case in ("a", "b"):
        reference, lesion = np.zeros((5, 6, 7), np.uint8), np.zeros((5, 6, 7), np.float32)
        lesion[1:3, 1:3, 1:3] = 0.75 if case == "a" else 0.25
        reference[1:3, 1:3, 1:3] = case == "a"
        write_image(references / f"{case}.nii.gz", Image(reference, PLAIN))
        np.savez_compressed(predictions / f"{case}.npz", probabilities=np.stack([1 - lesion, lesion]))
    return ["-g", str(references), "-p", str(predictions), "-o", str(tmp_path / "out")]


def test_table_and_files(arguments, tmp_path, capsys):
    assert main([*arguments, "--bootstrap", "0"]) == 0
    printed = capsys.readouterr()
    assert printed.out.splitlines() == [
        "rules                               paper: centroid within 1 mm of a voxel's box",
        "average precision (mAP)                 1.0000",
        "mAP by confidence                   mean 1.0000  max 1.0000  sum 1.0000  sqrt 1.0000  (here: mean)",
        "max sensitivity                         1.0000",
        "precision                               0.5000",
        "F1                                      0.6667",
        "false positives per case                0.5000",
        "average recall                          1.0000",
        "Dice of true positives                  1.0000",
        "lesion-wise Dice                        0.5000",
        "voxel-wise Dice                         1.0000",
        "lesion entropy, bits                    0.0000",
        "patients: area under the ROC curve      1.0000",
        "patients: sensitivity                   1.0000  0.2065 to 1.0000 (Wilson)",
        "patients: specificity                   0.0000  0.0000 to 0.7935 (Wilson)",
        "cases                                        2",
        "reference lesions                            1",
        "candidates                                   2",
        "true positives                               1",
        "false positives                              1",
        "duplicates                                   0",
        "missed lesions                               0",
        f"results in {tmp_path / 'out'}: see report.html",
    ]
    assert printed.err == ""
    assert len(list((tmp_path / "out").iterdir())) == 8


def test_options_reach_the_settings(arguments, tmp_path):
    options = "--threshold 0.3 --match overlap --distance center --tolerance-mm 2 --duplicates fp --connectivity 6"
    more = "--diameter-edges-mm 5 --bootstrap 100 --seed 3 --patients-regex (.) --np 1"
    assert main([*arguments, *options.split(), *more.split()]) == 0
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["counts"]["candidates"] == 1
    assert len(summary["by_diameter"]) == 2
    expected = {
        "threshold": 0.3,
        "match": "overlap",
        "distance": "center",
        "tolerance_mm": 2.0,
        "duplicates": "fp",
        "connectivity": 6,
        "diameter_edges_mm": [5.0],
        "bootstrap_replicates": 100,
        "seed": 3,
        "patients_regex": "(.)",
    }
    assert {name: summary["settings"][name] for name in expected} == expected


def test_profile_and_flags_that_change_it(arguments, tmp_path):
    assert main([*arguments, "--profile", "brats-mets-2023", "--no-join-dilated", "--min-lesion-mm3", "8"]) == 0
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["settings"]["profile"] == "brats-mets-2023"
    assert summary["settings"]["profile_changes"] == {"join_dilated": False, "min_lesion_mm3": 8.0}
    assert (summary["settings"]["threshold"], summary["settings"]["match"]) == (0.5, "overlap")
    assert summary["details"]["ignored_lesions"] == 1


def test_several_thresholds(arguments, tmp_path, capsys):
    assert main([*arguments, "--threshold", "0.1", "0.5", "--bootstrap", "0"]) == 0
    assert capsys.readouterr().out.splitlines()[-5:-1] == [
        "",
        "   threshold  average precision (mAP)  max sensitivity   precision          F1  false positives per case  Dice of true positives",  # noqa: E501
        "         0.1                   1.0000           1.0000      0.5000      0.6667                    0.5000                  1.0000",  # noqa: E501
        "         0.5                   1.0000           1.0000      1.0000      1.0000                    0.0000                  1.0000",  # noqa: E501
    ]
    assert (tmp_path / "out" / "thresholds.csv").is_file()


def test_every_bad_case_is_a_line_unless_skipped(arguments, tmp_path, capsys):
    (tmp_path / "predictions" / "b.npz").write_bytes(b"PK")
    write_image(tmp_path / "references" / "c.nii.gz", Image(np.zeros((5, 6, 7), np.uint8), PLAIN))
    np.save(tmp_path / "predictions" / "c.npy", np.full((5, 6, 7), 3.0))
    assert main(arguments) == 2
    b, c = capsys.readouterr().err.splitlines()
    assert b.startswith("lopsided-eval: error: case b: cannot read")
    assert c.startswith("lopsided-eval: error: case c: expected finite probabilities")
    assert main([*arguments, "--skip-bad"]) == 0
    printed = capsys.readouterr()
    assert [line[:37] for line in printed.err.splitlines()] == [
        f"lopsided-eval: warning: skipped: case {n}"[:37] for n in "bc"
    ]
    assert "skipped                                      2  b, c" in printed.out


def test_cross_validation(arguments, tmp_path, nnunet_paths):
    """Case a in fold 0 and b in fold 1; the references of the dataset are found."""
    results = nnunet_paths / "nnUNet_results" / "Dataset901_Toy" / "trainer"
    preprocessed = nnunet_paths / "nnUNet_preprocessed" / "Dataset901_Toy"
    preprocessed.mkdir()
    (tmp_path / "references").rename(preprocessed / "gt_segmentations")
    (preprocessed / "splits_final.json").write_text('[{"train": ["b"], "val": ["a"]}, {"train": ["a"], "val": ["b"]}]')
    for fold, case in enumerate("ab"):
        (results / f"fold_{fold}" / "validation").mkdir(parents=True)
        file = f"{case}.npz"
        (tmp_path / "predictions" / file).rename(results / f"fold_{fold}" / "validation" / file)
    assert main(["--cv", str(results), "-o", str(tmp_path / "out")]) == 0
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert (summary["counts"]["cases"], summary["settings"]["folds"]) == (2, [0, 1])
    assert (tmp_path / "out" / "cases.csv").read_text().splitlines()[2].startswith("b,b,1,probabilities,0,")
    assert main(["--cv", str(results), "--folds", "1", "-o", str(tmp_path / "one")]) == 0
    assert json.loads((tmp_path / "one" / "summary.json").read_text())["counts"]["cases"] == 1


def test_full_beside_censored_references(arguments, tmp_path):
    censored = tmp_path / "censored"
    censored.mkdir()
    for case in "ab":
        write_image(censored / f"{case}.nii.gz", Image(np.zeros((5, 6, 7), np.uint8), PLAIN))
    arguments[0] = "--reference-full"
    assert main([*arguments, "--reference-censored", str(censored)]) == 0
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert [(g["annotation"], g["lesions"], g["detected"]) for g in summary["by_annotation"]] == [
        ("kept", 0, 0),
        ("censored", 1, 1),
    ]
    assert summary["settings"]["censored_references"] == str(censored)


def test_second_run_needs_overwrite_and_gives_the_same_bytes(arguments, tmp_path, capsys):
    assert main(arguments) == 0
    before = {p.name: p.read_bytes() for p in (tmp_path / "out").iterdir()}
    capsys.readouterr()
    assert main(arguments) == 2
    assert capsys.readouterr().err == (
        f"lopsided-eval: error: output folder exists: {tmp_path / 'out'}; --overwrite replaces it\n"
    )
    assert main([*arguments, "--overwrite"]) == 0
    assert {p.name: p.read_bytes() for p in (tmp_path / "out").iterdir()} == before


def test_missing_and_superfluous_cases(arguments, tmp_path, capsys):
    (tmp_path / "predictions" / "b.npz").rename(tmp_path / "predictions" / "z.npz")
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "1 of 2 references have no prediction" in error
    assert not (tmp_path / "out").exists()
    assert main([*arguments, "--allow-missing"]) == 0
    assert capsys.readouterr().err.splitlines() == [
        "lopsided-eval: warning: counted as missed, no prediction: b",
        "lopsided-eval: warning: not evaluated, no reference: z",
    ]
    details = json.loads((tmp_path / "out" / "summary.json").read_text())["details"]
    assert (details["missing_predictions"], details["predictions_without_reference"]) == (["b"], ["z"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--threshold", "0"], "threshold must be within (0, 1], got 0.0"),
        (["--label", "lesion"], "label lesion needs a dataset.json, and none was found: give --dataset-json"),
        (["--seed", "-1"], "--seed must be at least 0, got -1"),
        (["--np", "0"], "n_workers must be at least 1, got 0"),
        (["--folds", "1"], "-f (or --folds) needs --cv"),
        (["--threshold", "0.5", "0.5"], "thresholds must differ, got 0.5, 0.5"),
        (["--join-dilated"], "join_dilated needs dilation_voxels of at least 1, got 0"),
    ],
)
def test_wrong_options(arguments, options, message, capsys):
    assert main([*arguments, *options]) == 2
    assert capsys.readouterr().err == f"lopsided-eval: error: {message}\n"


def test_a_broken_case_is_one_line_and_leaves_nothing(arguments, tmp_path, capsys):
    (tmp_path / "predictions" / "b.npz").write_bytes(b"PK")
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert "case b: cannot read" in error
    assert error.count("\n") == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["predictions", "references"]


def test_folder_without_predictions(arguments, tmp_path, capsys):
    for path in (tmp_path / "predictions").iterdir():
        path.unlink()
    assert main(arguments) == 2
    assert capsys.readouterr().err == f"lopsided-eval: error: no predictions in {tmp_path / 'predictions'}\n"


def test_help_imports_nothing_heavy():
    code = (
        "import sys; from nnunet_lopsided.commands.evaluate import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "print({'numpy', 'torch', 'scipy', 'SimpleITK', 'matplotlib'} & set(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "set()"
    assert done.stdout.startswith("usage: lopsided-eval")


def test_an_empty_probability_image_among_others(arguments, tmp_path):
    for case, value in (("a", 0.75), ("b", 0.0)):
        (tmp_path / "predictions" / f"{case}.npz").unlink()
        probability = np.zeros((5, 6, 7), np.float32)
        probability[1:3, 1:3, 1:3] = value
        write_image(tmp_path / "predictions" / f"{case}.nii.gz", Image(probability, PLAIN))
    assert main(arguments) == 0
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert (summary["metrics"]["map"], summary["counts"]["candidates"]) == (1.0, 1)


def test_an_empty_floating_point_label_map_among_others(arguments, tmp_path):
    for case, value in (("a", 1.0), ("b", 0.0)):
        (tmp_path / "predictions" / f"{case}.npz").unlink()
        label = np.zeros((5, 6, 7), np.float32)
        label[1:3, 1:3, 1:3] = value
        write_image(tmp_path / "predictions" / f"{case}.nii.gz", Image(label, PLAIN))
    assert main([*arguments, "--hard-labels"]) == 0
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["metrics"]["map"] is None
    assert main([*arguments, "--overwrite"]) == 0  # zeros and ones in floating point are probabilities unless told
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["metrics"]["map"] == 1.0
    assert summary["metrics"]["lesion_entropy_bits"] is None
    assert (summary["metrics"]["max_sensitivity"], summary["counts"]["candidates"]) == (1.0, 1)


def test_an_empty_output_folder_may_exist(arguments, tmp_path):
    (tmp_path / "out").mkdir()
    assert main(arguments) == 0
    assert (tmp_path / "out" / "summary.json").is_file()


def test_several_classes_in_one_run(arguments, tmp_path, capsys):
    for case in "ab":
        core = np.zeros((5, 6, 7), np.uint8)
        core[1:3, 1:3, 1:3] = 1
        core[4, 4, 4] = 2
        write_image(tmp_path / "references" / f"{case}.nii.gz", Image(core, PLAIN))
        p = np.where(core == 1, 0.75, 0.0).astype(np.float32)
        channels = np.stack([1 - p, p, np.zeros_like(p)])
        np.savez_compressed(tmp_path / "predictions" / f"{case}.npz", probabilities=channels)
    content = {"labels": {"background": 0, "core": 1, "rim": 2}, "channel_names": {"0": "T1"}, "file_ending": ".nii.gz"}
    (tmp_path / "predictions" / "dataset.json").write_text(json.dumps(content))
    assert main([*arguments, "--bootstrap", "0", "--label", "core", "rim"]) == 0
    out = tmp_path / "out"
    assert sorted(path.name for path in out.iterdir()) == [
        ".lopsided.json",
        "classes.csv",
        "classes.json",
        "core",
        "rim",
    ]
    rows = json.loads((out / "classes.json").read_text())["classes"]
    assert [(row["class"], row["max_sensitivity"], row["reference_lesions"]) for row in rows] == [
        ("core", 1.0, 2),
        ("rim", 0.0, 2),
    ]
    assert json.loads((out / "rim" / "summary.json").read_text())["settings"]["label"] == "rim"
    assert [line for line in capsys.readouterr().out.splitlines() if line.startswith("class ")] == [
        f"{'class':<36}core",
        f"{'class':<36}rim",
    ]
    assert main([*arguments, "--bootstrap", "0", "--label", "core", "core"]) == 2
    assert "--label must name every class once, got core, core" in capsys.readouterr().err


def test_a_list_of_cases(arguments, tmp_path, capsys):
    (tmp_path / "list.txt").write_text("# of the second centre\nb\n\n")
    assert main([*arguments, "--bootstrap", "0", "--cases", str(tmp_path / "list.txt")]) == 0
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert (summary["counts"]["cases"], summary["settings"]["cases"]) == (1, ["b"])
    for text, message in (("c\n", "without a reference"), ("", "names no case"), ("b\nb\n", "names cases twice: b")):
        (tmp_path / "list.txt").write_text(text)
        assert main([*arguments, "--overwrite", "--cases", str(tmp_path / "list.txt")]) == 2
        assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--profile", "brats-mets"], "profile brats-mets is now called brats-mets-2023"),
        (["--bootstrap", "99"], "--bootstrap must be 0 (no intervals) or at least 100, got 99"),
        (["--one-to-one"], "min_iou and one_to_one need match overlap"),
    ],
)
def test_what_is_refused_says_what_to_do(arguments, tmp_path, capsys, options, message):
    assert main([*arguments, *options]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert not (tmp_path / "out").exists()


WORDS = {
    "case": "zanzibar",
    "missing": "quagga",
    "extra": "axolotl",
    "bad": "dugong",
    "references": "okapi",
    "censored": "numbat",
    "predictions": "tapir",
    "images": "ocelot",
    "out": "gharial",
    "list": "wombat",
    "json": "kakapo",
    "second": "lemur",
}


def write_confidential(tmp_path):
    """Everything that has a name of its own has one of WORDS; arguments for an evaluation with all options."""
    folders = {name: tmp_path / WORDS[name] for name in ("references", "censored", "predictions", "images")}
    for folder in folders.values():
        folder.mkdir()
    one, other = f"{WORDS['case']}_1", f"{WORDS['case']}_2"
    for i, case in enumerate((one, other, WORDS["missing"], WORDS["bad"])):
        reference = np.zeros((5, 12, 14), np.uint8)
        reference[1:3, 1:3, 1:3] = reference[3, 8:10, 8:10] = i < 3
        censored = reference * (np.arange(14) < 5).astype(np.uint8)
        write_image(folders["references"] / f"{case}.nii.gz", Image(reference, PLAIN))
        write_image(folders["censored"] / f"{case}.nii.gz", Image(censored, PLAIN))
        image = np.random.default_rng(i).normal(size=reference.shape).astype(np.float32)
        write_image(folders["images"] / f"{case}_0000.nii.gz", Image(image, PLAIN))
        lesion = np.zeros(reference.shape, np.float32)
        lesion[1:3, 1:3, 1:3] = lesion[0, 5, 5] = 0.75
        if case != WORDS["missing"]:
            channels = np.stack([1 - lesion, lesion * (2 if case == WORDS["bad"] else 1)])
            np.savez_compressed(folders["predictions"] / f"{case}.npz", probabilities=channels)
    np.savez_compressed(folders["predictions"] / f"{WORDS['extra']}.npz", probabilities=channels)
    (tmp_path / f"{WORDS['list']}.txt").write_text("\n".join((one, other, WORDS["missing"], WORDS["bad"])))
    (tmp_path / f"{WORDS['json']}.json").write_text(json.dumps({"labels": {"background": 0, "lesion": 1}}))
    options = ["--allow-missing", "--skip-bad", "--write-maps", "--bootstrap", "0", "--anonymous"]
    values = {
        "-g": folders["references"],
        "-p": folders["predictions"],
        "--reference-censored": folders["censored"],
        "--images": folders["images"],
        "--cases": tmp_path / f"{WORDS['list']}.txt",
        "--dataset-json": tmp_path / f"{WORDS['json']}.json",
        "--patients-regex": f"({WORDS['case']}_.|{WORDS['missing']}|{WORDS['bad']})",
    }
    return [*options, *(str(part) for pair in values.items() for part in pair)]


def check_nameless(page, tmp_path):
    """Neither as text, nor in another case, nor as an entity, nor in base64 of any alignment."""
    text = page.read_text(encoding="utf-8")
    hidden = [html.unescape(text)]
    for encoded in re.findall(r"[A-Za-z0-9+/]{24,}={0,2}", text):
        hidden.append(base64.b64decode(encoded + "=" * (-len(encoded) % 4)).decode("latin-1"))
    everything = "\n".join([text, *hidden]).lower()
    assert [word for word in (*WORDS.values(), tmp_path.name.lower()) if word in everything] == []
    return text


def test_an_anonymous_page_names_nothing(tmp_path, capsys):
    arguments = write_confidential(tmp_path)
    out = tmp_path / WORDS["out"]
    assert main([*arguments, "-o", str(out)]) == 0
    assert "report.html names no case and no folder" in capsys.readouterr().out
    text = check_nameless(out / "report.html", tmp_path)
    assert "case 1" in text
    assert "data:image/png;base64," in text  # there are pictures, with captions
    assert "1 further case" in text or "cases that are not on this page" in text  # the skipped one
    # The other files tell which case is which.
    assert WORDS["case"] in (out / "cases.csv").read_text()
    assert main([*(a for a in arguments if a != "--anonymous"), "-o", str(tmp_path / WORDS["second"])]) == 0
    named = (tmp_path / WORDS["second"] / "report.html").read_text()
    absent = [word for key, word in WORDS.items() if word not in named and key not in ("out", "second")]
    # The test would see a name. Settings tell neither images nor lists, which leave the extra prediction out.
    assert absent == [WORDS[key] for key in ("extra", "images", "list")]


def test_an_anonymous_comparison_names_nothing(tmp_path, capsys):
    arguments = write_confidential(tmp_path)
    outputs = [str(tmp_path / WORDS[name]) for name in ("out", "second")]
    for output in outputs:
        assert main([*arguments, "-o", output]) == 0
    assert main(["compare", *outputs, "-o", str(tmp_path / "compared"), "--anonymous", "--bootstrap", "0"]) == 0
    text = check_nameless(tmp_path / "compared" / "compare.html", tmp_path)
    assert "model 1" in text
    assert WORDS["out"] in (tmp_path / "compared" / "comparison.json").read_text()
    assert main(["compare", *outputs, "-o", str(tmp_path / "named"), "--anonymous", "--names", "A net", "B net"]) == 0
    assert "A net" in check_nameless(tmp_path / "named" / "compare.html", tmp_path)
