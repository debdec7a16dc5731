"""The lopsided-censor command: what it prints, its exit codes, and that it starts fast."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nnunet_lopsided.commands.censor import main
from nnunet_lopsided.dataset_conversion.phantom import write_phantom_dataset

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture
def raw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for variable in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        (tmp_path / variable).mkdir()
        monkeypatch.setenv(variable, str(tmp_path / variable))
    write_phantom_dataset(501, n_train=2, n_test=1, shape=(8, 32, 32), spacing_mm=(5, 4, 4), seed=2)
    return tmp_path / "nnUNet_raw"


def test_it_writes_and_says_what(raw: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert main(["-d", "501", "-o", "511", "--mode", "size", "--rate", "1", "-np", "1"]) == 0
    folder = raw / "Dataset511_PhantomCensored"
    n = (folder / "censored_lesions.csv").read_text().count(",censored\n")
    assert n >= 4
    assert capsys.readouterr().out == f"{folder}: {n} of {n} lesions censored\n"


def test_name_seed_and_overwrite(raw: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["-d", "Dataset501_Phantom", "-o", "511", "--mode", "stochastic", "--rate", "0.5", "--name", "Half"]
    assert main([*command, "--seed", "4"]) == 0
    assert '"seed": 4' in (raw / "Dataset511_Half" / "censoring.json").read_text()
    assert main(command) == 2
    assert "; --overwrite replaces it" in capsys.readouterr().err
    assert main([*command, "--overwrite"]) == 0
    assert '"seed": 0' in (raw / "Dataset511_Half" / "censoring.json").read_text()
    assert "note:" not in capsys.readouterr().err

    (raw.parent / "nnUNet_preprocessed" / "Dataset511_Half").mkdir()
    assert main([*command, "--overwrite"]) == 0
    assert "note: Dataset511_Half was preprocessed or trained before" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"-d": "77"}, "dataset 77 not found below nnUNet_raw="),
        ({"-o": "501"}, "output id 501 is the id of the source, Dataset501_Phantom"),
        ({"-o": "1000"}, "dataset id must be within 1 to 999, got 1000"),
        ({"--rate": "1.01"}, "rate must be within [0, 1], got 1.01"),
        ({"--rate": "nan"}, "rate must be within [0, 1], got nan"),
        ({"--name": "no spaces"}, "dataset name must consist of"),
        ({"-np": "0"}, "number of workers (-np) must be at least 1, got 0"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    raw: Path, capsys: pytest.CaptureFixture[str], change: dict[str, str], message: str
) -> None:
    capsys.readouterr()
    options = {"-d": "501", "-o": "511", "--mode": "size", "--rate": "0.5"} | change
    assert main([text for pair in options.items() for text in pair]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert captured.err.startswith(f"lopsided-censor: error: {message}")
    assert [p.name for p in raw.iterdir()] == ["Dataset501_Phantom"]


def test_a_missing_path_variable_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.delenv("nnUNet_raw", raising=False)
    assert main(["-d", "501", "-o", "511", "--mode", "size", "--rate", "0.5"]) == 2
    assert capsys.readouterr().err.startswith("lopsided-censor: error: nnUNet_raw is not set")


def test_help_imports_nothing_heavy() -> None:
    program = (
        "import sys\nfrom nnunet_lopsided.commands.censor import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit as end:\n    assert end.code == 0\n"
        "print([m for m in ('numpy', 'SimpleITK', 'torch', 'nnunetv2') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert out.stdout.startswith("usage: lopsided-censor")
    assert out.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("delay_ms", [0, 20, 50])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_and_it_can_be_run_again(raw: Path, number: signal.Signals, delay_ms: int) -> None:
    # An interrupt during an import used to leave worker threads waiting for the import lock, for ever.
    command = [sys.executable, "-c", f"from {main.__module__} import main; raise SystemExit(main())"]
    command += ["-d", "501", "-o", "511", "--mode", "size", "--rate", "0.5"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    deadline = time.monotonic() + 30
    while process.poll() is None and not any(raw.glob("*Dataset511*")) and time.monotonic() < deadline:
        time.sleep(0.001)
    time.sleep(delay_ms / 1000)
    process.send_signal(number)
    _, error = process.communicate(timeout=60)
    assert process.returncode in (0, 130), error
    assert main(["-d", "501", "-o", "511", "--mode", "size", "--rate", "0.5", "--overwrite"]) == 0


def test_argparse_errors_are_one_line_too(raw: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["-d", "501", "-o", "511", "--mode", "size", "--rate", "half"])
    assert caught.value.code == 2
    assert capsys.readouterr().err.splitlines() == [
        "lopsided-censor: error: argument --rate: invalid float value: 'half'"
    ]


def test_a_name_with_other_letters_is_made_plain(raw: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = next(raw.glob("Dataset501_*"))
    source = source.rename(raw / "Dataset501_m\u00e9 ta")
    assert main(["-d", "501", "-o", "511", "--mode", "size", "--rate", "0.5"]) == 0
    assert (raw / "Dataset511_m__taCensored" / "dataset.json").is_file()


@pytest.mark.parametrize("listed", ['["x"]', '{"a": {"label": "labelsTr/a.nii.gz"}}', '{"a": 3}'])
def test_a_malformed_list_of_cases(raw: Path, listed: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = next(raw.glob("Dataset501_*")) / "dataset.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "dataset": json.loads(listed)}))
    assert main(["-d", "501", "-o", "511", "--mode", "size", "--rate", "0.5"]) == 2
    assert str(path) in capsys.readouterr().err


def test_a_dry_run_prints_and_draws_and_writes_nothing_else(
    raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    before = sorted(raw.rglob("*"))
    capsys.readouterr()
    assert main(["-d", "501", "--mode", "size", "--rate", "0.5", "--dry-run"]) == 0
    out = capsys.readouterr().out
    picture = folder / "Dataset501_Phantom-size-0.5.png"
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert [path.name for path in folder.iterdir()] == [picture.name]
    assert out.endswith(f"\npicture: {picture}\nnothing else was written\n")
    assert sorted(raw.rglob("*")) == before

    assert main(["-d", "501", "-o", "511", "--mode", "size", "--rate", "0.5"]) == 0
    lines = (raw / "Dataset511_PhantomCensored" / "censored_lesions.csv").read_text().splitlines()[1:]
    gone = [line for line in lines if line.endswith(",censored")]
    assert out.startswith(
        f"Dataset501_Phantom: 2 training cases, {len(lines)} lesions, of which {len(gone)} would go "
        f"({len(gone) / len(lines):.1%})\n"
    )
    for case in {line.split(",")[0] for line in lines}:
        n, k = (sum(line.startswith(case) for line in rows) for rows in (lines, gone))
        assert [line.split()[1:] for line in out.splitlines() if line.startswith(case)] == [
            [str(n), str(k), f"{k / n:.1%}"]
        ]

    capsys.readouterr()
    again = ["-d", "501", "--mode", "size", "--rate", "0.5", "--dry-run"]
    first = picture.read_bytes()
    assert main(again) == 0
    assert picture.read_bytes() == first
    picture.write_bytes(b"somebody else's")
    assert main(again) == 2
    assert f"{picture} exists, and no dry run wrote it; --overwrite replaces it, --pict" in capsys.readouterr().err
    assert main([*again, "--overwrite"]) == 0
    assert picture.read_bytes() == first
    assert main([*again, "--picture", "other.png"]) == 0
    assert (folder / "other.png").read_bytes() == first


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--dry-run", "--picture", "a.jpg"], "--picture must be a .png file, got"),
        (["--dry-run", "--picture", "nowhere/a.png"], "--picture: folder not found:"),
        (["-o", "511", "--picture", "a.png"], "--picture is for --dry-run"),
        ([], "the following arguments are required: -o (or --dry-run)"),
        (["-o", "511", "--list", "x.csv"], "a CSV of lesions is for mode list, got mode size"),
        (["-o", "511", "--patients", "3"], "number of patients must be within 1 to 2, the patients to train on, got 3"),
    ],
)
def test_options_that_do_not_go_together(
    raw: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert main(["-d", "501", "--mode", "size", "--rate", "0.5", *arguments]) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith(f"lopsided-censor: error: {message}")
    assert [p.name for p in raw.iterdir()] == ["Dataset501_Phantom"]


def test_every_mode_from_the_command_line(raw: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["-d", "501", "-o", "511", "--mode", "reader", "--name", "R"]) == 0
    assert main(["-d", "501", "-o", "512", "--mode", "contrast", "--rate", "0.5", "--name", "C", "--cases", "all"]) == 0
    made = str(raw / "Dataset512_C" / "censored_lesions.csv")
    assert main(["-d", "501", "-o", "513", "--mode", "list", "--list", made, "--cases", "all"]) == 0
    assert main(["-d", "501", "-o", "514", "--patients", "1", "--patients-regex", "_(.+)$"]) == 0
    names = sorted(path.name for path in raw.iterdir())
    assert names[1:] == ["Dataset511_R", "Dataset512_C", "Dataset513_PhantomCensored", "Dataset514_Phantom1Patients"]
    for path in (raw / "Dataset512_C").glob("labels*/*"):
        assert (
            path.read_bytes()
            == (raw / "Dataset513_PhantomCensored" / path.relative_to(raw / "Dataset512_C")).read_bytes()
        )
