"""lopsided-eval compare."""

import shutil
import subprocess
import sys

import numpy as np
import pytest

from nnunet_lopsided.commands.compare import _names, main
from nnunet_lopsided.commands.evaluate import main as evaluate
from nnunet_lopsided.images import Geometry, Image, write_image

PLAIN = Geometry((1.0,) * 3, (0.0,) * 3, tuple(np.eye(3).ravel().tolist()))


@pytest.fixture
def evaluations(evaluations_once, tmp_path):
    """Copies of the folders of :func:`evaluations_once`, which may be changed."""
    for name in ("out_x", "out_y"):
        shutil.copytree(evaluations_once / name, tmp_path / name)
    return [str(tmp_path / "out_x"), str(tmp_path / "out_y")]


@pytest.fixture(scope="module")
def evaluations_once(tmp_path_factory):
    """Two cases of one lesion; model x finds both, model y the first."""
    tmp_path = tmp_path_factory.mktemp("evaluations")
    references = tmp_path / "references"
    references.mkdir()
    lesion = np.zeros((5, 6, 7), np.uint8)
    lesion[1:3, 1:3, 1:3] = 1
    for model in "xy":
        (tmp_path / model).mkdir()
        for case in "ab":
            write_image(references / f"{case}.nii.gz", Image(lesion, PLAIN))
            probability = lesion * np.float32(0.75 if model == "x" or case == "a" else 0.05)
            np.savez_compressed(
                tmp_path / model / f"{case}.npz", probabilities=np.stack([1 - probability, probability])
            )
        out = str(tmp_path / f"out_{model}")
        assert evaluate(["-g", str(references), "-p", str(tmp_path / model), "-o", out, "--bootstrap", "0"]) == 0
    return tmp_path


def test_table_and_files(evaluations, tmp_path, capsys):
    out = tmp_path / "comparison"
    assert evaluate(["compare", *evaluations, "-o", str(out), "--bootstrap", "200"]) == 0
    printed = capsys.readouterr()
    lines = printed.out.splitlines()
    assert lines[0] == "out_y minus out_x"
    # Of two patients there is no interval.
    assert "  max sensitivity                                    -0.5000" in lines
    assert "  Dice of true positives                             +0.0000" in lines  # model y detects in one patient
    assert lines[-2:] == [
        "  lesions found by both 1, only out_x 1, only out_y 0, neither 0",
        f"results in {out}: see compare.html",
    ]
    assert printed.err == ""
    assert sorted(p.name for p in out.iterdir()) == [".lopsided.json", "compare.html", "comparison.json", "lesions.csv"]


def test_second_run_needs_overwrite_and_gives_the_same_bytes(evaluations, tmp_path, capsys):
    arguments = [*evaluations, "-o", str(tmp_path / "comparison"), "--names", "full", "censored", "--seed", "4"]
    assert main(arguments) == 0
    before = {p.name: p.read_bytes() for p in (tmp_path / "comparison").iterdir()}
    capsys.readouterr()
    assert main(arguments) == 2
    assert capsys.readouterr().err == (
        f"lopsided-eval compare: error: output folder exists: {tmp_path / 'comparison'}; --overwrite replaces it\n"
    )
    assert main([*arguments, "--overwrite"]) == 0
    assert {p.name: p.read_bytes() for p in (tmp_path / "comparison").iterdir()} == before
    assert "censored minus full" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--names", "a"], "--names must be 2 names, one for each evaluation, got 1"),
        (["--names", "a", "a"], "names must be unique, got a, a; give others by --names"),
        (["--seed", "-1"], "--seed must be at least 0, got -1"),
        (
            ["--bootstrap", "99"],
            "--bootstrap must be 0 (no intervals) or at least 100, got 99: of fewer replicates the ends of a 95% "
            "interval are chance",
        ),
        (["--bootstrap", "x"], "argument --bootstrap: invalid int value: 'x'"),
    ],
)
def test_wrong_options(evaluations, tmp_path, options, message, capsys):
    code: object
    try:
        code = main([*evaluations, "-o", str(tmp_path / "comparison"), *options])
    except SystemExit as error:  # argparse's own
        code = error.code
    assert code == 2
    assert capsys.readouterr().err == f"lopsided-eval compare: error: {message}\n"
    assert not (tmp_path / "comparison").exists()


def test_wrong_folders(evaluations, tmp_path, capsys):
    out = ["-o", str(tmp_path / "comparison")]
    assert main([evaluations[0], *out]) == 2
    assert "a comparison needs at least two evaluations, got 1" in capsys.readouterr().err
    assert main([evaluations[0], str(tmp_path), *out]) == 2
    error = capsys.readouterr().err
    assert error == (
        f"lopsided-eval compare: error: {tmp_path} is no output folder of lopsided-eval: it holds no summary.json\n"
    )


def test_another_version_is_a_warning(evaluations, tmp_path, capsys):
    summary = tmp_path / "out_y" / "summary.json"
    text = summary.read_text()
    version = text.split('"version": "')[1].split('"')[0]
    summary.write_text(text.replace(f'"version": "{version}"', '"version": "0.0.9"'))
    assert main([*evaluations, "-o", str(tmp_path / "comparison")]) == 0
    assert f"warning: evaluated with different versions: 0.0.9, {version}" in capsys.readouterr().err


def test_names_of_folders_are_as_long_as_they_must_be(tmp_path):
    assert _names([tmp_path / "a", tmp_path / "b"]) == ["a", "b"]
    assert _names([tmp_path / "a" / "report", tmp_path / "b" / "report"]) == ["a/report", "b/report"]
    same = _names([tmp_path / "a", tmp_path / "a"])
    assert same[0] == same[1]


def test_help_imports_nothing_heavy():
    code = (
        "import sys; from nnunet_lopsided.commands.compare import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "print({'numpy', 'torch', 'scipy', 'SimpleITK', 'matplotlib'} & set(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "set()"
    assert done.stdout.startswith("usage: lopsided-eval compare")
