"""The lopsided-convert command: what it prints, one-line errors, and what an interrupt leaves."""

from __future__ import annotations

import errno
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from nnunet_lopsided.commands.convert import main
from nnunet_lopsided.images import Geometry, Image, write_image

REPOSITORY = Path(__file__).resolve().parents[2]
GEOMETRY = Geometry((2.0, 1.0, 1.0), (0.0, 0.0, 0.0), (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0))
SEQUENCES = ("t1n", "t1c", "t2w", "t2f")


@pytest.fixture
def source(nnunet_paths: Path) -> Path:
    """Four BraTS-METS cases of three patients, with an uncompressed one."""
    rng = np.random.default_rng(0)
    for case, ending in (("00001-000", "nii.gz"), ("00001-001", "nii.gz"), ("00002-000", "nii"), ("00003-000", "nii")):
        folder = nnunet_paths / "brats" / f"BraTS-MET-{case}"
        folder.mkdir(parents=True)
        for sequence in SEQUENCES:
            array = rng.integers(0, 500, (6, 16, 16)).astype(np.int16)
            write_image(folder / f"BraTS-MET-{case}-{sequence}.{ending}", Image(array, GEOMETRY))
        label = np.zeros((6, 16, 16), np.uint8)
        label[1, 2:4, 2:4], label[4, 9, 9] = 3, 1
        write_image(folder / f"BraTS-MET-{case}-seg.{ending}", Image(label, GEOMETRY))
    return nnunet_paths / "brats"


@pytest.fixture
def raw(nnunet_paths: Path) -> Path:
    return nnunet_paths / "nnUNet_raw"


def content_of(folder: Path) -> dict[str, bytes | str]:
    return {
        str(p.relative_to(folder)): os.readlink(p) if p.is_symlink() else p.read_bytes()
        for p in sorted(folder.rglob("*"))
        if not p.is_dir()
    }


def test_it_writes_and_says_what(source: Path, raw: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["brats-mets", str(source), "-d", "501", "--test-cases", "BraTS-MET-00001-000"]) == 0
    out = capsys.readouterr()
    assert out.out == f"{raw / 'Dataset501_BraTSMETS'}: 2 training cases, 2 test cases, 8 lesions\n"
    assert "note:" not in out.err
    assert main(["yale-pretreat", str(source), "-d", "502", "--name", "Yale", "--target", "ET", "-np", "1"]) == 0
    assert capsys.readouterr().out == f"{raw / 'Dataset502_Yale'}: 4 training cases, 4 lesions\n"
    about = json.loads((raw / "Dataset502_Yale" / "conversion.json").read_text())
    assert (about["converter"], about["source"], about["options"]["target"]) == ("brats-mets", str(source), "ET")


def test_folder_and_merge(source: Path, raw: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    folder = ["folder", str(source), "--channels", "t1=*-t1c.nii.gz", "flair=*-t2f.nii.gz", "--label", "*-seg.nii.gz"]
    assert main([*folder, "-d", "1", "--lesion-values", "1", "3"]) == 0
    assert main(["brats-mets", str(source / "BraTS-MET-00002-000"), "-d", "2"]) == 0
    names = ["--same", "t1=t1c", "flair=t2f", "--classes", "1:lesion=metastasis", "2:lesion=glioma"]
    assert main(["merge", "1", "2", "-d", "3", *names]) == 0
    dataset = json.loads((raw / "Dataset003_Merged" / "dataset.json").read_text())
    assert dataset["channel_names"] == {"0": "t1", "1": "flair"}
    assert dataset["labels"] == {"background": 0, "metastasis": 1, "glioma": 2}
    (tmp_path / "test.txt").write_text("BraTS-MET-00001-001\n\n")
    assert main([*folder, "-d", "4", "--lesion-values", "any", "--test-cases", str(tmp_path / "test.txt")]) == 0
    assert [p.name for p in (raw / "Dataset004_Converted" / "labelsTs").iterdir()] == ["BraTS-MET-00001-001.nii.gz"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["brats-mets", "nowhere", "-d", "501"], "lopsided-convert: error: source folder not found: nowhere"),
        (["brats-mets", "SRC", "-d", "0"], "lopsided-convert: error: dataset id must be within 1 to 999, got 0"),
        (["brats-mets", "SRC"], "lopsided-convert brats-mets: error: the following arguments are required: -d"),
        (["brats-mets", "SRC", "-d", "1", "--target", "X"], "argument --target: invalid choice: 'X'"),
        (["brats-mets", "SRC", "-d", "1", "--fix-label", "x"], "expected CASE:VALUE=NEW, got 'x'"),
        (["brats-mets", "SRC", "-d", "1", "--test-cases", "no.txt"], "file not found: no.txt"),
        (["brats-mets", "SRC", "-d", "1", "--test-fraction", "2"], "test fraction must be above 0 and below 1, got 2"),
        (["ucsf-bmsr", "SRC", "-d", "1"], "SRC: no case found, expected 100101A_{T1pre,T1post"),
        (["folder", "SRC", "-d", "1", "--label", "x", "--channels", "a.nii"], "expected NAME=VALUE, got 'a.nii'"),
        (["folder", "SRC", "-d", "1", "--label", "x", "--channels", "a=b", "a=c"], "channels must differ, got a, a"),
        (["merge", "1", "2", "-d", "3"], "lopsided-convert: error: dataset 1 not found below nnUNet_raw="),
        (["merge", "1", "2", "-d", "3", "--classes", "x"], "expected DATASET:OLD=NEW, got 'x'"),
        (["spam"], "invalid choice: 'spam'"),
    ],
)
def test_errors_are_one_line_and_exit_2(source: Path, raw: Path, capsys, arguments, message) -> None:
    arguments = [str(source) if a == "SRC" else a for a in arguments]
    code: object
    try:
        code = main(arguments)
    except SystemExit as error:
        code = error.code
    lines = [line for line in capsys.readouterr().err.splitlines() if "case" not in line or "error" in line]
    assert code == 2
    assert len(lines) == 1
    assert message.replace("SRC", str(source)) in lines[0]
    assert not list(raw.iterdir())


def test_a_full_disk(source: Path, raw: Path, capsys, monkeypatch) -> None:
    from nnunet_lopsided.dataset_conversion.converters import case_files

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(case_files, "write_image", full)
    assert main(["brats-mets", str(source), "-d", "501"]) == 2
    assert capsys.readouterr().err.splitlines()[-1].endswith("[Errno 28] No space left on device")
    assert not list(raw.iterdir())


def test_a_really_full_disk(source: Path, raw: Path) -> None:
    """A limit on the size of files is what a process can be given without being root."""
    program = (
        "import resource, signal, sys\nfrom nnunet_lopsided.commands.convert import main\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\nresource.setrlimit(resource.RLIMIT_FSIZE, (700, 700))\n"
        f"sys.exit(main(['brats-mets', {str(source)!r}, '-d', '501']))"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "lopsided-convert: error: " in done.stderr.splitlines()[-1]
    assert not list(raw.iterdir())


KILLED = """
import os, signal, sys
from nnunet_lopsided.commands.convert import main
from nnunet_lopsided.dataset_conversion.converters import case_files, writing
from pathlib import Path
left = int(sys.argv[1])
def count(function):
    def counted(*arguments, **named):
        global left
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments, **named)
    return counted
for name in ("write_image", "link_file", "check_complete"):
    setattr(case_files, name, count(getattr(case_files, name)))
writing.write_json = count(writing.write_json)
writing.shutil.copyfileobj = count(writing.shutil.copyfileobj)
Path.rename = count(Path.rename)
Path.mkdir = count(Path.mkdir)
sys.exit(main(sys.argv[2:]))
"""


def test_killed_anywhere_and_run_again(source: Path, raw: Path) -> None:
    arguments = ["brats-mets", str(source), "-d", "501", "--seed", "3", "--test-fraction", "0.4"]
    assert main(arguments) == 0
    undisturbed = content_of(raw)
    n_kills = 0
    for after in (0, 7, 20, 30, 36):
        for name in list(raw.iterdir()):
            subprocess.run(["rm", "-r", str(name)], check=True)
        command = [sys.executable, "-c", KILLED, str(after), *arguments]
        killed = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=60)
        if killed.returncode == 0:
            break
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        n_kills += 1
        assert not (raw / "Dataset501_BraTSMETS").exists()
        assert main(arguments) == 0
        assert content_of(raw) == undisturbed
    assert n_kills >= 4


def test_killed_while_overwriting(source: Path, raw: Path) -> None:
    arguments = ["brats-mets", str(source), "-d", "501"]
    assert main(arguments) == 0
    before = content_of(raw)
    changed = [*arguments, "--target", "ET", "--overwrite"]
    command = [sys.executable, "-c", KILLED, "10", *changed]
    killed = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=60)
    assert killed.returncode == -signal.SIGKILL
    left = {name: data for name, data in content_of(raw).items() if name.startswith("Dataset")}
    assert left == before
    assert main(changed) == 0
    assert [p.name for p in raw.iterdir()] == ["Dataset501_BraTSMETS"]
    assert content_of(raw) != before


def test_it_says_when_old_files_stay(source: Path, raw: Path, capsys) -> None:
    (raw.parent / "nnUNet_preprocessed" / "Dataset501_BraTSMETS").mkdir()
    assert main(["brats-mets", str(source), "-d", "501"]) == 2
    assert main(["brats-mets", str(source), "-d", "501", "--overwrite"]) == 0
    assert "note: Dataset501_BraTSMETS was preprocessed or trained before" in capsys.readouterr().err


def test_help_is_fast_and_names_every_converter() -> None:
    program = (
        "import sys\nfrom nnunet_lopsided.commands.convert import main\ntry: main(['--help'])\nexcept SystemExit: "
    )
    program += "print(sorted(m for m in ('torch', 'SimpleITK', 'scipy', 'cc3d', 'nnunetv2') if m in sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines()[-1] == "[]"
    for name in ("brainmetshare", "brats-mets", "ucsf-bmsr", "nyumets", "ljubljana-ms", "lits", "luna16", "folder"):
        assert f"    {name}" in done.stdout


def test_merging_datasets_with_equal_case_names(source: Path, raw: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in ("501", "502"):
        assert main(["brats-mets", str(source), "-d", number, "--name", f"Mets{number}"]) == 0
    capsys.readouterr()
    assert main(["merge", "501", "502", "-d", "510", "--name", "Both"]) == 2
    assert re.fullmatch(
        r"lopsided-convert: error: case BraTS-MET-\S+: is in Dataset501_Mets501 and .*--prefix .*\n",
        capsys.readouterr().err,
    )
    assert main(["merge", "501", "502", "-d", "510", "--name", "Both", "--prefix"]) == 0
    names = [path.name for path in (raw / "Dataset510_Both" / "labelsTr").iterdir()]
    assert len(names) == 8
    assert {name.split("BraTS")[0] for name in names} == {"Dataset501_Mets501_", "Dataset502_Mets502_"}
