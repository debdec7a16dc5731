"""lopsided-doctor."""

from __future__ import annotations

import builtins
import platform
import re
import sys
from importlib import metadata
from pathlib import Path

import pytest

from nnunet_lopsided import __version__, trainers
from nnunet_lopsided.commands import doctor
from nnunet_lopsided.startup import PLUGIN_FOLDER, SWITCH_OFF, VARIABLE


@pytest.fixture
def report(nnunet_paths: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Runs the command; gives its exit code and its lines."""
    monkeypatch.setenv(VARIABLE, PLUGIN_FOLDER)
    monkeypatch.delenv(SWITCH_OFF, raising=False)

    def run() -> tuple[int, list[str]]:
        capsys.readouterr()
        code = doctor.main([])
        return code, capsys.readouterr().out.splitlines()

    return run


def test_all_is_well(report, nnunet_paths: Path) -> None:
    code, lines = report()
    assert code == 0
    assert lines[-1] == "nothing missing"
    assert f"[  ok   ] Python: {platform.python_version()}" in lines
    assert f"[  ok   ] nnunet-lopsided: {__version__}" in lines
    for package in ("nnunetv2", "torch", "segmentation-models-pytorch", "setuptools"):
        assert f"[  ok   ] {package}: {metadata.version(package)}" in lines
    for variable in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        assert f"[  ok   ] {variable}: {nnunet_paths / variable}" in lines
    for name in doctor._TRAINERS:
        assert f"[  ok   ] {name}: found by nnU-Net" in lines
    assert any("] GPU: " in line for line in lines)
    # nnU-Net's search does not print into the report.
    assert all(line.startswith("[") for line in lines[:-1])


def test_every_dependency_is_listed() -> None:
    requirements = [r for r in metadata.requires("nnunet-lopsided") or [] if "extra ==" not in r]
    names = {re.split(r"[<>=~!; \[]", requirement)[0].lower() for requirement in requirements}
    assert len(names) > 10
    assert names <= {package.lower() for package in doctor._PACKAGES}


@pytest.mark.parametrize("variable", ["nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"])
def test_a_missing_path(report, variable: str, monkeypatch: pytest.MonkeyPatch, nnunet_paths: Path) -> None:
    monkeypatch.delenv(variable)
    code, lines = report()
    assert code == 1
    assert f"[missing] {variable}: not set: export {variable}=/path/to/{variable}" in lines
    assert lines[-1] == "1 thing(s) missing"
    monkeypatch.setenv(variable, str(nnunet_paths / "nowhere"))
    code, lines = report()
    assert code == 1
    assert f"[missing] {variable}: {nnunet_paths / 'nowhere'} is not a folder: mkdir -p {nnunet_paths / 'nowhere'}" in (
        lines
    )


def test_a_path_that_cannot_be_made(report, monkeypatch: pytest.MonkeyPatch, nnunet_paths: Path) -> None:
    """No advice that makes another folder, or none."""
    space, spaced, file = f"{nnunet_paths / 'nnUNet_raw'} ", nnunet_paths / "with space", nnunet_paths / "file"
    file.touch()
    for value, line in (
        (space, f"set to {space!a} (mind the white space), which is not a folder"),
        (str(file), f"set to {file}, which is not a folder"),
        (str(spaced), f"{spaced} is not a folder: mkdir -p '{spaced}'"),
    ):
        monkeypatch.setenv("nnUNet_raw", value)
        code, lines = report()
        assert code == 1
        assert f"[missing] nnUNet_raw: {line}" in lines


def test_the_hook_switched_off(report, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SWITCH_OFF, "1")
    monkeypatch.setenv(VARIABLE, "/mine")
    code, lines = report()
    assert code == 1
    assert f'[missing] trainers: not in {VARIABLE} ({SWITCH_OFF} is set): eval "$(lopsided-env)"' in lines
    monkeypatch.delenv(SWITCH_OFF)
    assert any("the start-up hook did not run" in line for line in report()[1])


def test_another_class_of_our_name(report, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "copied.py").write_text(
        "from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer\n"
        "class nnUNetTrainerLopsided(nnUNetTrainer):\n    pass\n"
    )
    monkeypatch.setenv(VARIABLE, f"{tmp_path / 'mine'}:{PLUGIN_FOLDER}")
    code, lines = report()
    assert code == 1
    found = [line for line in lines if "another class of that name is found first" in line]
    assert len(found) == 1
    assert found[0].startswith("[missing] nnUNetTrainerLopsided: ")
    assert "copied.nnUNetTrainerLopsided" in found[0]


def test_a_look_up_that_breaks_is_reported(report, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "broken.py").write_text("raise ImportError('no such thing')")
    monkeypatch.setenv(VARIABLE, f"{tmp_path / 'mine'}:{PLUGIN_FOLDER}")
    code, lines = report()
    assert code == 1
    assert f"[missing] {doctor._TRAINERS[0]}: nnU-Net does not find it: no such thing" in lines


def test_a_missing_package(report, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_PACKAGES", ("torch", "no-such-package"))
    code, lines = report()
    assert code == 1
    assert "[missing] no-such-package: not installed: pip install no-such-package" in lines


@pytest.mark.parametrize("error", [None, ImportError("no libcudart"), OSError("libc10.so: cannot open")])
def test_a_torch_that_does_not_load(report, monkeypatch: pytest.MonkeyPatch, error: Exception | None) -> None:
    monkeypatch.setattr(doctor, "_trainers", list)  # which need it, and say so themselves
    with monkeypatch.context() as patch:
        if error is None:
            patch.setitem(sys.modules, "torch", None)
        else:
            imported = builtins.__import__

            def breaks(name: str, *args: object, **kwargs: object) -> object:
                if name == "torch":
                    raise error
                return imported(name, *args, **kwargs)  # type: ignore[arg-type]

            patch.setattr(builtins, "__import__", breaks)
        code, lines = report()
    assert code == 1
    (line,) = [line for line in lines if line.startswith("[missing] torch: cannot be imported (")]
    assert str(error or "") in line
    assert any(line.startswith("[  ok   ] Python") for line in lines)
    assert lines[-1] == "1 thing(s) missing"


def test_a_gpu_whose_driver_is_broken(report, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(device: int) -> None:
        raise RuntimeError("CUDA driver version is\n insufficient")

    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.get_device_properties", broken)
    code, lines = report()
    assert code == 1
    assert "[missing] GPU: PyTorch cannot use it (RuntimeError: CUDA driver version is insufficient)" in lines


def test_snakemake_is_optional(report, monkeypatch: pytest.MonkeyPatch) -> None:
    version = metadata.version

    def without_snakemake(name: str) -> str:
        if name == "snakemake":
            raise metadata.PackageNotFoundError(name)
        return version(name)

    monkeypatch.setattr(metadata, "version", without_snakemake)
    code, lines = report()
    assert code == 0
    hint = "not installed; lopsided-study run needs it: pip install 'nnunet-lopsided[study]'"
    assert f"[ note  ] snakemake: {hint}" in lines


def test_the_names_it_tries_exist() -> None:
    assert [getattr(trainers, name).__name__ for name in doctor._TRAINERS] == list(doctor._TRAINERS)


def test_versions_beyond_the_tested_ones_are_told(report, monkeypatch: pytest.MonkeyPatch) -> None:
    version = metadata.version
    newer = {"nnunetv2": "2.8.9", "numpy": "99.0.0", "scipy": doctor._TESTED["scipy"] + "9", "torch": "1.0+cpu"}
    monkeypatch.setattr(metadata, "version", lambda name: newer.get(name) or version(name))
    code, lines = report()
    assert code == 0
    for package in ("nnunetv2", "numpy"):
        tested = doctor._TESTED[package]
        says = f"{newer[package]} is newer than {tested}, the newest version that the tests have run with"
        assert f"[ note  ] {package}: {says}" in lines
    for package in ("scipy", "torch"):
        assert f"[  ok   ] {package}: {newer[package]}" in lines


@pytest.mark.parametrize(
    ("version", "line"),
    [
        ("2.6.4", "[  ok   ] nnunetv2: 2.6.4"),
        ("2.8.1", "[  ok   ] nnunetv2: 2.8.1"),
        ("2.6.2", "[ note  ] nnunetv2: 2.6.2 is none of those that the tests have run with: 2.6.4, 2.7.0, 2.8.1"),
    ],
)
def test_versions_of_nnunet(report, monkeypatch: pytest.MonkeyPatch, version: str, line: str) -> None:
    real = metadata.version
    monkeypatch.setattr(metadata, "version", lambda name: version if name == "nnunetv2" else real(name))
    code, lines = report()
    assert code == 0
    assert line in lines


def test_the_tested_versions_are_those_of_the_constraints() -> None:
    text = (Path(__file__).resolve().parents[2] / "constraints.txt").read_text().lower().replace("_", "-")
    pinned = dict(line.split("==") for line in text.splitlines() if "==" in line)
    assert {name: pinned[name.lower()] for name in doctor._TESTED} == doctor._TESTED
