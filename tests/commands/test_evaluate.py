"""lopsided-eval."""

import json
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
        "map                               1.0000",
        "                                          1.0000 to 1.0000 (Hanley-McNeil)",
        "max_sensitivity                   1.0000",
        "precision_at_max_sensitivity      0.5000",
        "false_positives_per_case          0.5000",
        "tp_dice                           1.0000",
        "lesion_entropy_bits               0.0000",
        "cases                                  2",
        "reference_lesions                      1",
        "candidates                             2",
        "true_positives                         1",
        "false_positives                        1",
        "duplicates                             0",
        "missed_lesions                         0",
        f"results in {tmp_path / 'out'}: see report.html",
    ]
    assert printed.err == ""
    assert len(list((tmp_path / "out").iterdir())) == 6


def test_options_reach_the_settings(arguments, tmp_path):
    options = "--threshold 0.3 --match overlap --distance center --tolerance-mm 2 --duplicates fp --connectivity 6"
    more = "--diameter-edges-mm 5 --bootstrap 10 --seed 3 --patients-regex (.) --np 1"
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
        "bootstrap_replicates": 10,
        "seed": 3,
        "patients_regex": "(.)",
    }
    assert {name: summary["settings"][name] for name in expected} == expected


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
    assert main(arguments) == 0
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["metrics"]["map"] is None
    assert summary["metrics"]["lesion_entropy_bits"] is None
    assert (summary["metrics"]["max_sensitivity"], summary["counts"]["candidates"]) == (1.0, 1)


def test_an_empty_output_folder_may_exist(arguments, tmp_path):
    (tmp_path / "out").mkdir()
    assert main(arguments) == 0
    assert (tmp_path / "out" / "summary.json").is_file()
